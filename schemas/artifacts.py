"""The model bundle: safetensors files and a JSON manifest that pins every one of them by its SHA-256."""

from __future__ import annotations

import hashlib
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from schemas.errors import BundleError

FORMAT: Final = 1
MANIFEST: Final = "manifest.json"
AUTOENCODER: Final = "autoencoder.safetensors"
SEGMENTER: Final = "segmenter.safetensors"
PRIOR: Final = "prior.safetensors"  # if the prior has weights of its own
BANK: Final = "bank.safetensors"
NORMALITY: Final = "normality.safetensors"
DRIFT: Final = "drift.safetensors"
VIEW: Final = "view.safetensors"
REPORT: Final = "report.html"  # for people: a bundle inspects without it
MAX_MANIFEST_BYTES: Final = 1_000_000
PAPER_PIXELS: Final = 128 * 128

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1)]
Widths = Annotated[tuple[Annotated[int, Field(ge=1, le=4096)], ...], Field(min_length=1, max_length=8)]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Polarity(StrEnum):
    """Which residuals count: where the part is darker than its prior, brighter, or either."""

    BOTH = "both"
    DARK = "dark"
    BRIGHT = "bright"


class InputSpec(_Frozen):
    """What the network sees: (channels, height, width) in [0, 1]; and what the camera must send."""

    height: Annotated[int, Field(ge=16, le=4096)]
    width: Annotated[int, Field(ge=16, le=4096)]
    channels: Literal[1, 3]
    # (height, width) of every training image, or None when they differed: then any size is resized.
    source_size: tuple[int, int] | None = None


class Lighting(StrEnum):
    """What is done about changing light; ``monitor.core.lighting`` says what each costs."""

    NONE = "none"
    LEVEL = "level"
    FLAT = "flat"


class Roi(_Frozen):
    """The region of interest, in pixels of the frame as the camera sends it."""

    x: Annotated[int, Field(ge=0)]
    y: Annotated[int, Field(ge=0)]
    width: Annotated[int, Field(ge=16)]
    height: Annotated[int, Field(ge=16)]

    def fits(self, size: tuple[int, int]) -> bool:
        """Return whether a frame of (height, width) holds it."""
        return self.y + self.height <= size[0] and self.x + self.width <= size[1]


class Ignored(_Frozen):
    """Pixels that nothing may depend on. Which: array ``ignored`` (H, W) of ``view.safetensors``."""

    # Of the network's pixels.
    share: Annotated[float, Field(gt=0, lt=1)]
    # What they are painted with, a value per channel.
    paint: tuple[Share, ...]


class Registration(_Frozen):
    """How a part is brought to the place of ``reference``, an array of ``view.safetensors``."""

    # Of the centre, as a share of the region's width and height.
    max_shift: Annotated[float, Field(gt=0, le=0.5)]
    # In degrees.
    max_rotation: Annotated[float, Field(ge=0, le=45)]
    # Below this correlation with the reference, the frame shows something else.
    least_correlation: Share


class Light(_Frozen):
    """The light that frames are brought to: mean and standard deviation of the normals' pixels."""

    kind: Literal[Lighting.LEVEL, Lighting.FLAT]
    mean: Positive
    deviation: Positive


class View(_Frozen):
    """The way from the camera's pixels to the network's; by default the frame is only resized."""

    roi: Roi | None = None
    registration: Registration | None = None
    light: Light | None = None
    ignored: Ignored | None = None

    @property
    def inspected_share(self) -> float:
        """The share of the network's pixels that are inspected."""
        return 1.0 - self.ignored.share if self.ignored else 1.0


