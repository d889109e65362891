import pytest
import torch

from nearfar.data import ArrayDataset
from nearfar.data.arrays import content_identity


def toy(n=6):
    return ArrayDataset(
        torch.arange(n * 4, dtype=torch.uint8).view(n, 1, 2, 2),
        torch.arange(n) % 2,
        {"drawer": torch.arange(n) * 10},
        ("even", "odd"),
        name="toy",
        identity="ab" * 32,
        captions=tuple(f"image {i}" for i in range(n)),
    )


@pytest.mark.parametrize(
    "index",
    [torch.tensor([4, 1]), [4, 1], torch.tensor([-2, 1]), torch.tensor([4, 1], dtype=torch.int32)],
)
def test_rows_by_number(index):
    part = toy()[index]
    assert part.inputs[:, 0, 0, 0].tolist() == [16, 4]
    assert part.labels.tolist() == [0, 1] and part.attributes["drawer"].tolist() == [40, 10]
    assert part.captions == ("image 4", "image 1") and part.classes == ("even", "odd")


def test_the_same_rows_have_the_same_identity_however_they_are_named():
    dataset, mask = toy(), torch.tensor([False, True, True, False, False, False])
    parts = dataset[1:3], dataset[mask], dataset[[1, 2]], dataset[torch.tensor([-5, -4])]
    assert all(part.labels.tolist() == [1, 0] for part in parts)
    assert len({part.identity for part in parts}) == 1
    assert len({dataset.identity, dataset[1:3].identity, dataset[2:4].identity, dataset[[2, 1]].identity}) == 4


def test_rows_of_rows_keep_their_origin_in_the_identity():
    dataset = toy()
    assert dataset[0:3][1:2].identity != dataset[1:4][1:2].identity


def test_an_empty_mask_gives_an_empty_set():
    assert len(toy()[torch.zeros(6, dtype=torch.bool)]) == 0


def test_unnamed_data_stays_unnamed():
    assert ArrayDataset(torch.rand(3, 2), torch.rand(3))[:2].identity == ""


@pytest.mark.parametrize(
    ("index", "message"),
    [
        (2, r"write dataset\[2:3\]"),
        (torch.tensor([6]), "row 6 is out of range for 6 rows"),
        (torch.tensor([-7]), "row -7 is out of range for 6 rows"),
        (torch.ones(5, dtype=torch.bool), "mask of shape"),
        (torch.tensor([0.5]), "row numbers"),
        (torch.zeros(1, 1, dtype=torch.long), "row numbers"),
    ],
)
def test_bad_index(index, message):
    with pytest.raises(ValueError, match=f"index: .*{message}"):
        toy()[index]


def test_rows_must_agree():
    with pytest.raises(ValueError, match="labels has 3 rows, but inputs has 2"):
        ArrayDataset(torch.zeros(2, 1), torch.zeros(3))
    with pytest.raises(ValueError, match="'drawer'"):
        ArrayDataset(torch.zeros(2, 1), torch.zeros(2), {"drawer": torch.zeros(1)})
    with pytest.raises(ValueError, match="captions has 1 rows"):
        ArrayDataset(torch.zeros(2, 1), torch.zeros(2), captions=("one",))


def test_to_moves_every_tensor():
    there = toy().to("meta")
    assert {there.inputs.device.type, there.labels.device.type, there.attributes["drawer"].device.type} == {"meta"}
    assert there.captions == toy().captions


def test_a_set_prints_as_one_line():
    assert repr(toy()) == "ArrayDataset('toy', 6 rows, inputs (1, 2, 2) uint8, 2 classes, attributes: drawer)"
    assert (
        repr(ArrayDataset(torch.rand(3, 2), torch.rand(3)))
        == "ArrayDataset('', 3 rows, inputs (2,) float32, 0 classes)"
    )


def test_identity_is_of_the_content():
    inputs, labels, extra = torch.arange(12.0).view(3, 4), torch.arange(3), {"a": torch.ones(3)}
    identity = content_identity(inputs, labels, extra, ("x",))
    assert identity == content_identity(inputs.clone(), labels.clone(), extra, ("x",)) and len(identity) == 64
    for changed in (
        (inputs + 1, labels, extra, ("x",)),
        (inputs.view(3, 2, 2), labels, extra, ("x",)),
        (inputs, labels.flip(0), extra, ("x",)),
        (inputs, labels, {"a": torch.zeros(3)}, ("x",)),
        (inputs, labels, extra, ("y",)),
    ):
        assert content_identity(*changed) != identity
