"""What ``paedid-monitor bank status`` tells."""

from __future__ import annotations

from collections.abc import Iterator

from rich.table import Table

from monitor.adapters.bank_desk import BankDesk
from monitor.errors import StoreUnavailableError
from monitor.ports import BankKey, BankStore
from monitor.settings import Settings

MIB = 2**20


def status_table(desk: BankDesk, store: BankStore, model_id: str, settings: Settings) -> Table:
    """Return a row for each bank of the model; the versions that Redis and the database know side by side."""
    table = Table(box=None, header_style="bold")
    for heading in ("camera", "Redis", "database", "learned", "of budget", "golden defects"):
        table.add_column(heading, justify="left" if heading == "camera" else "right")
    for key in desk.banks():
        if key.model_id == model_id:
            table.add_row(key.camera, *_row(desk, store, key, settings.model.bank_bytes))
    return table


def status_words(desk: BankDesk) -> Iterator[str]:
    """Yield what waits for the learner and what is paused, a line each."""
    waiting = desk.waiting()
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
    except StoreUnavailableError:
        in_redis = "unreachable"
    size = sum(entry.size_bytes for entry in active)
    share = f"{size / MIB:.1f} of {budget / MIB:.0f} MiB"
    return in_redis, str(newest), str(len(active)), share, str(desk.golden_defects(key.camera))
