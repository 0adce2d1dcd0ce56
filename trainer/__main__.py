"""The command ``paedid-trainer``."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

# OpenMP threads that wait busily starve every other process on the machine; to be set before torch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import typer
from rich.console import Console

from schemas.artifacts import REPORT, Lighting, Manifest, Polarity, read_manifest
from schemas.commands import run_app
from trainer.benchmark_command import benchmark
from trainer.options import (
    Colour,
    ColourOption,
    IgnoreOption,
    LightingOption,
    MaxRotationOption,
    MaxShiftOption,
    RegisterOption,
    RoiOption,
    SeedOption,
    SizeOption,
)

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Turns a folder of normal images into a calibrated model bundle for paedid-monitor.",
)


@app.callback()
def main_callback() -> None:
    """Turns a folder of normal images into a calibrated model bundle for paedid-monitor."""


@app.command()
def train(
    data: Annotated[Path, typer.Argument(help="A folder of normal images, or one in MVTec layout (uses train/good).")],
    out: Annotated[Path, typer.Option(help="Where to write the bundle: a new folder, or an earlier bundle.")],
    size: SizeOption = "auto",
    colour: ColourOption = Colour.AUTO,
    roi: RoiOption = None,
    ignore: IgnoreOption = None,
    register: RegisterOption = False,
    max_shift: MaxShiftOption = 0.1,
    max_rotation: MaxRotationOption = 10.0,
    lighting: LightingOption = Lighting.NONE,
    prior: Annotated[
        str,
        typer.Option(help="What imagines the part without its defect: bank, denoiser, both, or an installed plug."),
    ] = "bank",
    polarity: Annotated[
        Polarity, typer.Option(help="Which defects count: darker than the normal part, brighter, or both.")
    ] = Polarity.BOTH,
    false_reject_rate: Annotated[
        float, typer.Option(min=0.0001, max=0.5, help="Share of good parts that may be flagged.")
    ] = 0.01,
    steps: Annotated[
        int,
        typer.Option(min=1, help="Gradient steps of the autoencoder; the segmenter takes twice as many."),
    ] = 1200,
    learning_rate: Annotated[
        float, typer.Option(min=1e-6, max=1.0, help="Of the autoencoder: the highest of its schedule.")
    ] = 3e-3,
    validation_share: Annotated[
        float, typer.Option(min=0.05, max=0.5, help="Share of the images kept for choosing thresholds.")
    ] = 0.25,
    bank_images: Annotated[
        int, typer.Option(min=2, help="Normals in the memory bank, at most; of large frames fewer fit.")
    ] = 1000,
    seed: SeedOption = 0,
) -> None:
    """Train on normal images, build the memory bank, choose the thresholds, and save it all as one bundle.

    Takes about ten minutes on two cores. No defect is needed, and none should be among the images.

    Example: paedid-trainer train images/normal --out bundle
    """
    from trainer.build import BuildSettings, build
    from trainer.calibrate import CalibrationSettings
    from trainer.progress import ProgressReporter
    from trainer.segmenting import STEPS_EACH, SegmenterSettings
    from trainer.training import TrainingSettings
    from trainer.view_settings import ViewSettings

    settings = BuildSettings(
        size=size,
        colour=colour.value,
        validation_share=validation_share,
        bank_images=bank_images,
        prior=prior,
        view=ViewSettings(roi, ignore, register, max_shift, max_rotation, lighting),
        training=TrainingSettings(steps=steps, learning_rate=learning_rate, seed=seed),
        segmenter=SegmenterSettings(steps=STEPS_EACH * steps),
        calibration=CalibrationSettings(polarity=polarity, false_reject_rate=false_reject_rate, seed=seed),
    )
    with ProgressReporter() as reporter:
        manifest = build(data, out, settings, reporter)
    describe(manifest, out)


@app.command()
def show(bundle: Annotated[Path, typer.Argument(help="A model bundle.")]) -> None:
    """Verify a bundle and tell what is in it."""
    describe(read_manifest(bundle), bundle)


app.command()(benchmark)


def describe(manifest: Manifest, place: Path) -> None:
    """Print what a bundle is and what may be expected of it."""
    spec, verdict = manifest.architecture.input, manifest.calibration.verdict
    console = Console(highlight=False, soft_wrap=True)
    console.print(f"[bold]{manifest.model_id}[/] in {place}")
    console.print(
        f"  trained on {manifest.data.train_images} normal images of {manifest.data.source!r}, "
        f"{spec.height}x{spec.width}, {'grey' if spec.channels == 1 else 'colour'}; "
        f"bank of {manifest.data.bank_images}; thresholds from {manifest.data.validation_images} others"
    )
    for line in tell_view(manifest):
        console.print(f"  {line}")
    left_out = manifest.training.get("not_in_bank", 0)
    if left_out:
        console.print(
            f"  [yellow]{left_out} more normals were left out of the bank[/], which at this size would take too much "
            "memory with them; with a smaller --size it holds more"
        )
    if manifest.prior != "bank":
        console.print(f"  prior: {manifest.prior}")
    console.print(
        f"  synthetic defects: Dice {manifest.calibration.synthetic_dice:.2f}, "
        f"{verdict.synthetic_detected:.0%} of the parts flagged"
    )
    wanted = verdict.wanted_false_reject_rate
    console.print(
        f"  good parts flagged: {verdict.above} of {verdict.normals}; 95 % interval "
        f"{verdict.false_reject_low:.1%} to {verdict.false_reject_high:.1%}, wanted {wanted:.1%}"
    )
    if verdict.false_reject_high > 3 * wanted:
        console.print(
            f"  [yellow]{verdict.normals} normals cannot promise {wanted:.1%}[/]: "
            f"hold out about {round(3 / wanted)} or more to be sure."
        )
    if (place / REPORT).is_file():
        console.print(f"  how the thresholds came about: {place / REPORT}")


def tell_view(manifest: Manifest) -> list[str]:
    """Return what people should know of a bundle's view, a line each; none where frames are only resized."""
    view, lines = manifest.view, []
    if view.roi:
        roi = view.roi
        lines.append(f"looks at {roi.width} x {roi.height} camera pixels, the left upper one at {roi.x},{roi.y}")
    if view.ignored:
        lines.append(f"ignores {view.ignored.share:.1%} of that")
    if view.registration:
        limits = view.registration
        lines.append(
            f"registers parts shifted by up to {limits.max_shift:.1%} of the side and turned by up to "
            f"{limits.max_rotation:g} degrees, from a correlation of {limits.least_correlation:.2f} on"
        )
        left_out = manifest.training.get("unregistered", 0)
        if left_out:
            lines.append(f"[yellow]{left_out} normals could not be registered[/] and were left out of training")
    if view.light:
        lines.append(f"brings frames to the normals' light: {view.light.kind.value}")
    return lines


def main() -> None:
    """Run ``paedid-trainer``."""
    sys.exit(run_app(app))


if __name__ == "__main__":
    main()
