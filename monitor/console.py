"""What the commands have in common: options that mean the same everywhere, and tables."""

from __future__ import annotations

from typing import Annotated, Final

import typer
from rich.console import Console
from rich.table import Table

WIDE: Final = 240
WHOLE: Final = frozenset({"when", "since", "camera", "model", "frame", "id"})

By = Annotated[str | None, typer.Option(help="Who says so; default: the user's name.")]
Why = Annotated[str | None, typer.Option(help="The reason, for the history.")]


def wide_console() -> Console:
    """Return a console whose tables are not cut where nobody sees a terminal's width: in a pipe or a file."""
    console = Console()
    return console if console.is_terminal else Console(width=WIDE)


def plain_table(*headings: str) -> Table:
    """Return a table without lines, whose ids and times are not broken."""
    table = Table(box=None, header_style="bold")
    for heading in headings:
        table.add_column(heading, no_wrap=heading in WHOLE, justify="right" if heading == "bytes" else "left")
    return table
