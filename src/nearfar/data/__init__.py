"""Data: named sets, nested subsets of growing size, and a drawn world whose every factor is known."""

from nearfar.data import scenes
from nearfar.data.arrays import ArrayDataset, DataError
from nearfar.data.loading import data_root, load, names
from nearfar.data.sampling import subsets

__all__ = ["ArrayDataset", "DataError", "data_root", "load", "names", "scenes", "subsets"]
