"""Write a simulated data set: `python -m deploy.simulation OUT`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress

from deploy.simulation.line import Part, SimulatedLine
from deploy.simulation.settings import LineSettings
from deploy.simulation.writer import contact_sheet, write_mvtec, write_png

app = typer.Typer(add_completion=False, rich_markup_mode="markdown")
console = Console(stderr=True)


@app.command()
def main(
    out: Annotated[Path | None, typer.Argument(help="Folder for the data set; made if missing.")] = None,
    *,
    train: Annotated[int, typer.Option(min=0, help="Good parts to learn from (train/good).")] = 200,
    test_good: Annotated[int, typer.Option(min=0, help="Good parts to test on (test/good).")] = 40,
    test_defects: Annotated[int, typer.Option(min=0, help="Defective parts in all; the kinds take turns.")] = 60,
    seed: Annotated[int, typer.Option(help="Which line; the same seed writes the same bytes.")] = 0,
    size: Annotated[int, typer.Option(help="Height and width in pixels, 64 to 512.")] = 128,
    colour: Annotated[bool, typer.Option("--colour", help="BGR images rather than grey ones.")] = False,
    sheet: Annotated[Path | None, typer.Option(help="Also write a contact sheet (PNG) to look at.")] = None,
) -> None:
    """Make images of a product that never was, with the truth about every pixel.

    The product is a ceramic sensor carrier with solder spots, printed tracks and a locating hole. Its
    defects are cracks, scratches, stains and missing spots. The folder has the layout of **MVTec AD**:
    *train/good*, *test/good*, *test/DEFECT*, *ground_truth/DEFECT*; whatever reads that reads this.

    Try it, and look first:

        python -m deploy.simulation --sheet sheet.png

    Then write 200 good parts to learn from and 100 to test on:

        python -m deploy.simulation data/carrier --seed 1
    """
    if out is None and sheet is None:
        message = "say where to write: a folder OUT for the data set, --sheet FILE.png to look at the product, or both"
        raise typer.BadParameter(message)
    try:
        line = SimulatedLine(LineSettings(seed=seed, size=size, colour=colour))
        if sheet is not None:
            write_png(sheet, contact_sheet(line))
            console.print(f"Contact sheet: {sheet}")
        if out is not None:
            _write(line, out, train, test_good, test_defects)
    except (ValueError, OSError) as error:
        console.print(f"[bold red]Nothing more written:[/] {error}")
        raise typer.Exit(code=1) from error


def _write(line: SimulatedLine, out: Path, train: int, test_good: int, test_defects: int) -> None:
    """Write the data set under a progress bar."""
    with Progress(console=console) as progress:
        task = progress.add_task("Rendering parts", total=train + test_good + test_defects)

        def advance(_: Part) -> None:
            progress.advance(task)

        write_mvtec(line, out, train, test_good, test_defects, on_written=advance)
    console.print(f"Data set: {out} ({train} to learn from, {test_good} good and {test_defects} defective to test on)")


if __name__ == "__main__":
    app(prog_name="python -m deploy.simulation")
