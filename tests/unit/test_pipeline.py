"""Frame, batch, inspect, store, commit: what was sent is stored, once, whatever fails in between."""

from __future__ import annotations

import itertools
import threading
import time
from collections import Counter
from datetime import UTC, datetime, timedelta

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from monitor.adapters.memory import MemoryImageStore
from monitor.core.view import Prepared
from monitor.errors import ImageStoreFullError
from monitor.ports import BatchOutcome, InspectionRecord, LogPosition, Recorded
from monitor.settings import CameraSettings, ImageSettings
from monitor.storing import keeps_image
from schemas.messages import FrameEvent, Verdict
from tests.unit.pipeline_fakes import (
    AWAY,
    DEFECT,
    NORMAL,
    NOT_A_NUMBER,
    POISON,
    Bench,
    Line,
    Store,
    ToyInspector,
    make_settings,
    png,
)


def test_every_frame_is_stored_with_its_verdict_and_committed() -> None:
    bench = Bench()
    for number in range(10):
        bench.line.send(f"f{number}", png(DEFECT if number == 3 else NORMAL))
    bench.run()
    assert list(bench.store.verdicts) == [f"f{number}" for number in range(10)]
    assert [name for name, verdict in bench.store.verdicts.items() if verdict == "defect"] == ["f3"]
    assert bench.line.committed["cam"] == 10
    assert bench.line.closed


def test_what_retention_took_is_stored_as_a_gap_in_its_turn_and_committed() -> None:
    bench = Bench()
    bench.line.send("before", png(NORMAL))
    bench.line.lose()
    bench.line.send("after", png(NORMAL))
    bench.run()
    assert list(bench.store.verdicts) == ["before", "after"]
    (gap,) = bench.store.gaps
    assert (gap.position.offset, gap.count) == (1, 1)
    assert bench.line.committed["cam"] == 3


def test_a_record_tells_how_the_verdict_came_about_in_camera_pixels() -> None:
    bench = Bench()
    image = np.full((32, 64), NORMAL, np.uint8)  # the network sees 16 x 16: every 2nd row, every 4th column
    image[8:12, 16:32] = DEFECT
    bench.line.send("f", cv2.imencode(".png", image)[1].tobytes())
    bench.banks.teach("cam", "taught")
    bench.run()
    (record,) = bench.store.records
    assert (record.verdict, record.threshold, record.model_id, record.bank_version) == (Verdict.DEFECT, 0.5, "toy-1", 1)
    assert record.score == pytest.approx(DEFECT / 255)
    assert record.defect_area == 2 * 4 / 16**2
    mask = cv2.imdecode(np.frombuffer(record.mask_png, np.uint8), cv2.IMREAD_UNCHANGED)
    assert mask.shape == (16, 16)
    assert np.unique(mask).tolist() == [0, 255]
    (region,) = record.regions
    assert (region.x, region.y, region.width, region.height, region.area) == (16, 8, 16, 4, 64)
    assert (region.centroid_x, region.centroid_y) == (23.5, 9.5)
    assert (region.length, region.breadth, region.length_mm, record.region_count) == (16, 4, None, 1)


def test_regions_are_measured_in_millimetres_where_a_cameras_pixel_pitch_is_known() -> None:
    cameras = CameraSettings(pixel_pitch_um=250, pixel_pitch_um_of={"close": 100})
    bench = Bench(settings=make_settings().model_copy(update={"cameras": cameras}))
    bench.line.send("far-1", png(DEFECT), camera="far")
    bench.line.send("close-1", png(DEFECT), camera="close")
    bench.run()
    sizes = {record.frame.frame_id: record.regions[0].length_mm for record in bench.store.records}
    assert sizes == {"far-1": 4.0, "close-1": 1.6}  # all of the 16 pixels


def test_a_store_that_is_away_loses_nothing_and_commits_late() -> None:
    bench = Bench()
    bench.store.away = lambda: bench.line.paused_polls < 3
    for number in range(30):
        bench.line.send(f"f{number}", png(NORMAL))
    with capture_logs() as logs:
        bench.run()
    assert len(bench.store.verdicts) == 30
    assert bench.line.committed["cam"] == 30
    assert not bench.line.paused
    said = [entry["event"] for entry in logs if "database" in entry["event"]]
    assert said == [
        "The database cannot be reached; frames wait in Kafka until it is back",
        "The database is back; no frame was lost",
    ]


