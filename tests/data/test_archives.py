import zipfile

import numpy as np
import pytest
import torch
from PIL import Image
from toyfiles import encoded, png, square

from nearfar import data
from nearfar.data.archives import escapes


def test_a_zip_of_own_classes(pets_zip):
    train, test = data.load("friends"), data.load("friends", "test")
    assert train.inputs.shape == (6, 3, 6, 6) and test.inputs.shape == (2, 3, 6, 6)
    assert train.inputs[:, 0, 0, 0].tolist() == [0, 1, 2, 10, 11, 12] and train.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert train.classes == ("cat", "dog") and train.name == "friends/train" and train.identity != test.identity
    assert "friends" in data.names()


def test_entries_in_another_order_are_the_same_data(make_zip):
    entries = {f"train/{c}/{i}.png": square(7 * i) for c in "ab" for i in range(3)}
    make_zip("one", entries)
    make_zip("two", dict(reversed(entries.items())))
    assert data.load("one").identity == data.load("two").identity


def test_wrapped_in_a_folder_and_left_overs_of_file_managers(make_zip):
    make_zip("mine", {
        "mine/train/a/0.png": square(1), "mine/train/b/0.png": square(2), "__MACOSX/mine/train/a/._0.png": b"x",
        "mine/.DS_Store": b"x", "mine/train/a/Thumbs.db": b"x", "mine/train/": b"",
    })  # fmt: skip
    assert data.load("mine").labels.tolist() == [0, 1]


def test_grey_images_have_one_channel_unless_one_is_coloured(make_zip):
    make_zip("grey", {"train/a/0.png": square(5, colour=False), "train/a/1.png": square(9, colour=False)})
    assert data.load("grey").inputs.shape == (2, 1, 6, 6)
    make_zip("both", {"train/a/0.png": square(5, colour=False), "train/a/1.png": square(9)})
    assert data.load("both").inputs[:, :, 0, 0].tolist() == [[5, 5, 5], [9, 9, 9]]


def test_sizes(make_zip):
    make_zip("odd", {"train/a/0.png": square(5, size=6), "train/a/1.png": png(np.full((8, 4, 3), 9))})
    with pytest.raises(data.DataError, match=r"differing sizes \(6×6 and 4×8\): pass size="):
        data.load("odd")
    resized = data.load("odd", size=5)
    assert resized.inputs.shape == (2, 3, 5, 5) and resized.inputs[:, 0, 2, 2].tolist() == [5, 9]


def test_crop_is_central(make_zip):
    wide = np.zeros((4, 12, 3))
    wide[:, 4:8] = 200
    make_zip("wide", {"train/a/0.png": png(wide)})
    assert (data.load("wide", size=4).inputs == 200).all()


def only_image(make_zip, content, size=None):
    make_zip("odd", {"train/a/0.png": content})
    return data.load("odd", size=size).inputs[0]


def test_sixteen_bits_become_eight(make_zip):
    """A ramp keeps its mean, where cutting off at 255 would make nearly all of it white."""
    ramp = np.linspace(0, 65535, 256 * 256).reshape(256, 256).round().astype(np.uint16)
    pixels = only_image(make_zip, encoded(Image.fromarray(ramp), "png"))
    assert pixels.shape == (1, 256, 256)
    assert np.abs(pixels[0].numpy() - ramp / 257).max() <= 0.5 + 1e-9
    again = only_image(make_zip, encoded(Image.fromarray(ramp.astype(">u2")), "tiff"))
    assert torch.equal(again, pixels)
    small = only_image(make_zip, encoded(Image.fromarray(ramp), "png"), size=8)
    assert small.float().mean() == pytest.approx(127.5, abs=1)


def test_floats_from_zero_to_one(make_zip):
    ramp = np.linspace(0, 1, 256, dtype=np.float32).reshape(16, 16)
    pixels = only_image(make_zip, encoded(Image.fromarray(ramp), "tiff"))
    assert pixels[0].flatten().tolist() == list(range(256))


@pytest.mark.parametrize("pixels", [np.float32([[0, 3.5]]), np.float32([[-1, 1]]), np.int32([[0, 70000]])])
def test_numbers_without_a_known_scale(make_zip, pixels):
    with pytest.raises(data.DataError, match=r"'train/a/0.png': pixels from .* have no known scale: save it with 8"):
        only_image(make_zip, encoded(Image.fromarray(pixels), "tiff"))


