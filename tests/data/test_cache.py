import os
import signal
import subprocess
import sys
import time
import warnings

import pytest
import torch
from toyfiles import square

from nearfar import data
from nearfar.data import cache, loading


def entries():
    return sorted((cache.folder()).glob("*"))


@pytest.fixture
def decodings(monkeypatch):
    """Counts how often an archive is decoded."""
    calls = []
    real = loading.image_folder
    monkeypatch.setattr(loading, "image_folder", lambda *a: calls.append(a) or real(*a))
    return calls


def same(a, b):
    assert torch.equal(a.inputs, b.inputs) and torch.equal(a.labels, b.labels)
    assert (a.classes, a.name, a.identity) == (b.classes, b.name, b.identity)


def test_the_second_start_reads_the_cache(pets_zip, decodings):
    first, second = data.load("friends"), data.load("friends")
    same(first, second)
    assert len(decodings) == 1 and len(entries()) == 1 and entries()[0].suffix == ".safetensors"


def test_split_and_size_are_kept_apart(pets_zip, decodings):
    for arguments in ({}, {"split": "test"}, {"size": 3}):
        same(data.load("friends", **arguments), data.load("friends", **arguments))
    assert len(decodings) == 3 == len(entries())


def test_a_changed_source_is_decoded_again(make_zip, decodings):
    make_zip("own", {"train/a/0.png": square(1)})
    assert data.load("own").inputs.unique().tolist() == [1]
    time.sleep(0.02)
    make_zip("own", {"train/a/0.png": square(2)})
    assert data.load("own").inputs.unique().tolist() == [2] and len(decodings) == 2


def test_writing_into_a_loaded_set_leaves_the_cache_alone(pets_zip):
    data.load("friends")
    loaded = data.load("friends")
    before = loaded.inputs.clone()
    loaded.inputs.fill_(99)
    assert torch.equal(data.load("friends").inputs, before)


@pytest.mark.parametrize("damage", ["empty", "cut", "flipped pixel", "flipped header", "text", "other file"])
def test_a_damaged_cache_is_rebuilt(pets_zip, decodings, damage):
    good = data.load("friends")
    (path,) = entries()
    content = bytearray(path.read_bytes())
    if damage == "flipped pixel":
        content[-9] ^= 1
    elif damage == "flipped header":
        content[3] ^= 0x40
    path.write_bytes({"empty": b"", "cut": content[:-5], "text": b"not safetensors"}.get(damage, content))
    if damage == "other file":
        from safetensors.torch import save_file

        save_file({"inputs": torch.zeros(3)}, path)
    same(good, data.load("friends"))
    assert len(decodings) == 2
    same(good, data.load("friends"))
    assert len(decodings) == 2 and entries() == [path]


def test_a_cache_that_cannot_be_written_costs_time_not_the_run(pets_zip, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("NEARFAR_CACHE", str(tmp_path / "file" / "decoded"))
    with pytest.warns(UserWarning, match="was not kept"):
        assert len(data.load("friends")) == 6


def test_a_full_disk_leaves_nothing_half_written(pets_zip, monkeypatch):
    import safetensors.torch

    def full(tensors, path, metadata):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(safetensors.torch, "save_file", full)
    with pytest.warns(UserWarning, match="No space left"):
        assert len(data.load("friends")) == 6
    assert entries() == []


def test_a_data_folder_that_is_read_only_stays_untouched(pets_zip, root):
    before = sorted(root.rglob("*"))
    data.load("friends")
    assert sorted(root.rglob("*")) == before


LOAD = "import sys; from nearfar import data; print(data.load('friends', root=sys.argv[1]).identity)"
SLOW = """
import sys, time
import safetensors.torch
real = safetensors.torch.save_file
def slow(tensors, path, metadata):
    path.write_bytes(b"half a file")
    print("writing", flush=True)
    time.sleep(60)
safetensors.torch.save_file = slow
"""


def start(code, root):
    environment = dict(os.environ, OMP_NUM_THREADS="1")
    return subprocess.Popen([sys.executable, "-c", code, str(root)], stdout=subprocess.PIPE, text=True, env=environment)


def test_killed_while_writing_then_two_at_once(pets_zip, root):
    killed = start(SLOW + LOAD, root)
    assert killed.stdout.readline() == "writing\n"
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    (partial,) = entries()
    assert partial.suffix == ".tmp"
    both = [start(LOAD, root) for _ in range(2)]
    identities = {process.communicate(timeout=60)[0].strip() for process in both}
    assert [process.returncode for process in both] == [0, 0]
    assert identities == {data.load("friends").identity}

    os.utime(partial, (1, 1))  # long ago: the next write tidies it away
    data.load("friends", "test")
    assert [path.suffix for path in entries()] == [".safetensors"] * 2


def test_folders_follow_the_environment(monkeypatch, tmp_path):
    assert cache.folder() == tmp_path / "decoded" and data.data_root() == tmp_path / "data"
    monkeypatch.delenv("NEARFAR_CACHE")
    monkeypatch.delenv("NEARFAR_DATA")
    assert cache.folder() == tmp_path / "user" / "nearfar" / "decoded"
    assert data.data_root() == tmp_path / "user" / "nearfar" and data.data_root(tmp_path) == tmp_path


def test_big_files_are_named_by_both_ends(tmp_path, monkeypatch):
    monkeypatch.setattr(cache, "WHOLE_FILE_HASH", 10)
    path = tmp_path / "big.mat"
    path.write_bytes(b"a" * 100)
    first = cache._source(path)
    path.write_bytes(b"a" * 99 + b"b")
    assert cache._source(path)[3] != first[3]


def test_a_zip_of_no_images_makes_no_entry(make_zip):
    make_zip("none", {})
    with warnings.catch_warnings(), pytest.raises(data.DataError):
        warnings.simplefilter("error")
        data.load("none")
    assert entries() == []
