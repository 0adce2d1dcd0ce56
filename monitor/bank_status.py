"""What ``paedid-monitor bank status`` tells."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.table import Table

from monitor.adapters.bank_desk import BankDesk
from monitor.errors import StoreRefusedError, StoreUnavailableError
from monitor.ports import MOST_GOLDEN, BankKey, BankStore, DriftReport

MIB = 2**20


def status_table(
    desk: BankDesk, store: BankStore, keys: Sequence[BankKey], reports: Sequence[DriftReport], budget: int
) -> Table:
    """Return a row for each of these banks; the versions that Redis and the database know side by side."""
    table = Table(box=None, header_style="bold")
    for heading in ("camera", "model", "Redis", "database", "learned", "of budget", "golden defects", "drift"):
        table.add_column(heading, justify="left" if heading in {"camera", "model", "drift"} else "right")
    drift = {BankKey(report.camera, report.model_id): report for report in reports}
    for key in keys:
        table.add_row(key.camera, key.model_id, *_row(desk, store, key, budget), drift_words(drift.get(key)))
    return table


def drift_words(report: DriftReport | None) -> str:
    """Return what a drift report says, in a few words."""
    if report is None:
        return "unknown"
    far = f"{max(0.0, report.ratio):.0%} of the limit"
    if report.drifting_since is None:
        return f"no, {far}"
    places = f", {len(report.locations)} locations" if report.locations else ""
    return f"SINCE {report.drifting_since.astimezone():%m-%d %H:%M}, {far}{places}"


def status_words(desk: BankDesk, models: Sequence[str]) -> Iterator[str]:
    """Yield what waits for the learner and what is paused, a line each."""
    waiting = desk.waiting(models)
    if waiting.since is None:
        yield "Nothing waits for the learner."
    else:
        yield (
            f"{waiting.reviews} reviews and {waiting.orders} orders wait for the learner, the oldest since "
            f"{waiting.since.astimezone():%Y-%m-%d %H:%M:%S}."
        )
    for pause in desk.pauses():
        why = f": {pause.why}" if pause.why else ""
        yield (
            f"Paused: what a {pause.policy.value} confirms teaches nothing since "
            f"{pause.since.astimezone():%Y-%m-%d %H:%M:%S}, by {pause.by}{why}. "
            f"'bank resume {pause.policy.value}' ends it."
        )


def _row(desk: BankDesk, store: BankStore, key: BankKey, budget: int) -> tuple[str, ...]:
    active = [entry for entry in desk.entries(key) if entry.version_removed is None]
    newest = max((max(entry.version_added, entry.version_removed or 0) for entry in desk.entries(key)), default=0)
    try:
        version = store.version(key)
        in_redis = "none" if version is None else str(version)
    except StoreRefusedError:
        raise  # a person must mend that: to be told in its own words
    except StoreUnavailableError:
        in_redis = "unreachable"
    size = sum(entry.size_bytes for entry in active)
    share = f"{size / MIB:.1f} of {budget / MIB:.0f} MiB"
    golden = desk.golden_defects(key.camera)
    guards = str(golden) if golden <= MOST_GOLDEN else f"last {MOST_GOLDEN} of {golden}"
    return in_redis, str(newest), str(len(active)), share, guards