class Architecture(_Frozen):
    """The networks' layout.

    The patch autoencoder has one convolution block and one 2x pooling per entry of ``widths``; the segmenter, and the
    denoiser where it is the prior, has one stage per entry of ``segmenter``, and a 2x pooling between two.
    """

    input: InputSpec
    widths: Widths
    segmenter: Widths = (16, 32, 48, 64)

    @model_validator(mode="after")
    def _divisible(self) -> Architecture:
        step = 2 ** max(len(self.widths), len(self.segmenter) - 1)
        if self.input.height % step or self.input.width % step:
            msg = f"input {self.input.height}x{self.input.width} is not divisible by {step}, as its poolings ask"
            raise ValueError(msg)
        return self

    @property
    def cell(self) -> int:
        """The side, in pixels of the frame, of what one location of the feature map stands for."""
        return 1 << len(self.widths)

    @property
    def entry_shape(self) -> tuple[int, int, int]:
        """(P1, P2, P3 + R): what the bank keeps of a normal, its features and its residual.

        Of the residual: its size at half the resolution, and its mean in each location and channel.
        """
        p1, p2, p3 = self.latent_shape
        return p1, p2, p3 + max(1, self.cell // 2) ** 2 + self.input.channels

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """(P1, P2, P3): the feature map's height, width and depth."""
        return self.input.height // self.cell, self.input.width // self.cell, self.widths[-1]


class VerdictCalibration(_Frozen):
    """How the verdict threshold came about: from ``normals`` validation normals, of which ``above`` lie above it."""

    threshold: Annotated[float, Field(allow_inf_nan=False)]
    wanted_false_reject_rate: Share
    normals: Annotated[int, Field(ge=1)]
    above: Annotated[int, Field(ge=0)]
    # 95 % Clopper-Pearson interval of the false-reject rate at this threshold.
    false_reject_low: Share
    false_reject_high: Share
    synthetic_detected: Share


class Calibration(_Frozen):
    """Every number that decides, chosen on validation normals and synthetic defects, never on test images."""

    alpha: Share
    # The paper's lambda, per its 128x128 images; see ``monitor.core.decomposition`` for the conversion.
    lam: Positive
    solver_steps: Annotated[int, Field(ge=1, le=1000)]
    polarity: Polarity
    mask_threshold: Positive
    # The share of a frame's own peak that a pixel of its mask is above as well.
    relative_level: Share = 0.0
    min_area: Annotated[int, Field(ge=1)]
    score_pixels: Annotated[int, Field(ge=1)]
    # Standard deviation, in pixels, of the Gaussian that evens the anomaly map out; 0: none.
    smoothing: Annotated[float, Field(ge=0, le=1.5)]
    synthetic_dice: Share
    verdict: VerdictCalibration


class DataSummary(_Frozen):
    """What the bundle was trained on."""

    source: str
    train_images: int
    validation_images: int
    bank_images: int
    sha256: str


class Manifest(_Frozen):
    """The bundle's ``manifest.json``."""

    format: Literal[1] = FORMAT
    model_id: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._\-]{0,63}$")]
    created_at: datetime
    architecture: Architecture
    encoder_hash: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    calibration: Calibration
    # A name, looked up among the priors that are installed where the bundle is loaded; never a module's.
    prior: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_\-]{0,63}$")] = "bank"
    view: View = View()
    data: DataSummary
    training: dict[str, float | int | str]
    files: dict[str, str]

    @model_validator(mode="after")
    def _view_fits(self) -> Manifest:
        spec, view = self.architecture.input, self.view
        if view.roi and not (spec.source_size and view.roi.fits(spec.source_size)):
            msg = f"the view's region {view.roi} does not lie in the camera's frame {spec.source_size}"
            raise ValueError(msg)
        if view.ignored and len(view.ignored.paint) != spec.channels:
            msg = f"the view paints {len(view.ignored.paint)} channels, the network sees {spec.channels}"
            raise ValueError(msg)
        return self


def sha256_file(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_manifest(bundle: Path) -> Manifest:
    """Read and verify a bundle's manifest and the SHA-256 of every file it names.

    Raises:
        BundleError: the bundle or one of its files is missing, changed or malformed; the message names it.
    """
    path = bundle / MANIFEST
    if not path.is_file():
        msg = (
            f"model bundle {str(bundle)!r}: no {MANIFEST} there. "
            "Train one with 'paedid-trainer train IMAGES --out BUNDLE', or correct the path."
        )
        raise BundleError(msg)
    if path.stat().st_size > MAX_MANIFEST_BYTES:
        msg = f"{path}: larger than {MAX_MANIFEST_BYTES} bytes, so not a manifest. Restore the bundle from its source."
        raise BundleError(msg)
    try:
        manifest = Manifest.model_validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the document"
        msg = f"{path}: {where}: {first['msg']}. Restore the bundle from its source, or train it again."
        raise BundleError(msg) from error
    for name, expected in manifest.files.items():
        if name != REPORT or (bundle / name).exists():
            verify_file(bundle, name, expected)
    return manifest


def verify_file(bundle: Path, name: str, expected: str) -> None:
    """Raise BundleError unless ``bundle/name`` exists, lies inside the bundle and has the SHA-256 ``expected``."""
    path = bundle / name
    if Path(name).name != name or not path.is_file():
        msg = f"{path}: named in the manifest but missing. Restore the bundle from its source."
        raise BundleError(msg)
    found = sha256_file(path)
    if found != expected:
        msg = (
            f"{path}: its SHA-256 is {found[:12]}..., the manifest says {expected[:12]}...: "
            "the file was changed or damaged. Restore the bundle from its source, or train it again."
        )
        raise BundleError(msg)