@pytest.mark.parametrize(("orientation", "turns", "mirrored"), [(1, 0, False), (3, 2, False), (6, 3, False),
                                                              (8, 1, False), (2, 0, True)])  # fmt: skip
def test_photographs_stand_upright(make_zip, orientation, turns, mirrored):
    """A camera notes how it was held instead of turning the pixels."""
    upright = np.arange(6, dtype=np.uint8).reshape(2, 3) * 40
    stored = upright[:, ::-1] if mirrored else np.rot90(upright, -turns)
    photograph, exif = Image.fromarray(np.ascontiguousarray(stored)), Image.Exif()
    exif[0x0112] = orientation
    pixels = only_image(make_zip, encoded(photograph, "png", exif=exif))
    assert np.array_equal(pixels[0].numpy(), upright)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparent_pixels_are_white_whatever_they_hide(make_zip, mode):
    hidden = np.zeros((2, 2, 4), dtype=np.uint8)
    hidden[..., :3], hidden[0, :, 3] = 60, 255  # the lower row is transparent
    image = Image.fromarray(hidden).convert("LA" if mode == "LA" else "RGBA")
    image = image.quantize(4) if mode == "P" else image
    pixels = only_image(make_zip, encoded(image, "png"))
    assert len(pixels) == (1 if mode == "LA" else 3)
    assert (pixels[:, 0] == 60).all() and (pixels[:, 1] == 255).all()


def test_half_transparent_pixels_are_mixed_with_white(make_zip):
    pixels = only_image(make_zip, encoded(Image.new("RGBA", (1, 1), (0, 100, 200, 51)), "png"))
    assert pixels.flatten().tolist() == [204, 224, 244]


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({}, "holds no files"),
        ({"readme.txt": b"hello"}, "is not split/class/image"),
        ({"train/a/b/c/0.png": b"x"}, "is not split/class/image"),
        ({"train/a/0.png": square(1), "train/b/notes.txt": b"hello"}, r"'train/b/notes.txt' is not a readable image"),
        ({"train/a/0.png": square(1)[:40]}, r"'train/a/0.png' is not a readable image"),
        ({"train/a/0.png": square(1), "test/b/0.png": square(1)}, "class '[ab]' is missing"),
        ({"test/a/0.png": square(1)}, "bad.zip has the splits test, not 'train'"),
    ],
)
def test_wrong_content(make_zip, entries, message):
    make_zip("bad", entries)
    with pytest.raises(data.DataError, match=message) as caught:
        data.load("bad")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("entry", ["../x.png", "train/../../x.png", "/etc/x.png", "C:/x.png", "..\\x.png", "\\x.png"])
def test_an_entry_that_escapes_refuses_the_archive(make_zip, entry, tmp_path):
    path = make_zip("slip", {"train/a/0.png": square(1), "train/b/0.png": square(1)})
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("train/a/1.png", square(1))
        archive.filelist[-1].filename = entry  # writestr would tidy the name up
    assert escapes(entry)
    with pytest.raises(data.DataError, match="is refused: its entry .* points outside its folder"):
        data.load("slip")
    assert not (tmp_path / "x.png").exists() and not (tmp_path / "decoded").exists()


@pytest.mark.parametrize("name", ["train/a..b/0.png", "train/a/...png", "a/b:c/0.png"])
def test_harmless_dots(name):
    assert not escapes(name)


def test_damaged_zips(pets_zip):
    whole = pets_zip.read_bytes()
    pets_zip.write_bytes(b"")
    with pytest.raises(data.DataError, match="is empty"):
        data.load("friends")
    pets_zip.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(data.DataError, match="truncated or not a zip"):
        data.load("friends")
    broken = bytearray(whole)
    broken[60] ^= 0xFF  # inside the first image
    pets_zip.write_bytes(bytes(broken))
    with pytest.raises(data.DataError, match="is corrupt at|is not a readable image"):
        data.load("friends")
    pets_zip.write_bytes(whole)
    assert len(data.load("friends")) == 6
