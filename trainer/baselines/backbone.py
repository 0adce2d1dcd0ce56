"""Features of a pretrained network, for the methods that compare them: which network, at what size, and back to pixels.

``efficientnet-lite0`` needs the extra ``baselines`` (its weights come inside a package, nothing is downloaded);
``timm:<model>`` takes any convolutional network of timm, where the user has that and the weights.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from typing import Any, Protocol

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from schemas.errors import ConfigurationError, TrainingError
from trainer.baselines import efficientnet_lite

DEFAULT = "efficientnet-lite0"
# The papers resize every image to 256 pixels before the network sees it, and smooth maps of that scale.
SIDE = 256
SMOOTHING_SIGMA = 4.0
STRIDES = (4, 8, 16)


class Backbone(Protocol):
    """A network trained on other images, whose inner maps tell what a patch looks like."""

    name: str

    def features(self, frames: Tensor) -> dict[int, Tensor]:
        """Return maps by stride s, 4, 8 and 16 among them: (B, 1 or 3, H, W) in [0, 1] to {s: (B, Cs, H/s, W/s)}."""

    def size_bytes(self) -> int:
        """Return the bytes of the weights in use."""


def load_backbone(name: str = DEFAULT) -> Backbone:
    """Return a backbone by name: ``efficientnet-lite0`` or ``timm:<model>``.

    Raises:
        ConfigurationError: there is no such name.
        TrainingError: the package that it needs is missing, or timm cannot load the network.
    """
    if name == efficientnet_lite.EfficientNetLite0.name:
        return efficientnet_lite.load()
    library, _, model = name.partition(":")
    if library == "timm" and model:
        return TimmBackbone(model)
    remedy = f"Use {DEFAULT} or timm:<model>, such as timm:wide_resnet50_2."
    raise ConfigurationError("--backbone", name, "no such network", remedy)


class TimmBackbone:
    """A convolutional network of timm with its pretrained weights, which timm keeps or downloads.

    Raises:
        TrainingError: timm is not installed or cannot load the network, or this lacks a map at stride 4, 8 or 16.
    """

    def __init__(self, model: str) -> None:
        self.name = f"timm:{model}"
        try:
            timm: Any = import_module("timm")
        except ImportError as error:
            msg = f"the backbone {self.name} needs timm, which is not installed here (pip install timm): {error}"
            raise TrainingError(msg) from error
        self._network = self._create(timm, model)
        self._network.eval().requires_grad_(requires_grad=False)
        seen = timm.data.resolve_model_data_config(self._network)
        self._mean = torch.tensor(seen["mean"])[:, None, None]
        self._std = torch.tensor(seen["std"])[:, None, None]

    def _create(self, timm: Any, model: str) -> nn.Module:  # noqa: ANN401 - the module, which has no types here
        try:
            found: list[int] = timm.create_model(model, pretrained=False, features_only=True).feature_info.reduction()
            if not set(STRIDES) <= set(found):
                msg = f"the backbone {self.name} has maps at strides {found}, and {STRIDES} are needed"
                raise TrainingError(msg)
            # Nothing behind the last map that is looked at is computed.
            wanted = [found.index(stride) for stride in STRIDES]
            network: nn.Module = timm.create_model(model, pretrained=True, features_only=True, out_indices=wanted)
        except (RuntimeError, OSError) as error:  # no such network; or weights that timm can neither find nor fetch
            msg = f"the backbone {self.name} cannot be loaded: {error}"
            raise TrainingError(msg) from error
        return network

    def features(self, frames: Tensor) -> dict[int, Tensor]:
        """Return maps by stride, see ``Backbone``."""
        maps: list[Tensor] = self._network((frames.expand(-1, 3, -1, -1) - self._mean) / self._std)
        return dict(zip(STRIDES, maps, strict=True))

    def size_bytes(self) -> int:
        """Return the bytes of the weights."""
        return sum(value.numel() * value.element_size() for value in self._network.state_dict().values())


def in_batches(images: NDArray[np.float32], side: int, batch: int = 8) -> Iterator[Tensor]:
    """Yield (b, C, h, w) of images (N, C, H, W), resized so that the shorter side is ``side`` pixels.

    The papers crop the middle 224 pixels besides; that is left out, since it would be blind to a part's border.
    """
    height, width = images.shape[2:]
    scale = side / min(height, width)
    size = (round(height * scale), round(width * scale))
    for start in range(0, len(images), batch):
        frames = torch.from_numpy(np.ascontiguousarray(images[start : start + batch]))
        if size != (height, width):
            frames = functional.interpolate(frames, size, mode="bilinear", antialias=True, align_corners=False)
        yield frames


def to_pixels(
    distances: Tensor, seen: tuple[int, int], frame: tuple[int, int], sigma: float = SMOOTHING_SIGMA
) -> NDArray[np.float32]:
    """Return anomaly maps (B, H, W) of distances per patch (B, h, w): upsampled bilinearly, then smoothed.

    Args:
        distances: one per cell of the feature map.
        seen: the size at which the network saw the frame; there ``sigma`` is measured, as in the papers.
        frame: the size (H, W) of the frames themselves.
        sigma: of the Gaussian, in pixels.
    """
    upsampled = functional.interpolate(distances[:, None], seen, mode="bilinear", align_corners=False)[:, 0].numpy()
    maps = [cv2.GaussianBlur(plane, (0, 0), sigma, borderType=cv2.BORDER_REFLECT) for plane in upsampled]
    smaller = frame[0] < seen[0]
    how = cv2.INTER_AREA if smaller else cv2.INTER_LINEAR
    return np.stack([cv2.resize(plane, frame[::-1], interpolation=how) for plane in maps]).astype(np.float32)
