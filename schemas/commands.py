"""What the commands promise a shell: exit code 2 and one clear line for what a person must mend, no traceback."""

from __future__ import annotations

import sys

import typer

from schemas.errors import OperatorError

EXIT_OPERATOR = 2
EXIT_INTERRUPTED = 130


def run_app(app: typer.Typer) -> int:
    """Run a command line application and return its exit code."""
    try:
        # Outside standalone mode, typer returns the code of a typer.Exit and raises the rest.
        result = app(standalone_mode=False)
    except OperatorError as error:
        return _complain(str(error))
    except (KeyboardInterrupt, typer.Abort):
        return EXIT_INTERRUPTED
    except typer.Exit as done:
        return done.exit_code
    except Exception as error:
        # Usage errors; their classes are typer's own and not public, but they all can format themselves.
        describe = getattr(error, "format_message", None)
        if describe is None:
            raise
        message = str(describe()).rstrip(". ")
        return _complain(f"{message}. See --help.") if message else EXIT_OPERATOR
    return result if isinstance(result, int) else 0


def _complain(message: str) -> int:
    print(f"error: {' '.join(message.split())}", file=sys.stderr)  # noqa: T201 - this is what the user reads
    return EXIT_OPERATOR
