"""The command ``paedid-trainer benchmark``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from schemas.artifacts import Lighting
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

DEFAULT_METHODS = "ssim-ae,mem-ae,patchcore,padim,rasl,pae,paedid-paper,paedid"


def benchmark(
    data: Annotated[Path, typer.Option(help="A folder in MVTec layout: train/good, test/*, ground_truth/*.")],
    out: Annotated[Path, typer.Option(help="Where to write benchmark.json, benchmark.md and benchmark.jpg.")],
    test: Annotated[
        Path | None, typer.Option(help="Take the test images from this folder (its good ones too, if it has any).")
    ] = None,
    methods: Annotated[
        str, typer.Option(help="Which, separated by commas; MODULE:NAME for one registered by your own module.")
    ] = DEFAULT_METHODS,
    backbone: Annotated[
        str, typer.Option(help="What PatchCore and PaDiM look through: efficientnet-lite0, or timm:MODEL with timm.")
    ] = "efficientnet-lite0",
    size: SizeOption = "auto",
    colour: ColourOption = Colour.AUTO,
    roi: RoiOption = None,
    ignore: IgnoreOption = None,
    register: RegisterOption = False,  # noqa: FBT002 - an option is a flag
    max_shift: MaxShiftOption = 0.1,
    max_rotation: MaxRotationOption = 10.0,
    lighting: LightingOption = Lighting.NONE,
    limit: Annotated[
        int | None,
        typer.Option(min=2, help="At most so many good and so many defective test images, for a quick look."),
    ] = None,
    rows: Annotated[int, typer.Option(min=1, help="Frames in the picture.")] = 8,
    seed: SeedOption = 0,
) -> None:
    """Measure PAEDID and the systems it competes with on one data set, under one protocol.

    Thresholds are chosen twice: on half of the defective images, as in the paper, and without any label, on synthetic
    defects on validation normals, which is what a user gets.

    Example: paedid-trainer benchmark --data images --out results --methods padim,paedid
    """
    # Only this command needs them, and they take seconds to import.
    from trainer.baselines.base import make_method  # noqa: PLC0415
    from trainer.benchmark import PICTURE, TABLE, markdown_table, run_benchmark  # noqa: PLC0415
    from trainer.progress import ProgressReporter  # noqa: PLC0415
    from trainer.protocol import ProtocolSettings  # noqa: PLC0415
    from trainer.view_settings import ViewSettings  # noqa: PLC0415

    chosen = [make_method(name.strip(), backbone) for name in methods.split(",") if name.strip()]
    view = ViewSettings(roi, ignore, register, max_shift, max_rotation, lighting)
    settings = ProtocolSettings(size=size, colour=colour.value, seed=seed, limit=limit, view=view)
    with ProgressReporter() as reporter:
        report = run_benchmark(chosen, data, out, settings, reporter, test=test, rows=rows)
    console = Console(highlight=False, soft_wrap=True)
    console.print(markdown_table(report), markup=False)
    console.print(f"Written to {out}: {TABLE}, {PICTURE} and the JSON.", markup=False)
