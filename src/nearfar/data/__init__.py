"""Data: named sets, nested subsets of growing size, and a drawn world whose every factor is known."""

from nearfar.data import scenes
from nearfar.data.arrays import ArrayDataset, DataError
from nearfar.data.canonical import CIFAR100_SUPERCLASSES
from nearfar.data.loading import data_root, load, names
from nearfar.data.sampling import subsets

__all__ = ["CIFAR100_SUPERCLASSES", "ArrayDataset", "DataError", "data_root", "load", "names", "scenes", "subsets"]
