"""The command ``python -m deploy.bench``."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated

# OpenMP threads that wait busily starve every other process on the machine; to be set before torch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import cv2
import numpy as np
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import Progress

from deploy.bench.drift import run_drift
from deploy.bench.eviction import run_eviction
from deploy.bench.learning import Figures
from deploy.bench.poison import run_poison
from deploy.bench.size import run_size
from monitor.adapters.artifacts import load_bundle
from monitor.core.inspector import Inspector
from schemas.commands import run_app

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)

Bundle = Annotated[Path, typer.Option(help="A model of the simulated line, such as the demo's (demo/bundle).")]
Out = Annotated[Path, typer.Option(help="A folder for the figures (JSON) and the picture (PNG).")]
Seed = Annotated[int, typer.Option(min=0, help="Which line; that of the bundle's normals.")]
Result = tuple[Figures, NDArray[np.uint8]]


@app.callback()
def explain() -> None:
    """Measure how the memory bank learns, in one process, on the simulated line; each writes figures and a picture.

    Train a bundle first, with 'make demo' or:
      python -m deploy.simulation data --train 240
      paedid-trainer train data --out bundle
    """


@app.command()
def drift(
    bundle: Bundle,
    out: Out,
    seed: Seed = 0,
    frames: Annotated[int, typer.Option(min=32, help="Parts that pass while the light changes.")] = 2000,
    amplitude: Annotated[
        list[float] | None, typer.Option(help="Change of brightness; may be given repeatedly.")
    ] = None,
) -> None:
    """Hold a frozen bank against one that learns, while the lighting changes."""
    inspector = _load(bundle)
    for each in amplitude or [-0.15]:
        name = f"drift{each:+.2f}"
        run = partial(run_drift, inspector, each, frames, seed)
        _write(out, name, _watched(name, frames, run))


@app.command()
def poison(
    bundle: Bundle,
    out: Out,
    seed: Seed = 0,
    confirmations: Annotated[int, typer.Option(min=10, help="Parts that the operator confirms as normal.")] = 150,
) -> None:
    """Confirm defects as normal, one in ten, with and without the gate."""
    inspector = _load(bundle)
    _write(out, "poison", _watched("poison", 5, lambda step: run_poison(inspector, confirmations, seed, step)))


@app.command()
def eviction(
    bundle: Bundle,
    out: Out,
    seed: Seed = 0,
    frames: Annotated[int, typer.Option(min=32, help="Parts that pass in each run.")] = 1600,
) -> None:
    """Hold policies of eviction against each other, with budgets that are far too small."""
    inspector = _load(bundle)
    _write(out, "eviction", _watched("eviction", 1, lambda step: run_eviction(inspector, frames, seed, step)))


@app.command()
def size(
    bundle: Bundle,
    out: Out,
    seed: Seed = 0,
    frames: Annotated[int, typer.Option(min=10, help="Good parts that are confirmed.")] = 10_000,
) -> None:
    """Measure search and accuracy against the number of confirmed parts, whole and compact."""
    inspector = _load(bundle)
    _write(out, "size", _watched("size", frames, lambda step: run_size(inspector, frames, seed, step)))


def _load(bundle: Path) -> Inspector:
    return Inspector(load_bundle(bundle))


def _watched(name: str, total: int, run: Callable[[Callable[[int], None]], Result]) -> Result:
    with Progress(console=Console(stderr=True)) as progress:
        task = progress.add_task(name, total=total)
        return run(lambda steps: progress.advance(task, steps))


def _write(out: Path, name: str, result: Result) -> None:
    figures, picture = result
    out.mkdir(parents=True, exist_ok=True)
    text = json.dumps(figures, indent=1)
    (out / f"{name}.json").write_text(text + "\n", encoding="utf-8")
    cv2.imwrite(str(out / f"{name}.png"), picture)
    typer.echo(text)


if __name__ == "__main__":
    sys.exit(run_app(app))
