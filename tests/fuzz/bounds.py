"""What every input must keep to: no error but the documented ones, and a bound on time and memory."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import hypothesis
from hypothesis import HealthCheck

EXAMPLES: Final = int(os.environ.get("FUZZ_EXAMPLES", "20"))
SECONDS: Final = 2.0
MEGABYTES: Final = 64

PROCESS: Final = Path("/proc/self")

fuzzed = hypothesis.settings(max_examples=EXAMPLES, suppress_health_check=[HealthCheck.too_slow])
fuzzed_more = hypothesis.settings(fuzzed, max_examples=3 * EXAMPLES)


@dataclass
class Tally:
    """What has been done in this process."""

    inputs: int = 0
    failures: int = 0
    peak_bytes: int = 0
    started: float = field(default_factory=time.monotonic)


TALLY = Tally()


@contextmanager
def bounded(*documented: type[Exception], megabytes: int = MEGABYTES) -> Iterator[None]:
    """Within, one input is read: it may raise what is documented, and take so much time and memory.

    Time is the processor's, so that a busy machine is no failure. Memory is how far the process's resident memory rose
    at its highest, decoders in C included; it is not measured where there is no Linux to tell.
    """
    TALLY.inputs += 1
    before = _restart_peak()
    started = time.process_time()
    with suppress(*documented):
        yield
    seconds, peak = time.process_time() - started, max(0, _status("VmHWM") - before)
    TALLY.peak_bytes = max(TALLY.peak_bytes, peak)
    assert seconds < SECONDS, f"{seconds:.1f} s"
    assert peak < megabytes * 2**20, f"{peak / 2**20:.0f} MB"


def _restart_peak() -> int:
    """Make the process's peak what it takes now, and return that."""
    try:
        (PROCESS / "clear_refs").write_text("5")
    except OSError:
        return _status("VmHWM")
    return _status("VmRSS")


def _status(name: str) -> int:
    """Return a figure of /proc/self/status in bytes; 0 where there is none."""
    try:
        lines = (PROCESS / "status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:")), 0)
