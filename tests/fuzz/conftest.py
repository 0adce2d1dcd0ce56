"""Tells at the end, in one line of JSON, what ``make fuzz`` has done."""

from __future__ import annotations

import json
import os
import time

import pytest

from tests.fuzz.bounds import TALLY


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    TALLY.failures += report.failed


def pytest_unconfigure() -> None:
    if "FUZZ_EXAMPLES" not in os.environ:
        return
    told = {
        "inputs": TALLY.inputs,
        "failures": TALLY.failures,
        "seconds": round(time.monotonic() - TALLY.started, 1),
        "peak_mb": round(TALLY.peak_bytes / 2**20, 1),
    }
    print(json.dumps(told), flush=True)  # noqa: T201 - what it is for
