"""The options that tell a line's view, the same for every command."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from schemas.artifacts import Lighting, Manifest

RoiOption = Annotated[
    str | None,
    typer.Option(help="Look at this region only: X,Y,WIDTH,HEIGHT in camera pixels, X and Y of its left upper corner."),
]
IgnoreOption = Annotated[
    Path | None,
    typer.Option(help="An image of the camera's size, or of the region's aspect; nothing depends on what is white."),
]
RegisterOption = Annotated[
    bool, typer.Option("--register/--no-register", help="Bring a part that is shifted or turned to its place first.")
]
MaxShiftOption = Annotated[
    float, typer.Option(min=0.005, max=0.5, help="The largest shift that is registered, as a share of the side.")
]
MaxRotationOption = Annotated[
    float, typer.Option(min=0.0, max=45.0, help="The largest rotation that is registered, in degrees.")
]
LightingOption = Annotated[
    Lighting,
    typer.Option(
        help="Bring frames to the normals' light: 'level' their mean and contrast (a part wrong as a whole is no "
        "longer seen), 'flat' the light's slow change too (nor are broad stains)."
    ),
]


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
