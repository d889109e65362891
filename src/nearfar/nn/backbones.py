"""Networks that several chapters share: backbones by name and projection heads.

Weights are drawn without touching torch's global random state: every constructor takes an int `seed` (or a
`torch.Generator` as `generator`), so the same arguments always give the same weights.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from nearfar.errors import nearest


@contextmanager
def seeded(seed: int = 0, generator: torch.Generator | None = None) -> Iterator[None]:
    """Run a block under its own global seed (drawn from `generator` if given); the state outside stays as it was."""
    if generator is not None:
        seed = int(torch.randint(2**31 - 1, (), generator=generator, device=generator.device))
    with torch.random.fork_rng(devices=[]):
        torch.random.default_generator.manual_seed(seed)
        yield


# ---------------------------------------------------------------------------------------------- backbones
def tiny(channels: int, width: int | None = None, strides: Sequence[int] = (2, 2, 2)) -> nn.Module:
    """3×3 convolutions (one per stride, each twice as wide as the one before) + batch norm + ReLU, global average pool.

    Fully convolutional: any input size.  width is that of the first layer (default 16).  Weights are stored channels
    last, which makes a training step on the CPU 1.3 times faster.
    """
    width = width or 16
    layers: list[nn.Module] = []
    incoming = channels
    for depth, stride in enumerate(strides):
        outgoing = width * 2**depth
        layers += [
            nn.Conv2d(incoming, outgoing, 3, stride, padding=1, bias=False),
            nn.BatchNorm2d(outgoing),
            nn.ReLU(inplace=True),
        ]
        incoming = outgoing
    network = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return _with_dimension(network.to(memory_format=torch.channels_last), incoming)


def tiny_mlp(channels: int, width: int | None = None, size: int = 8, depth: int = 2) -> nn.Module:
    """`depth` layers of linear + batch norm + ReLU (default width 64) on the flattened input of channels·size² values.

    For a table of d columns take channels=d, size=1 and pass (N, d).
    """
    width = width or 64
    layers: list[nn.Module] = [nn.Flatten()]
    incoming = channels * size * size
    for _ in range(depth):
        layers += [nn.Linear(incoming, width, bias=False), nn.BatchNorm1d(width), nn.ReLU(inplace=True)]
        incoming = width
    return _with_dimension(nn.Sequential(*layers), width)


class VisionTransformer(nn.Module):
    """Pre-norm transformer on patches, mean over tokens [Dosovitskiy et al., 2021, there with a class token]."""

    def __init__(self, channels: int, width: int, size: int, patch: int, depth: int, heads: int):
        super().__init__()
        if size % patch:
            raise ValueError(f"size must be a multiple of patch, got size={size}, patch={patch}")
        self.dimension, self.patch = width, patch
        self.patches = nn.Conv2d(channels, width, patch, stride=patch)
        self.positions = nn.Parameter(torch.randn(1, width, size // patch, size // patch) * 0.02)
        layer = nn.TransformerEncoderLayer(
            width, heads, 4 * width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.blocks = nn.TransformerEncoder(layer, depth, nn.LayerNorm(width), enable_nested_tensor=False)
        for block in self.blocks.layers:  # nn.TransformerEncoder copies one draw to all layers
            for weight in block.parameters():
                if weight.dim() > 1:
                    nn.init.xavier_uniform_(weight)

    def forward(self, images: Tensor) -> Tensor:  # (N, C, H, W) -> (N, width)
        tokens = self.patches(images)  # (N, width, h, w)
        positions = self.positions
        if positions.shape[2:] != tokens.shape[2:]:  # other image sizes, as multi-crop needs them
            positions = nn.functional.interpolate(positions, tokens.shape[2:], mode="bicubic", align_corners=False)
        return self.blocks((tokens + positions).flatten(2).transpose(1, 2)).mean(dim=1)


def vit_tiny(
    channels: int, width: int | None = None, size: int = 32, patch: int = 4, depth: int = 4, heads: int = 4
) -> nn.Module:
    """A small vision transformer (default width 64); `size` is the image size its position table is made for."""
    return VisionTransformer(channels, width or 64, size, patch, depth, heads)


def _resnet(name: str, channels: int, width: int | None, small_stem: bool = False, **options) -> nn.Module:
    """torchvision's ResNet without its classifier; `small_stem`: 3×3 stride 1, no max pool, as for 32×32 images."""
    from torchvision import models

    if width is not None:
        raise ValueError(f"width cannot be chosen for {name}; leave it out or take backbone 'tiny'")
    network = getattr(models, name)(**options)
    dimension = network.fc.in_features
    network.fc = nn.Identity()
    if small_stem:
        network.conv1 = nn.Conv2d(channels, 64, 3, stride=1, padding=1, bias=False)
        network.maxpool = nn.Identity()
    elif channels != 3:
        network.conv1 = nn.Conv2d(channels, 64, 7, stride=2, padding=3, bias=False)
    return _with_dimension(network, dimension)


