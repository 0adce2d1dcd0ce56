"""The outbox relay: what a transaction stored is published, at least once, however long Kafka is away."""

from __future__ import annotations

import threading
from datetime import timedelta

import structlog

from monitor.errors import StoreUnavailableError
from monitor.metrics import OUTAGES, OUTBOX_BACKLOG
from monitor.patience import keep_trying
from monitor.ports import Clock, InspectionStore, Publisher
from schemas.errors import ServiceRefusedError

log = structlog.get_logger()

AT_ONCE = 500
# Messages of a worker that died are found by looking now and then; one's own are announced by ``poke``.
LOOK_EVERY_S = 1.0
# What was published is kept for whoever looks into what went out, and not for ever.
KEPT = timedelta(days=1)
FORGET_EVERY_S = 60.0


class OutboxRelay:
    """Publishes outbox messages, oldest first, on a thread of its own.

    A message is marked as published after the broker has it, so a crash in between publishes it again: receivers drop
    repeats by ``ce_id``.

    Args:
        store: the database.
        publisher: used by this relay's thread alone.
        clock: for when to tidy up.
    """

    def __init__(self, store: InspectionStore, publisher: Publisher, clock: Clock) -> None:
        self._store = store
        self._publisher = publisher
        self._clock = clock
        self._forget_due = clock.monotonic()
        self._refused = ""
        self._poked = threading.Event()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="outbox", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def poke(self) -> None:
        """Say that there is something to publish. Any thread may."""
        self._poked.set()

    def stop(self, timeout: float = 3.0) -> None:
        """Publish what is there and end; after ``timeout`` seconds leave the rest to the next start."""
        self._stopping.set()
        self._poked.set()
        self._thread.join(timeout)

    def _run(self) -> None:
        while True:
            self._poked.clear()
            last = self._stopping.is_set()
            try:
                # Any error: a relay that died would withhold every result without a word.
                keep_trying(
                    self._do_rounds,
                    errors=(Exception,),
                    given_up=self._stopping,
                    on_outage=_say_away,
                    on_return=lambda: log.info("Results are being published again"),
                )
            except Exception as error:  # noqa: BLE001 - see above; it is raised only while stopping
                log.warning("Leaving with unpublished results; the next start publishes them", error=str(error))
                return
            if last:
                return
            self._poked.wait(LOOK_EVERY_S)

    def _do_rounds(self) -> None:
        try:
            self.publish_all()
        except ServiceRefusedError as error:
            # Told by itself: it may come in the midst of an outage, and no waiting ends it.
            if str(error) != self._refused:
                log.error("Results are refused; they wait in the database until somebody mends it", error=str(error))  # noqa: TRY400
            self._refused = str(error)
            raise
        self._refused = ""
        self.forget_some()

    def forget_some(self) -> None:
        """Delete some of what was published a day ago and before, now and then.

        Raises:
            StoreUnavailableError: the database is away.
        """
        if self._clock.monotonic() < self._forget_due:
            return
        if self._store.forget_published(KEPT, AT_ONCE) < AT_ONCE:
            self._forget_due = self._clock.monotonic() + FORGET_EVERY_S

    def publish_all(self) -> None:
        """Publish until nothing is left.

        Raises:
            StoreUnavailableError: the database or Kafka is away; what was not marked will be published again.
        """
        while True:
            messages = self._store.unpublished(AT_ONCE)
            OUTBOX_BACKLOG.set(len(messages))
            if not messages:
                return
            self._publisher.events(messages)
            # Marked after the broker has them: a crash in between repeats work and loses none.
            self._store.mark_published([message.id for message in messages])


def _say_away(error: BaseException) -> None:
    OUTAGES.labels(service="outbox").inc()
    if isinstance(error, ServiceRefusedError):  # told already
        return
    unexpected = None if isinstance(error, StoreUnavailableError) else error
    log.warning("Results cannot be published; they wait in the database", error=str(error), exc_info=unexpected)
