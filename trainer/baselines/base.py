"""What every method of the benchmark is: something that learns from normals and then maps what is abnormal."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from schemas.errors import TrainingError
from trainer.baselines.backbone import DEFAULT, Backbone, load_backbone
from trainer.thresholds import MaskRule

Images = NDArray[np.float32]  # (N, C, H, W) in [0, 1]
Progress = Callable[[int, int], None]  # called with (done, total)
VALIDATION_SHARE = 0.25  # of the normals, for choosing thresholds; the default of ``trainer.build``


@dataclass(frozen=True, slots=True)
class Scores:
    """How abnormal a batch is: larger is more abnormal, in units of the method's own.

    Attributes:
        maps: (B, H, W) per pixel, at the size of the frames.
        images: (B,) per frame.
    """

    maps: NDArray[np.float32]
    images: NDArray[np.float32]


class Method(Protocol):
    """A defect detector that learns from normal images alone."""

    name: str

    def fit(self, normals: Images, seed: int, progress: Progress | None = None) -> None:
        """Learn from normals (N, C, H, W) in [0, 1]; the same ``seed`` learns the same."""

    def score(self, images: Images) -> Scores:
        """Score frames (B, C, H, W) in [0, 1]; a frame's scores do not depend on its batch, and nothing is learnt."""

    def size_bytes(self) -> int:
        """Return the bytes of what was learnt: model and bank."""


@runtime_checkable
class SelfCalibrating(Protocol):
    """A method that calibrates itself, as the product does, rather than having its threshold chosen for it.

    Its ``fit`` is given all normals and holds validation normals back by ``trainer.dataset.split``, with
    VALIDATION_SHARE and the given seed: the same ones by which the other methods' thresholds are chosen.
    """

    def mask_rule(self) -> MaskRule:
        """Return the threshold and minimum area that ``fit`` chose without any label."""


@runtime_checkable
class Selective(Protocol):
    """A method that can leave a part of the frame out, as the product does with what a view ignores."""

    def inspect_only(self, inspected: NDArray[np.bool_]) -> None:
        """Count the pixels (H, W) that are True, and no others; called before ``fit``."""


@dataclass(frozen=True, slots=True)
class Layers:
    """What a decomposing method saw in a batch, each (B, C, H, W): the prior X̂, the background L, the residual S."""

    prior: NDArray[np.float32]
    background: NDArray[np.float32]
    residual: NDArray[np.float32]


@runtime_checkable
class Decomposing(Protocol):
    """A method that can also show its steps, for the picture."""

    def layers(self, images: Images) -> Layers:
        """Return the steps of frames (B, C, H, W) in [0, 1]."""


@runtime_checkable
class Pretrained(Protocol):
    """A method that looks through a network trained on other images; the table names it."""

    @property
    def backbone(self) -> Backbone:
        """The network."""


@dataclass(frozen=True, slots=True)
class OnBackbone:
    """How to make a method that looks through whichever backbone the user chose."""

    make: Callable[[Backbone], Method]


Factory = Callable[[], Method] | OnBackbone
REGISTRY: dict[str, Factory] = {}
# Where the methods that come with the trainer register themselves; imported when first asked for.
BUILT_IN = {
    "ssim-ae": "trainer.baselines.ssim_ae",
    "mem-ae": "trainer.baselines.mem_ae",
    "patchcore": "trainer.baselines.patchcore",
    "padim": "trainer.baselines.padim",
    "rasl": "trainer.baselines.rasl",
    "pae": "trainer.baselines.paedid",
    "paedid-paper": "trainer.baselines.paedid_paper",
    "paedid": "trainer.baselines.paedid",
    "paedid-denoiser": "trainer.baselines.paedid",
    "paedid-both": "trainer.baselines.paedid",
}


def register(name: str, factory: Factory) -> None:
    """Make a method available under ``name``: one call at the end of the file that defines it.

    Raises:
        ValueError: another method has this name.
    """
    if REGISTRY.setdefault(name, factory) is not factory:
        msg = f"a method named {name!r} is registered already"
        raise ValueError(msg)


def make_method(name: str, backbone: str = DEFAULT) -> Method:
    """Return a new, untrained method: a registered or built-in name, or ``module:name`` of a third party's file.

    Args:
        name: which.
        backbone: see ``load_backbone``; loaded for those that look through one.

    Raises:
        TrainingError: there is no such method, or a package that it needs is not installed.
        ConfigurationError: there is no such backbone.
    """
    module, _, short = name.rpartition(":")
    module = module or BUILT_IN.get(short, "")
    if module and short not in REGISTRY:
        try:
            import_module(module)
        except ImportError as error:
            msg = f"the method {name!r} cannot be used here: {error}"
            raise TrainingError(msg) from error
    if short not in REGISTRY:
        msg = f"no method is named {name!r}; there are {', '.join(sorted(set(BUILT_IN) | set(REGISTRY)))}"
        raise TrainingError(msg)
    factory = REGISTRY[short]
    return factory.make(load_backbone(backbone)) if isinstance(factory, OnBackbone) else factory()


def top_mean(maps: NDArray[np.float32], share: float = 0.006) -> NDArray[np.float32]:
    """Return (B,): the mean of the largest ``share`` of each map (B, H, W), the image score where a paper has none.

    At 128x128 the default are the 98 largest pixels.
    """
    flat = maps.reshape(len(maps), -1)
    count = max(1, round(share * flat.shape[1]))
    largest = np.partition(flat, -count, axis=1)[:, -count:]
    return np.asarray(largest.mean(axis=1), dtype=np.float32)