def _timm(name: str, channels: int, width: int | None, **options) -> nn.Module:
    import timm

    if width is not None:
        raise ValueError(f"width cannot be chosen for timm's {name}; leave it out")
    network = timm.create_model(name, in_chans=channels, num_classes=0, **options)
    return _with_dimension(network, getattr(network, "head_hidden_size", network.num_features))


def _with_dimension(network: nn.Module, dimension: int) -> nn.Module:
    network.dimension = dimension
    return network


BACKBONES: dict[str, Callable[..., nn.Module]] = {
    "tiny": tiny,
    "tiny-mlp": tiny_mlp,
    "vit-tiny": vit_tiny,
    "resnet18": lambda channels, width=None, **options: _resnet("resnet18", channels, width, **options),
    "resnet50": lambda channels, width=None, **options: _resnet("resnet50", channels, width, **options),
}


def backbone(
    name: str,
    channels: int = 3,
    width: int | None = None,
    *,
    seed: int = 0,
    generator: torch.Generator | None = None,
    **options,
) -> nn.Module:
    """A feature extractor (N, channels, H, W) -> (N, dimension); the feature size is its attribute `dimension`.

    name: "tiny" (width 16, options strides), "tiny-mlp" (width 64; size, depth), "vit-tiny" (width 64; size, patch,
    depth, heads), "resnet18" and "resnet50" (small_stem, and torchvision's options such as weights), or any name that
    timm knows, where timm is installed (with timm's options such as pretrained).
    Weights depend on `seed` (default 0), or on a seed drawn from `generator`: give other seeds for other draws.
    Raises ValueError for an unknown name (nearest names suggested), an option that the network does not have, or a
    width where it is fixed.
    """
    with seeded(seed, generator):
        if name in BACKBONES:
            try:
                return BACKBONES[name](channels, width, **options)
            except TypeError as error:
                raise ValueError(f"options of backbone {name!r}: {error}") from None
        known = list(BACKBONES)
        try:
            import timm
        except ImportError:
            hint = ", and with timm installed (pip install 'nearfar[full]') its networks"
        else:
            if timm.is_model(name):
                return _timm(name, channels, width, **options)
            known, hint = known + timm.list_models(), " and timm's networks"
    raise ValueError(f"name: no backbone {name!r}; there are {', '.join(BACKBONES)}{hint}.{nearest(name, known)}")


def projector(
    dimensions: Sequence[int],
    batch_norm: bool = True,
    last_bias: bool = True,
    *,
    seed: int = 0,
    generator: torch.Generator | None = None,
) -> nn.Sequential:
    """A perceptron (N, dimensions[0]) -> (N, dimensions[-1]) with (batch norm and) ReLU between its linear layers.

    Weights depend on `seed`, or on a seed drawn from `generator`.  Raises ValueError for fewer than two dimensions.
    """
    if len(dimensions) < 2 or min(dimensions) < 1:
        raise ValueError(f"dimensions must be two or more positive sizes, got {tuple(dimensions)}")
    layers: list[nn.Module] = []
    with seeded(seed, generator):
        for incoming, outgoing in zip(dimensions[:-2], dimensions[1:-1], strict=True):
            layers.append(nn.Linear(incoming, outgoing, bias=not batch_norm))  # batch norm has its own shift
            layers += [nn.BatchNorm1d(outgoing)] if batch_norm else []
            layers.append(nn.ReLU(inplace=True))
        layers.append(nn.Linear(dimensions[-2], dimensions[-1], bias=last_bias))
    return nn.Sequential(*layers)


def parameters_count(module: nn.Module, trainable: bool = False) -> int:
    """How many numbers the module's parameters hold; with `trainable` only those that receive gradients."""
    return sum(p.numel() for p in module.parameters() if p.requires_grad or not trainable)
