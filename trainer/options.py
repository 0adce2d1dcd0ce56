"""The options that train and benchmark share: what the networks see of a line, and the seed."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from schemas.artifacts import Lighting


class Colour(StrEnum):
    """How many channels the network sees."""

    AUTO = "auto"
    GREY = "grey"
    COLOUR = "colour"


SizeOption = Annotated[
    str, typer.Option(help="What the network sees: 'auto' (short side 128), N or HEIGHTxWIDTH, multiples of 16.")
]
ColourOption = Annotated[Colour, typer.Option(help="Whether colour tells good from bad.")]
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

SeedOption = Annotated[int, typer.Option(help="Of everything random: the same seed gives the same result.")]