def test_no_offset_is_committed_before_the_store_has_its_frames() -> None:
    class SlowStore(Store):
        def record(self, outcome: BatchOutcome) -> Recorded:
            time.sleep(0.02)
            assert all(record.position not in committed() for record in outcome.inspections)
            return super().record(outcome)

    bench = Bench(store=SlowStore())

    def committed() -> set[LogPosition]:
        return {position for positions in bench.line.commits for position in positions}

    for number in range(20):
        bench.line.send(f"f{number}", png(NORMAL))
    bench.run()
    assert len(bench.store.verdicts) == 20


def test_offsets_are_committed_in_the_order_of_the_log() -> None:
    bench = Bench(settings=make_settings(max_frames=3))
    for number in range(25):
        bench.line.send(f"f{number}", png(NORMAL) if number % 4 else b"broken")
    bench.run()
    ends = [max(position.offset for position in positions) for positions in bench.line.commits]
    assert ends == sorted(ends)
    assert ends[-1] == 24


def test_storing_a_batch_overlaps_inspecting_the_next() -> None:
    inspected_two = threading.Event()

    class Inspector(ToyInspector):
        def inspect(self, frames: np.ndarray, bank: object) -> list:
            inspections = super().inspect(frames, bank)
            if len(self.calls) == 2:
                inspected_two.set()
            return inspections

    class WaitingStore(Store):
        def record(self, outcome: BatchOutcome) -> Recorded:
            assert inspected_two.wait(5), "the second batch waits for the first to be stored"
            return super().record(outcome)

    bench = Bench(inspector=Inspector(), store=WaitingStore())
    for number in range(8):
        bench.line.send(f"f{number}", png(NORMAL))
    bench.run()
    assert len(bench.store.verdicts) == 8


def test_no_more_than_two_batches_are_received_and_two_finished_while_the_store_is_away() -> None:
    bench = Bench(settings=make_settings(max_frames=2))
    bench.store.away = lambda: bench.line.paused_polls < 5
    for number in range(50):
        bench.line.send(f"f{number}", png(NORMAL))
    taken: list[int] = []
    bench.line.pause = lambda: (taken.append(bench.line.next["cam"]), setattr(bench.line, "paused", True))
    bench.run()
    assert max(taken[:5]) <= 4 * 2
    assert len(bench.store.verdicts) == 50


def test_a_poisoned_frame_is_stored_uninspected_and_its_batch_mates_get_verdicts() -> None:
    bench = Bench()
    for number in range(4):
        bench.line.send(f"f{number}", png(POISON if number == 1 else NORMAL))
    with capture_logs() as logs:
        bench.run()
    assert list(bench.store.verdicts.values()) == ["normal", "uninspected", "normal", "normal"]
    assert bench.store.records[1].reason == "inspection_failed"
    assert [entry["frame"] for entry in logs if entry.get("exc_info")] == ["f1"]


def test_a_score_that_is_not_a_number_does_not_pass_for_normal() -> None:
    bench = Bench()
    bench.line.send("f", png(NOT_A_NUMBER))
    bench.run()
    assert bench.store.verdicts == {"f": "uninspected"}


def test_a_fault_in_decoding_stores_the_frame_uninspected() -> None:
    class Inspector(ToyInspector):
        def prepare(self, image: np.ndarray) -> Prepared:
            if image[0, 0] == DEFECT:
                raise MemoryError
            return super().prepare(image)

    bench = Bench(inspector=Inspector())
    bench.line.send("f0", png(DEFECT))
    bench.line.send("f1", png(NORMAL))
    bench.run()
    assert bench.store.verdicts == {"f0": "uninspected", "f1": "normal"}


def test_a_device_out_of_memory_inspects_half_batches_from_then_on() -> None:
    bench = Bench(inspector=ToyInspector(most_at_once=3), settings=make_settings(max_frames=8))
    for number in range(16):
        bench.line.send(f"f{number}", png(NORMAL))
    bench.run()
    assert set(bench.store.verdicts.values()) == {"normal"}
    assert [frames for frames, _ in bench.inspector.calls] == [8, 4, 2, 2, 2, 2, 2, 2, 2, 2]


def test_mixed_cameras_use_their_own_banks() -> None:
    bench = Bench(settings=make_settings(max_frames=6))
    bench.banks.teach("left", "taught")
    for number in range(3):
        bench.line.send(f"l{number}", png(NORMAL), camera="left")
        bench.line.send(f"r{number}", png(NORMAL), camera="right")
    bench.run()
    versions = {record.frame.frame_id: record.bank_version for record in bench.store.records}
    assert versions == {"l0": 1, "l1": 1, "l2": 1, "r0": 0, "r1": 0, "r2": 0}
    assert [frames for frames, _ in bench.inspector.calls] == [3, 3]
    assert bench.inspector.calls[0][1] is not bench.inspector.calls[1][1]


