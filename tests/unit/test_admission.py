"""Admission: what adds nothing is told so, what would hide a defect is refused, and little of the rest is kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from deploy.simulation import LineSettings, SimulatedLine
from monitor.core.bank_entry import keep_only, kept, most_bytes, size_in_bytes
from monitor.core.inspector import Inspection, Inspector
from monitor.core.memory_bank import MemoryBank
from monitor.core.preprocessing import prepare
from monitor.learning.admission import Admission, Admitted, Explained, Unfit
from monitor.learning.eviction import least_needed, oldest, outlived
from monitor.learning.gate import ALIKE, Defect, Gate, Hidden, Missed
from monitor.learning.patches import picture_of
from tests.unit.small_model import Parts

PLENTY = 2**30
LINE = SimulatedLine(LineSettings(size=64, seed=5, shift=3.0, rotation=3.0))
STAMPED = SimulatedLine(replace(LINE.settings, novelty_from=0, novelty_rate=1.0))

Frame = NDArray[np.float32]


def seen(part_image: NDArray[np.uint8], parts: Parts) -> Frame:
    return prepare(part_image, parts.spec)


@pytest.fixture(scope="module")
def stamped(inspector: Inspector, parts: Parts) -> list[Frame]:
    """Good parts that are flagged, for they carry a stamp; the one with the highest score first."""
    frames = np.stack([seen(STAMPED.good_part(index).image, parts) for index in range(300, 320)])
    found = inspector.inspect(frames, inspector.pinned)
    order = sorted(range(len(frames)), key=lambda index: -found[index].score)
    return [frames[index] for index in order if found[index].flagged]


@pytest.fixture(scope="module")
def odd(stamped: list[Frame]) -> Frame:
    """The oddest of them."""
    return stamped[0]


@pytest.fixture(scope="module")
def cracks(inspector: Inspector, parts: Parts) -> list[Frame]:
    """Parts with a crack, each another one, all plainly flagged, the plainest first."""
    frames = np.stack([seen(LINE.defective_part(index, "crack").image, parts) for index in range(400, 440)])
    found = inspector.inspect(frames, inspector.pinned)
    # The plainest first: those that barely stand out are soon hidden, by a harmless part as well.
    order = sorted(range(len(frames)), key=lambda index: -found[index].score)
    plain = [index for index in order if found[index].flagged and found[index].mask.any()]
    assert len(plain) > 3
    return [frames[index] for index in plain]


def judge(inspector: Inspector, budget: int = PLENTY) -> Admission:
    return Admission(inspector, budget, usual_score(inspector))


def usual_score(inspector: Inspector) -> float:
    return 0.8 * inspector.manifest.calibration.verdict.threshold


def golden(frames: Sequence[Frame]) -> list[Defect]:
    return [Defect(f"defect-{number}", lambda frame=frame: frame) for number, frame in enumerate(frames)]  # type: ignore[misc]


def slots(bank: MemoryBank) -> list[bytes]:
    return [np.nan_to_num(bank.entry(slot)).tobytes() for slot in bank.slots]  # type: ignore[arg-type]


def learn(admission: Admission, frame: Frame, bank: MemoryBank) -> Admitted:
    decision = admission.consider(frame, bank, [])
    assert isinstance(decision, Admitted)
    for slot in decision.evict:
        bank.remove(slot)
    bank.put(decision.slot, decision.entry)
    return decision


def test_a_normal_that_is_new_is_admitted_and_quiet_from_then_on(inspector: Inspector, odd: Frame) -> None:
    bank = inspector.new_bank()
    before = slots(bank)
    decision = judge(inspector).consider(odd, bank, [])
    assert isinstance(decision, Admitted)
    assert slots(bank) == before, "considering changes nothing"
    assert decision.slot == len(inspector.seed)
    assert decision.score_after < inspector.manifest.calibration.verdict.threshold < decision.score
    assert not decision.flagged_after
    bank.put(decision.slot, decision.entry)
    assert not inspector.inspect(odd[None], bank)[0].flagged


def test_only_what_the_bank_does_not_explain_is_kept(inspector: Inspector, stamped: list[Frame]) -> None:
    cell = inspector.manifest.architecture.cell
    lenient = Admission(inspector, PLENTY, usual=inspector.manifest.calibration.verdict.threshold)
    shares = []
    for frame in stamped:
        decision = lenient.consider(frame, inspector.new_bank(), [])
        assert isinstance(decision, Admitted)
        there = kept(decision.entry)
        shares.append(there.mean())
        whole = inspector.remember(frame[None])[0]
        np.testing.assert_array_equal(decision.entry[there], whole[there])
        oddest = inspector.inspect(frame[None], inspector.pinned)[0].anomaly
        place = np.unravel_index(oddest.argmax(), oddest.shape)
        assert there[place[0] // cell, place[1] // cell]
    # A part that is odd all over is kept whole; a stamp is not.
    assert 0 < np.median(shares) < 0.5, shares


def test_what_was_learnt_adds_nothing_a_second_time(inspector: Inspector, odd: Frame) -> None:
    bank, admission = inspector.new_bank(), judge(inspector)
    learn(admission, odd, bank)
    decision = admission.consider(odd, bank, [])
    assert isinstance(decision, Explained)
    assert decision.score <= decision.usual


def test_a_defect_confirmed_as_normal_is_refused_by_the_defect_itself(
    inspector: Inspector, cracks: list[Frame]
) -> None:
    bank = inspector.new_bank()
    decision = judge(inspector).consider(cracks[0], bank, golden(cracks[:1]))
    assert isinstance(decision, Hidden)
    assert decision.defect.frame_id == "defect-0"
    assert "defect-0" in decision.why


def elsewhere(found: Inspection) -> Inspection:
    """Return the inspection with its defect eight pixels aside."""
    moved = {name: np.roll(getattr(found, name), (8, -8), axis=(-2, -1)) for name in ("mask", "residual")}
    return replace(found, **moved)


def test_the_same_defect_in_another_place_is_recognised(inspector: Inspector, cracks: list[Frame]) -> None:
    (found,) = inspector.inspect(cracks[0][None], inspector.pinned)
    # Of this entry no golden defect is touched: only what it looks like can tell.
    far = keep_only(inspector.seed[0], np.arange(64).reshape(8, 8) == 63)
    hidden = Gate(inspector).find_hidden(elsewhere(found), far, inspector.pinned, golden(cracks[:1]))
    assert hidden is not None
    assert "100% alike" in hidden.why
    assert (hidden.box[0] - hidden.defect_box[0], hidden.box[1] - hidden.defect_box[1]) == (-8, 8)


def test_what_has_the_other_sign_or_is_much_fainter_is_something_else(
    inspector: Inspector, cracks: list[Frame]
) -> None:
    (found,) = inspector.inspect(cracks[0][None], inspector.pinned)
    far = keep_only(inspector.seed[0], np.arange(64).reshape(8, 8) == 63)
    for factor in (-1.0, 0.3, 4.0):
        other = replace(found, residual=np.float32(factor) * found.residual)
        assert Gate(inspector).find_hidden(other, far, inspector.pinned, golden(cracks[:1])) is None


def test_a_harmless_novelty_passes_the_gate(inspector: Inspector, odd: Frame, cracks: list[Frame]) -> None:
    assert isinstance(judge(inspector).consider(odd, inspector.new_bank(), golden(cracks[:3])), Admitted)


def test_without_the_gate_a_poisoned_bank_hides_the_defect(inspector: Inspector, cracks: list[Frame]) -> None:
    bank = inspector.new_bank()
    learn(judge(inspector), cracks[0], bank)
    missed = judge(inspector).find_culprit(cracks[0], bank)
    assert missed == Missed(missed.score if missed else 0.0, len(inspector.seed))
    assert judge(inspector).find_culprit(cracks[0], inspector.pinned) is None


def test_a_covered_defect_is_found_although_nothing_looks_alike(
    inspector: Inspector, cracks: list[Frame], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("monitor.learning.gate.ALIKE", 2.0)
    decision = judge(inspector).consider(cracks[0], inspector.new_bank(), golden(cracks))
    assert isinstance(decision, Hidden)
    assert decision.defect.frame_id == "defect-0"
    assert ALIKE < 1.0


def test_what_was_hidden_before_is_not_blamed_on_an_addition(
    inspector: Inspector, cracks: list[Frame], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("monitor.learning.gate.ALIKE", 2.0)
    bank = inspector.new_bank()
    learn(judge(inspector), cracks[0], bank)
    (again,) = inspector.inspect(cracks[0][None], bank)
    entry = inspector.remember(cracks[0][None])[0]
    assert Gate(inspector).find_hidden(again, entry, bank, golden(cracks[:1])) is None


def test_the_quick_look_at_touched_defects_decides_as_looking_at_all_would(
    inspector: Inspector, odd: Frame, cracks: list[Frame], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("monitor.learning.gate.ALIKE", 2.0)
    bank, defects = inspector.new_bank(), golden(cracks[:6])
    quick, thorough = Gate(inspector), Gate(inspector)
    monkeypatch.setattr(thorough, "_touched", lambda entry, bank, golden: list(golden))  # noqa: ARG005
    for frame in (odd, *cracks[:8]):
        entry = inspector.remember(frame[None])[0]
        (before,) = inspector.inspect(frame[None], bank)
        found, expected = (gate.find_hidden(before, entry, bank, defects) for gate in (quick, thorough))
        assert (found is None) == (expected is None)


def test_a_golden_defect_whose_image_is_gone_guards_nothing(inspector: Inspector, cracks: list[Frame]) -> None:
    decision = judge(inspector).consider(cracks[0], inspector.new_bank(), [Defect("gone", lambda: None)])
    assert isinstance(decision, Admitted)


def test_the_picture_shows_both_patches(inspector: Inspector, cracks: list[Frame]) -> None:
    decision = judge(inspector).consider(cracks[0], inspector.new_bank(), golden(cracks[:1]))
    assert isinstance(decision, Hidden)
    picture = cv2.imdecode(np.frombuffer(picture_of(decision, cracks[0]), np.uint8), cv2.IMREAD_COLOR)
    assert picture.shape == (276, 510, 3)
    gone = replace(decision, defect=Defect("gone", lambda: None))
    assert cv2.imdecode(np.frombuffer(picture_of(gone, cracks[0]), np.uint8), cv2.IMREAD_COLOR).shape[1] == 260


def test_a_full_bank_makes_room_and_never_takes_more_than_its_budget(inspector: Inspector, parts: Parts) -> None:
    frames = [seen(STAMPED.good_part(index).image, parts) for index in range(500, 530)]
    shape = inspector.manifest.architecture.entry_shape
    budget = most_bytes(shape)
    bank, admission = inspector.new_bank(), Admission(inspector, budget, usual_score(inspector) / 2)
    evicted = 0
    for frame in frames:
        decision = admission.consider(frame, bank, [])
        if isinstance(decision, Admitted):
            assert all(slot >= len(inspector.seed) for slot in decision.evict), "pinned normals stay"
            evicted += len(decision.evict)
            for slot in decision.evict:
                bank.remove(slot)
            bank.put(decision.slot, decision.entry)
        learned = [slot for slot in bank.slots if slot >= len(inspector.seed)]
        assert sum(size_in_bytes(bank.locations(slot), shape[2]) for slot in learned) <= budget
    assert evicted > 0
    assert bank.slots[: len(inspector.seed)] == list(range(len(inspector.seed)))


def test_what_alone_takes_more_than_the_budget_is_unfit_and_evicts_nobody(inspector: Inspector, odd: Frame) -> None:
    decision = judge(inspector, budget=10).consider(odd, inspector.new_bank(), [])
    assert isinstance(decision, Unfit)
    assert "model.bank_bytes" in decision.why


def test_the_least_needed_entry_is_the_one_that_others_resemble(inspector: Inspector, odd: Frame) -> None:
    bank, pinned = inspector.new_bank(), len(inspector.seed)
    whole = inspector.remember(odd[None])[0]
    bank.put(pinned, whole)
    bank.put(pinned + 1, inspector.seed[0])
    bank.put(pinned + 2, (whole * np.float16(-1)).astype(np.float16))
    assert least_needed(bank, [pinned, pinned + 1, pinned + 2]) == pinned + 1
    assert oldest(bank, [pinned + 2, pinned + 1, pinned]) == pinned


def test_of_two_that_are_needed_alike_the_older_goes_and_an_old_one_stays_while_it_is_needed(
    inspector: Inspector, odd: Frame
) -> None:
    bank, pinned = inspector.new_bank(), len(inspector.seed)
    whole = inspector.remember(odd[None])[0]
    bank.put(pinned + 2, (whole * np.float16(-1)).astype(np.float16))
    bank.put(pinned + 1, inspector.seed[0])
    bank.put(pinned, inspector.seed[0])
    learned = [pinned, pinned + 1, pinned + 2]
    assert outlived(bank, learned) == pinned + 1
    with bank.without(pinned + 1):
        assert outlived(bank, [pinned, pinned + 2]) == pinned
