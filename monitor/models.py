"""The models at work, each for its cameras: which they are is followed while they work, and changed in between."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

import structlog

from monitor.assignments import Assignments, Cameras, Chosen, PerCamera, Role, choose
from monitor.errors import StoreUnavailableError
from monitor.ports import Clock
from schemas.errors import OperatorError

LOOK_EVERY_S: Final = 2.0
# A bundle is read as a whole to be verified: one that is damaged, not all the time.
RETRY_AFTER_S: Final = 10.0

T = TypeVar("T")

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class _News(Generic[T]):
    """What is wanted now, and of that what was loaded just now, by model id."""

    wanted: PerCamera[Chosen]
    loaded: dict[str, T]


class Models(Generic[T]):
    """Follows the assignments: what works with a model is loaded beside the work and taken over by ``follow``.

    Owned by one thread, which never waits here but in ``start``; a thread of its own reads the database and loads. What
    cannot be loaded is said once and tried again; until then the cameras keep the model that they have. Those at work
    are held, and the last active one that was, so that going back takes no time.

    Args:
        assignments: what people assigned.
        default: the settings' model; of shadows ``NO_MODEL``.
        first: what works with it; of shadows None.
        load: makes what works with a model, for cameras that may want it soon; called on the other thread. Its errors
            are told and outlived, whatever they are.
        clock: says when to look again.
        doing: what is done with the models, for the log: 'Inspecting'.
        role: which assignments are followed.
    """

    def __init__(
        self,
        assignments: Assignments,
        default: Chosen,
        first: T,
        load: Callable[[Chosen, Collection[str]], T],
        clock: Clock,
        doing: str,
        role: Role = Role.ACTIVE,
    ) -> None:
        self._assignments = assignments
        self._default = default
        self._load = load
        self._clock = clock
        self._doing = doing
        self._role = role
        self._loaded = {default.model_id: first}
        self._at_work = PerCamera(default.model_id)
        self._previous = default.model_id
        self._met: set[str] = set()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="models")
        self._looking: Future[_News[T] | None] | None = None
        self._look_at = clock.monotonic()
        # Of the other thread alone: what was complained of, by subject, and when to try again.
        self._said: dict[str, str] = {}
        self._retry_at: dict[str, float] = {}

    def start(self) -> None:
        """Take over what is assigned, waiting until it is loaded, so that a program begins with the right models."""
        self._take_over(self._begin_look().result())

    def follow(self) -> None:
        """Take over what was loaded since the last call, and look for new assignments now and then. Never waits."""
        if self._looking is not None and self._looking.done():
            self._take_over(self._looking.result())
        if self._looking is None and self._clock.monotonic() >= self._look_at:
            self._looking = self._begin_look()

    def active(self, camera: str) -> T:
        """Return what works for a camera now."""
        self._met.add(camera)
        return self._loaded[self._at_work.of(camera)]

    def held(self) -> Iterator[tuple[T, Cameras]]:
        """Yield all that is held, each with the cameras that it works for: none, if it is the previous one."""
        for model_id, each in self._loaded.items():
            yield each, self._at_work.cameras(model_id)

    def close(self) -> None:
        """End the other thread, once it is done with what it is doing."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _begin_look(self) -> Future[_News[T] | None]:
        self._look_at = self._clock.monotonic() + LOOK_EVERY_S
        return self._thread.submit(self._look, frozenset(self._loaded), frozenset(self._met))

    def _take_over(self, news: _News[T] | None) -> None:
        self._looking = None
        if news is None:
            return
        self._loaded |= news.loaded
        before = self._at_work

        def at_work(camera: str | None) -> str:
            wanted = news.wanted.of(camera).model_id
            return wanted if wanted in self._loaded else before.of(camera)

        self._at_work = PerCamera(at_work(None), {camera: at_work(camera) for camera in news.wanted.own})
        self._tell(before)
        if self._role is Role.ACTIVE:
            self._previous = min(before.each() - self._at_work.each(), default=self._previous)
        held = {*self._at_work.each(), self._previous}
        self._loaded = {model_id: each for model_id, each in self._loaded.items() if model_id in held}

    def _tell(self, before: PerCamera[str]) -> None:
        for camera in (None, *sorted({*before.own, *self._at_work.own})):
            model_id, was = self._at_work.of(camera), before.of(camera)
            if model_id != was:
                name = camera or "every other"
                log.info("%s with model %s", self._doing, model_id or "none", camera=name, before=was or "none")

    def _look(self, held: Collection[str], met: Collection[str]) -> _News[T] | None:
        """Read the assignments and load what is not held; on the other thread."""
        try:
            wanted = choose(self._assignments.in_force(self._role), self._default)
        except StoreUnavailableError as error:
            self._complain("assignments", "The models' assignments cannot be read; going on with those at work", error)
            return None
        self._said.pop("assignments", None)
        missing = {each.model_id: each for each in wanted.each() if each.model_id not in held}
        loaded: dict[str, T] = {}
        for model_id, chosen in missing.items():
            found = self._attempt(chosen, [camera for camera in met if wanted.of(camera) == chosen])
            if found is not None:
                loaded[model_id] = found
        return _News(wanted, loaded)

    def _attempt(self, chosen: Chosen, cameras: Collection[str]) -> T | None:
        """Return what works with a model; None if it cannot be loaded, or could not a moment ago."""
        if self._clock.monotonic() < self._retry_at.get(str(chosen), 0.0):
            return None
        try:
            found = self._load(chosen, cameras)
        except Exception as error:  # noqa: BLE001 - of a model that does not work no inspection may end, whatever it is
            self._complain(str(chosen), f"Model {chosen.model_id} cannot be loaded; going on without it", error)
            self._retry_at[str(chosen)] = self._clock.monotonic() + RETRY_AFTER_S
            return None
        self._said.pop(str(chosen), None)
        self._retry_at.pop(str(chosen), None)
        return found

    def _complain(self, subject: str, event: str, error: Exception) -> None:
        if self._said.get(subject) == str(error):
            return
        self._said[subject] = str(error)
        unexpected = None if isinstance(error, OperatorError | StoreUnavailableError) else error
        log.warning(event, role=self._role.value, error=str(error), exc_info=unexpected)