def test_a_bank_edit_reaches_the_next_batch() -> None:
    bench = Bench(settings=make_settings(max_frames=1))
    record = bench.store.record
    bench.store.record = lambda outcome: (record(outcome), bench.banks.teach("cam", str(bench.store.transactions)))[0]
    for number in range(5):
        bench.line.send(f"f{number}", png(NORMAL))
    bench.run()
    versions = [record.bank_version for record in bench.store.records]
    assert versions == sorted(versions)
    assert versions[-1] >= 3


def test_a_frame_past_its_deadline_is_stored_without_inspection() -> None:
    bench = Bench()
    long_ago = datetime.now(UTC) - timedelta(seconds=10)
    bench.line.send("late", png(NORMAL), captured_at=long_ago, deadline_ms=500)
    bench.line.send("patient", png(NORMAL), captured_at=long_ago, deadline_ms=60_000)
    bench.line.send("whenever", png(NORMAL), captured_at=long_ago)
    bench.run()
    assert [record.reason for record in bench.store.records] == ["deadline", None, None]
    assert bench.store.verdicts["late"] == "uninspected"
    assert sum(frames for frames, _ in bench.inspector.calls) == 2


def test_a_broken_frame_is_published_as_a_dead_letter_once_although_the_database_is_away() -> None:
    bench = Bench()
    bench.store.fails = [AWAY, AWAY]
    bench.line.send("f0", png(NORMAL)[:40])
    bench.line.send_raw(png(NORMAL), headers=())
    bench.line.send("f2", png(NORMAL))
    bench.run()
    assert [letter.record.position.offset for letter in bench.publisher.sent_letters] == [0, 1]
    # Stored with their place in the dead-letter topic.
    places = [(letter.record, letter.kept_at.offset) for letter in bench.store.dead_letters if letter.kept_at]
    assert places == [(letter.record, place) for place, letter in enumerate(bench.publisher.sent_letters)]
    assert list(bench.store.verdicts) == ["f2"]


@pytest.mark.parametrize("rewound", [True, False])
def test_a_revocation_loses_no_frame_whether_or_not_the_partitions_come_back_rewound(*, rewound: bool) -> None:
    bench = Bench()
    bench.line.revoke_at = {2: rewound, 5: rewound, 6: rewound}
    for number in range(40):
        bench.line.send(f"f{number}", png(NORMAL))
    bench.run()
    assert sorted(bench.store.verdicts) == sorted(f"f{number}" for number in range(40))


def test_a_revocation_waits_for_the_store_and_commits_what_it_has() -> None:
    class SlowStore(Store):
        def record(self, outcome: BatchOutcome) -> Recorded:
            time.sleep(0.1)
            return super().record(outcome)

    bench = Bench(store=SlowStore())
    seen: list[int] = []

    class Revoking(Line):
        def poll(self, timeout: float, max_records: int) -> list:
            if self.next["cam"] == 8 and not seen and not self.store.transactions:
                self.revoked()
                seen.append(self.committed["cam"])
            return super().poll(timeout, max_records)

    bench.line = Revoking(bench.store)
    for number in range(8):
        bench.line.send(f"f{number}", png(NORMAL))
    bench.run()
    assert seen == [4]


def test_a_stop_finishes_what_is_in_hand_and_takes_nothing_new() -> None:
    bench = Bench(settings=make_settings(max_frames=16))
    for number in range(100):
        bench.line.send(f"f{number}", png(NORMAL))
    poll = bench.line.poll

    def poll_and_stop(timeout: float, max_records: int) -> object:
        assert not bench.line.stop.is_set()
        records = poll(timeout, min(10, max_records))
        bench.line.stop.set()
        return records

    bench.line.poll = poll_and_stop
    bench.run()
    assert len(bench.store.verdicts) == 10
    assert bench.line.committed["cam"] == 10


def test_a_stop_while_the_store_is_away_leaves_uncommitted_and_the_next_start_stores_all() -> None:
    bench = Bench(stop_grace=0.05)
    bench.store.away = lambda: bench.line.stop.set() or True
    for number in range(10):
        bench.line.send(f"f{number}", png(NORMAL))
    with capture_logs() as logs:
        bench.run()
    assert bench.line.committed["cam"] == 0
    assert "Leaving while the store is away; the frames in hand will be delivered again" in [e["event"] for e in logs]
    bench.store.away = lambda: False
    bench.run()
    assert len(bench.store.verdicts) == 10
    assert bench.line.committed["cam"] == 10


