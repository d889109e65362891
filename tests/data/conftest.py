"""Toy data sets on disk, so that no test needs real ones."""

import gzip
import zipfile

import numpy as np
import pytest
from toyfiles import square, ubyte


@pytest.fixture(autouse=True)
def own_folders(tmp_path, monkeypatch):
    """Every test has its own data folder and caches."""
    monkeypatch.setenv("NEARFAR_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("NEARFAR_CACHE", str(tmp_path / "decoded"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))
    (tmp_path / "data").mkdir()


@pytest.fixture
def root(tmp_path):
    return tmp_path / "data"


@pytest.fixture
def make_zip(root):
    """make_zip(name, {entry: bytes}) writes data/<name>.zip."""

    def make(name, entries):
        with zipfile.ZipFile(root / f"{name}.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            for entry, content in entries.items():
                archive.writestr(entry, content)
        return root / f"{name}.zip"

    return make


@pytest.fixture
def pets_zip(make_zip):
    """Two classes, three training images and one test image each; the grey level is 10 × class + number."""
    entries = {
        f"{split}/{name}/{i}.png": square(10 * c + i)
        for split, count in (("train", 3), ("test", 1))
        for c, name in enumerate(("cat", "dog"))
        for i in range(count)
    }
    return make_zip("friends", entries)


@pytest.fixture
def toy_mnist(root):
    """MNIST's files with 20 + 10 tiny images; the test files are gzipped."""
    raw = root / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for stem, count in (("train", 20), ("t10k", 10)):
        images = np.arange(count * 16).reshape(count, 4, 4) % 251
        for kind, array in (("images-idx3", images), ("labels-idx1", np.arange(count) % 10)):
            path = raw / f"{stem}-{kind}-ubyte"
            if stem == "t10k":
                path.with_name(path.name + ".gz").write_bytes(gzip.compress(ubyte(array)))
            else:
                path.write_bytes(ubyte(array))
    return raw
