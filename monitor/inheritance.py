"""A new model learns what the line has taught the old one, before the switch: what the commands have in common."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import typer
from rich.console import Console
from rich.progress import track

from monitor.adapters.bank_book import SqlBankBook
from monitor.adapters.bank_desk import BankDesk
from monitor.adapters.images import FsspecImageStore
from monitor.adapters.redis_bank import RedisBankStore
from monitor.adapters.reviews import SqlReviewStore
from monitor.bank_follower import BankFollower
from monitor.clock import SystemClock
from monitor.core.inspector import Inspector
from monitor.database_access import open_database
from monitor.learning.admission import Admission, Pixels
from monitor.learning.inherit import Inherited, inherit
from monitor.learning.keeper import BankKeeper
from monitor.learning.learner import as_defect
from monitor.ports import MOST_GOLDEN, BankEntry, BankKey
from monitor.settings import Settings
from monitor.wiring import load_inspector, open_banks, open_images, reader


@dataclass(frozen=True)
class Heir:
    """A new model about to learn what the line has taught the old one. Made by ``open_heir``."""

    inspector: Inspector
    old_model: str
    budget: int
    book: SqlBankBook
    desk: BankDesk
    reviews: SqlReviewStore
    images: FsspecImageStore
    banks: RedisBankStore
    keeper: BankKeeper
    read: Callable[[bytes], Pixels]
    seen: set[tuple[str, str]] = field(default_factory=set)

    @property
    def model_id(self) -> str:
        """The new model's name."""
        return self.inspector.manifest.model_id

    def taught_cameras(self) -> Sequence[str]:
        """Return the cameras whose bank of the old model was taught."""
        return self.book.taught_cameras(self.old_model)

    def known_cameras(self) -> Sequence[str]:
        """Return the cameras that were ever inspected, or whose bank was taught."""
        return sorted({key.camera for key in self.desk.banks()})

    def lacking(self, camera: str) -> list[BankEntry]:
        """Return what a camera's bank of the old model holds that the new one never held, nor looked at."""
        entries = self.book.active_entries(camera, self.old_model)
        barred = set(self.book.barred([entry.frame_id for entry in entries]))
        known = {entry.frame_id for entry in self.desk.entries(BankKey(camera, self.model_id))}
        return [
            entry
            for entry in entries
            if entry.frame_id not in barred | known and (camera, entry.frame_id) not in self.seen
        ]

    def inherit(self, camera: str, lacking: Sequence[BankEntry]) -> Iterator[Inherited]:
        """Look at normals again with the new model; yield what becomes of each.

        Raises:
            BankMismatchError: the camera's bank was made by another model of this name.
        """
        self.keeper.ensure(camera)
        # A copy of its own: it is filled on the way.
        bank = BankFollower(self.inspector, self.banks, SystemClock(), strict=True).current(camera)
        held = {entry.slot: entry.frame_id for entry in self.book.active_entries(camera, self.model_id)}
        # Above the one in Redis, too: a learner that looks meanwhile takes that for behind, not the entries for gone.
        version = max(self.book.next_bank_version(camera, self.model_id) - 1, bank.version)
        golden = self.reviews.golden_defects(camera, MOST_GOLDEN)
        defects = [as_defect(each, self.images, self.read) for each in golden]
        judge = Admission(self.inspector, self.budget, self.inspector.drift_baseline.usual_score)
        self.seen.update((camera, entry.frame_id) for entry in lacking)
        return inherit(
            model_id=self.model_id,
            taught=lacking,
            bank=bank,
            judge=judge,
            defects=defects,
            images=self.images,
            read=self.read,
            held=held,
            version=version,
        )

    def finish(self, camera: str, inherited: Sequence[Inherited]) -> None:
        """Write a camera's inheritance into the book, all at once, and make its bank in Redis of it."""
        entries = [each.entry for each in inherited if each.entry is not None]
        removals = [removal for each in inherited for removal in each.removals]
        self.book.write(camera, self.model_id, entries, removals)
        if entries:
            self.keeper.rebuild(camera)

    def open(self, camera: str) -> None:
        """Open a camera's bank of the new model, so that the workers find it.

        Raises:
            BankMismatchError: it was made by another model of this name.
        """
        self.keeper.current(camera)


@contextmanager
def open_heir(settings: Settings, old_model: str, bundle: Path) -> Iterator[Heir]:
    """Load a new bundle beside the old model's book.

    Raises:
        BundleError, ServiceUnavailableError, ConfigurationError.
    """
    inspector = load_inspector(settings.model, bundle)
    with open_database(settings) as engine, open_banks(settings) as banks:
        book, images, read = SqlBankBook(engine), open_images(settings), reader(settings, inspector)
        budget = settings.model.bank_bytes
        yield Heir(
            inspector=inspector,
            old_model=old_model,
            budget=budget,
            book=book,
            desk=BankDesk(engine),
            reviews=SqlReviewStore(engine),
            images=images,
            banks=banks,
            keeper=BankKeeper(inspector, banks, book, images, read, SystemClock(), budget),
            read=read,
        )


def hand_down(heir: Heir, cameras: Collection[str]) -> int:
    """Let the new model inherit, camera by camera, and tell what became of it; return how many normals were looked at.

    On a terminal, a bar shows how far it is.
    """
    looked_at = 0
    for camera in cameras:
        lacking = heir.lacking(camera)
        if not lacking:
            continue
        console = Console(stderr=True)
        done = list(
            track(
                heir.inherit(camera, lacking),
                description=camera,
                total=len(lacking),
                console=console,
                disable=not console.is_terminal,
            )
        )
        heir.finish(camera, done)
        taught = sum(each.entry is not None for each in done)
        typer.echo(f"{camera}: {taught} of {len(lacking)} confirmed normals taught to model {heir.model_id}")
        for each in done:
            if each.entry is None:
                typer.echo(f"  {each.frame_id}: {each.why}")
        looked_at += len(lacking)
    return looked_at
