from __future__ import annotations

import math
import threading

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from monitor.core import crew
from monitor.core.crew import Crew
from monitor.core.inspector import Inspector
from tests.unit.small_model import Parts


def numbers(count: int, side: int = 2) -> torch.Tensor:
    return torch.arange(float(count)).reshape(count, 1, 1, 1).expand(count, 1, side, side)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 40), st.integers(1, 5))
def test_every_frame_is_seen_once_and_results_keep_their_order(count: int, threads: int) -> None:
    seen: list[int] = []

    def function(some: torch.Tensor) -> list[float]:
        seen.append(len(some))
        return [2 * value for value in some[:, 0, 0, 0].tolist()]

    assert Crew(threads).share(function, numbers(count)) == [2.0 * number for number in range(count)]
    assert len(seen) <= threads
    assert max(seen) == math.ceil(count / threads)


def test_frames_are_inspected_side_by_side_each_thread_alone_on_its_core() -> None:
    together = threading.Barrier(3, timeout=20)  # nobody passes before all three are there

    def function(some: torch.Tensor) -> list[tuple[int, bool]]:
        together.wait()
        return [(torch.get_num_threads(), torch.is_inference_mode_enabled())] * len(some)

    before = torch.get_num_threads()
    assert Crew(3).share(function, numbers(3)) == [(1, True)] * 3
    assert torch.get_num_threads() == before


def test_large_frames_are_left_to_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crew, "LARGEST", 15)
    seen: list[tuple[int, bool]] = []

    def function(some: torch.Tensor) -> list[int]:
        seen.append((len(some), threading.current_thread() is threading.main_thread()))
        return [0] * len(some)

    Crew(2).share(function, numbers(4, side=4))
    assert seen == [(4, True)]


def test_what_goes_wrong_in_a_thread_is_told() -> None:
    def function(some: torch.Tensor) -> list[int]:
        msg = f"{len(some)} frames"
        raise ValueError(msg)

    with pytest.raises(ValueError, match="2 frames"):
        Crew(2).share(function, numbers(4))


def test_a_frame_gives_the_same_bits_whatever_the_number_of_threads(inspector: Inspector, parts: Parts) -> None:
    bank, results = inspector.new_bank(), []
    for threads in (1, 2, 5):
        inspector._crew = Crew(threads)
        results.append((inspector.inspect(parts.defective, bank), inspector.remember(parts.defective)))
    for inspections, entries in results[1:]:
        np.testing.assert_array_equal(entries, results[0][1])
        for one, other in zip(inspections, results[0][0], strict=True):
            assert one.score == other.score
            np.testing.assert_array_equal(one.anomaly, other.anomaly)
