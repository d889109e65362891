"""One form for each built-in set, however its files lie on disk: class names, order of classes, order of rows.

The same images read from a zip or from torchvision's own files so have the same identity and the same rows in the same
order; a seed draws the same subsets from both.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence

import torch
from torch import Tensor

from nearfar.data.arrays import ArrayDataset

CIFAR100_GROUPS = {  # superclass: its five classes [Krizhevsky, 2009]
    "aquatic mammals": "beaver dolphin otter seal whale",
    "fish": "aquarium_fish flatfish ray shark trout",
    "flowers": "orchid poppy rose sunflower tulip",
    "food containers": "bottle bowl can cup plate",
    "fruit and vegetables": "apple mushroom orange pear sweet_pepper",
    "household electrical devices": "clock keyboard lamp telephone television",
    "household furniture": "bed chair couch table wardrobe",
    "insects": "bee beetle butterfly caterpillar cockroach",
    "large carnivores": "bear leopard lion tiger wolf",
    "large man-made outdoor things": "bridge castle house road skyscraper",
    "large natural outdoor scenes": "cloud forest mountain plain sea",
    "large omnivores and herbivores": "camel cattle chimpanzee elephant kangaroo",
    "medium-sized mammals": "fox porcupine possum raccoon skunk",
    "non-insect invertebrates": "crab lobster snail spider worm",
    "people": "baby boy girl man woman",
    "reptiles": "crocodile dinosaur lizard snake turtle",
    "small mammals": "hamster mouse rabbit shrew squirrel",
    "trees": "maple_tree oak_tree palm_tree pine_tree willow_tree",
    "vehicles 1": "bicycle bus motorcycle pickup_truck train",
    "vehicles 2": "lawn_mower rocket streetcar tank tractor",
}
CIFAR100_SUPERCLASSES = tuple(CIFAR100_GROUPS)
_SUPERCLASS_OF = {name: i for i, members in enumerate(CIFAR100_GROUPS.values()) for name in members.split()}

CLASSES = {
    "mnist": tuple("0123456789"),
    "svhn": tuple("0123456789"),
    "cifar10": tuple("airplane automobile bird cat deer dog frog horse ship truck".split()),
    "cifar100": tuple(sorted(_SUPERCLASS_OF)),
    "stl10": tuple("airplane bird car cat deer dog horse monkey ship truck".split()),
    "eurosat": tuple(
        "AnnualCrop Forest HerbaceousVegetation Highway Industrial Pasture PermanentCrop Residential River "
        "SeaLake".split()
    ),
    "dtd": tuple(
        "banded blotchy braided bubbly bumpy chequered cobwebbed cracked crosshatched crystalline dotted fibrous "
        "flecked freckled frilly gauzy grid grooved honeycombed interlaced knitted lacelike lined marbled matted "
        "meshed paisley perforated pitted pleated polka-dotted porous potholed scaly smeared spiralled sprinkled "
        "stained stratified striped studded swirly veined waffled woven wrinkled zigzagged".split()
    ),
    "pets": tuple(
        "Abyssinian, American Bulldog, American Pit Bull Terrier, Basset Hound, Beagle, Bengal, Birman, Bombay, Boxer, "
        "British Shorthair, Chihuahua, Egyptian Mau, English Cocker Spaniel, English Setter, German Shorthaired, "
        "Great Pyrenees, Havanese, Japanese Chin, Keeshond, Leonberger, Maine Coon, Miniature Pinscher, Newfoundland, "
        "Persian, Pomeranian, Pug, Ragdoll, Russian Blue, Saint Bernard, Samoyed, Scottish Terrier, Shiba Inu, "
        "Siamese, Sphynx, Staffordshire Bull Terrier, Wheaten Terrier, Yorkshire Terrier".split(", ")
    ),
}
IN_TORCHVISION = {"fashion-mnist": "FashionMNIST", "kmnist": "KMNIST", "flowers102": "Flowers102"}  # names stand there
SUPERCLASS = torch.tensor([_SUPERCLASS_OF[name] for name in CLASSES["cifar100"]])  # (100,), of each class


def class_names(name: str) -> tuple[str, ...]:
    """The classes of a built-in set in the order of its labels; () for any other name, and for omniglot."""
    if name in IN_TORCHVISION:
        import torchvision

        numbers = [str(number) for number in range(102)]  # for a torchvision that does not name the flowers
        return tuple(getattr(getattr(torchvision.datasets, IN_TORCHVISION[name]), "classes", numbers))
    return CLASSES.get(name, ())


def canonical(name: str, dataset: ArrayDataset) -> ArrayDataset:
    """`dataset` in the one form of the built-in set `name`; as it is if its classes are not those of that set.

    Classes get the built-in names and order, cifar100 its attribute superclass, and rows are sorted by a hash of their
    content, which mixes the classes well.
    """
    known = class_names(name)
    numbers = class_numbers(dataset.classes, known)
    if numbers is None:
        return dataset
    unlabelled = dataset.labels < 0
    labels = torch.tensor(numbers)[dataset.labels.clamp(min=0)].masked_fill(unlabelled, -1)
    order = _order(dataset.inputs, labels)
    labels = labels[order]
    attributes = {"superclass": SUPERCLASS[labels]} if name == "cifar100" else {}
    return ArrayDataset(dataset.inputs[order], labels, attributes, known)


def class_numbers(found: Sequence[str], known: Sequence[str]) -> list[int] | None:
    """The number in `known` of each class in `found`, or None if they are other classes.

    Names agree if their letters and digits do ("T-shirt/top", "t_shirt_top"); else, if every name begins with a number
    ("0", "0 - zero"), by these.
    """
    by_spelling = {_letters(name): number for number, name in enumerate(known)}
    leading = [re.match(r"\d+", name) for name in found]
    for numbers in (
        [by_spelling.get(_letters(name), -1) for name in found],
        [int(match[0]) if match else -1 for match in leading],
    ):
        if found and sorted(numbers) == list(range(len(known))):
            return numbers
    return None


def _letters(name: str) -> str:
    return re.sub(r"[\W_]+", "", name.casefold())


def _order(inputs: Tensor, labels: Tensor) -> Tensor:
    """(N,) row numbers in the order of sha256 over each row's pixels and label."""
    digests = []
    for row, label in zip(inputs.contiguous().numpy(), labels.tolist()):
        digest = hashlib.sha256(row)
        digest.update(label.to_bytes(8, "little", signed=True))
        digests.append(digest.digest())
    return torch.tensor(sorted(range(len(digests)), key=digests.__getitem__), dtype=torch.long)