def test_an_error_that_is_no_outage_ends_the_worker_with_nothing_committed() -> None:
    bench = Bench()
    bench.store.fails = [ZeroDivisionError("a mistake")]
    bench.line.send("f", png(NORMAL))
    with pytest.raises(ZeroDivisionError):
        bench.run()
    assert bench.line.commits == []
    assert bench.line.closed


def test_images_are_kept_of_what_is_not_normal() -> None:
    bench = Bench()
    for name, grey in {"normal": NORMAL, "defect": DEFECT, "poison": POISON}.items():
        bench.line.send(name, png(grey))
    bench.run()
    kept = {r.frame.frame_id: bench.images.get(r.image_sha256) for r in bench.store.records if r.image_sha256}
    assert kept == {"defect": png(DEFECT), "poison": png(POISON)}


def test_a_full_image_store_costs_the_images_and_nothing_else_and_is_told_of_once() -> None:
    bench = Bench(make_settings(max_frames=1, keep="all"))
    full = {1, 2}

    class Disk(MemoryImageStore):
        puts = 0

        def put(self, data: bytes) -> str:
            self.puts += 1
            if self.puts - 1 in full:
                message = "no room"
                raise ImageStoreFullError(message)
            return super().put(data)

    bench.images = Disk()
    for number in range(4):
        bench.line.send(f"f{number}", png(DEFECT))
    with capture_logs() as logs:
        bench.run()
    assert [(r.verdict.value, r.image_sha256 is not None) for r in bench.store.records] == [
        ("defect", number not in full) for number in range(4)
    ]
    about = [entry["event"] for entry in logs if "image store" in entry["event"]]
    assert [("full" in event, "room again" in event) for event in about] == [(True, False), (False, True)]


def test_the_sample_of_normal_images_has_the_wanted_share_and_is_drawn_alike_again() -> None:
    names = [f"f{number}" for number in range(2000)]

    def kept(share: float, keep: str = "flagged") -> list[str]:
        policy = ImageSettings(keep=keep, sample_normal=share)
        return [name for name in names if keeps_image(normal_record(name), policy)]

    assert kept(0.0) == []
    assert 140 < len(kept(0.1)) < 260
    assert kept(0.1) == kept(0.1)
    assert set(kept(0.1)) < set(kept(0.2))
    assert kept(1.0) == kept(0.0, keep="all") == names
    assert kept(1.0, keep="none") == []


def normal_record(frame_id: str) -> InspectionRecord:
    now = datetime.now(UTC)
    frame = FrameEvent(frame_id=frame_id, camera="cam", captured_at=now)
    return InspectionRecord(LogPosition("frames", "t", 0, 0), frame, Verdict.NORMAL, "toy-1", now)


frames = st.lists(st.tuples(st.sampled_from(["good", "defect", "broken", "poison", "late"]), st.sampled_from("ab")))
failures = st.lists(st.sampled_from([None, AWAY, RuntimeError("killed")]), max_size=8)
revocations = st.dictionaries(st.integers(2, 12), st.booleans(), max_size=3)


@settings(max_examples=40, deadline=None)
@given(frames, failures, revocations, st.integers(1, 5))
def test_sent_is_stored_and_uninspected_and_dead_lettered_and_none_twice(
    frames: list[tuple[str, str]], failures: list[Exception | None], revocations: dict[int, bool], max_frames: int
) -> None:
    bench = Bench(settings=make_settings(max_frames=max_frames))
    bench.store.fails = list(failures)
    bench.line.revoke_at = dict(revocations)
    grey = {"good": NORMAL, "defect": DEFECT, "poison": POISON, "late": NORMAL}
    for number, (kind, camera) in enumerate(frames):
        deadline = {"captured_at": datetime(2024, 1, 1, tzinfo=UTC), "deadline_ms": 1} if kind == "late" else {}
        bench.line.send(f"{kind}{number}", png(grey[kind]) if kind in grey else b"\x89PNG", camera, **deadline)
    for _ in itertools.count():
        try:
            bench.run()
        except RuntimeError:
            continue  # killed, and started again from the committed offsets
        break
    stored = Counter(bench.store.verdicts.values())
    kinds = Counter(kind for kind, _ in frames)
    assert stored["normal"] == kinds["good"]
    assert stored["defect"] == kinds["defect"]
    assert stored["uninspected"] == kinds["poison"] + kinds["late"]
    assert len(bench.store.dead_letters) == kinds["broken"]
    assert sum(bench.line.committed.values()) == len(frames)
