"""Logging: structlog and the libraries' own loggers through one pipe to stderr, for people or for machines."""

from __future__ import annotations

import logging
import sys
import time
from typing import Final, TextIO

import structlog
from structlog.typing import Processor

from monitor.settings import LogSettings

# How long the same warning of a library is not repeated: a client that reconnects says the same many times a second.
REPEAT_AFTER_S: Final = 30.0
# Messages made of data must not fill the memory.
MAX_REMEMBERED: Final = 1000
# Libraries heard from this level on. At 'debug' they say all they have, and nothing is dropped.
# kafka-python writes several lines for what this program says in one, with what it means.
LIBRARIES: Final = {"kafka": logging.CRITICAL} | dict.fromkeys(
    ("redis", "sqlalchemy", "alembic", "asyncio", "fsspec"), logging.WARNING
)

# These write passwords, at 'debug' too: a client's options, and the very bytes of its requests.
NEVER_DEBUGGED: Final = ("kafka.admin.client", "kafka.net.connection", "kafka.protocol.parser")


class DropRepeats(logging.Filter):
    """Drops what a library has said within the last `REPEAT_AFTER_S`, whatever its arguments; our own lines pass."""

    def __init__(self) -> None:
        super().__init__()
        self._said: dict[tuple[str, str], float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether to let the record through."""
        if record.name.partition(".")[0] not in LIBRARIES:
            return True
        now = time.monotonic()
        said = (record.name, str(record.msg))
        if now - self._said.get(said, -REPEAT_AFTER_S) < REPEAT_AFTER_S:
            return False
        if len(self._said) >= MAX_REMEMBERED:
            self._said.clear()
        self._said[said] = now
        return True


def configure_logging(settings: LogSettings, stream: TextIO | None = None) -> None:
    """Send everything logged in this process to ``stream`` (default: stderr); calling it again replaces what it did.

    ``format: auto`` writes for people when the stream is a terminal, else one JSON object a line.
    """
    stream = stream or sys.stderr
    as_json = settings.format == "json" or (settings.format == "auto" and not stream.isatty())
    level = logging.getLevelNamesMapping()[settings.level.upper()]
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=as_json),
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )
    last: list[Processor] = [structlog.stdlib.ProcessorFormatter.remove_processors_meta]
    if as_json:
        # The traceback as text: without the values of variables, among which may be passwords.
        last += [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(default=str)]
    else:
        plain = structlog.dev.plain_traceback
        last += [structlog.dev.ConsoleRenderer(colors=stream.isatty(), exception_formatter=plain)]
    handler = logging.StreamHandler(stream)
    handler.setFormatter(structlog.stdlib.ProcessorFormatter(processors=last, foreign_pre_chain=shared))
    debugging = level <= logging.DEBUG
    if not debugging:
        handler.addFilter(DropRepeats())
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level)
    logging.captureWarnings(capture=True)
    for name, from_level in LIBRARIES.items():
        logging.getLogger(name).setLevel(level if debugging else max(level, from_level))
    for name in NEVER_DEBUGGED:
        logging.getLogger(name).setLevel(logging.INFO if debugging else logging.NOTSET)
