"""The commit points: the moments between two steps of a frame's or a lesson's way that must both happen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

ProgramKind = Literal["worker", "learner"]


def _always(result: object, arguments: tuple[object, ...]) -> bool:  # noqa: ARG001 - as the others
    return True


def _returns_something(result: object, arguments: tuple[object, ...]) -> bool:  # noqa: ARG001 - as the others
    return bool(result)


def _is_given_something(result: object, arguments: tuple[object, ...]) -> bool:  # noqa: ARG001 - as the others
    return bool(arguments and arguments[0])


@dataclass(frozen=True, slots=True)
class CommitPoint:
    """A moment at which a program may die.

    Attributes:
        name: says what was just done, and what was not.
        program: whose moment it is.
        method: ``module:Class.method``, the moment being right after it returned; None: within a transaction, its
            rows sent and not committed.
        counts: given what the method returned and its arguments, whether anything was done.
        after: what has to happen for the moment to come; None: it comes by itself while frames and reviews flow.
    """

    name: str
    program: ProgramKind
    method: str | None
    counts: Callable[[object, tuple[object, ...]], bool] = _always
    after: Literal["bank lost"] | None = None


POINTS: Final = (
    CommitPoint("frames received", "worker", "monitor.adapters.kafka.source:KafkaSource.poll", _returns_something),
    CommitPoint("batch inspected", "worker", "monitor.inspecting:BatchInspector.inspect", _returns_something),
    CommitPoint("image kept", "worker", "monitor.adapters.images:FsspecImageStore.put"),
    CommitPoint("dead letters sent", "worker", "monitor.adapters.kafka.publisher:KafkaPublisher.dead_letters"),
    CommitPoint("batch in transaction", "worker", None),
    CommitPoint("batch stored", "worker", "monitor.adapters.inspections:SqlInspectionStore.record"),
    CommitPoint("offsets committed", "worker", "monitor.adapters.kafka.source:KafkaSource.commit"),
    CommitPoint(
        "results sent", "worker", "monitor.adapters.kafka.publisher:KafkaPublisher.events", _is_given_something
    ),
    CommitPoint("results marked", "worker", "monitor.adapters.inspections:SqlInspectionStore.mark_published"),
    CommitPoint("lesson judged", "learner", "monitor.learning.admission:Admission.consider"),
    CommitPoint("entry kept", "learner", "monitor.adapters.images:FsspecImageStore.put"),
    CommitPoint("bank edited", "learner", "monitor.adapters.redis_bank:RedisBankStore.add"),
    CommitPoint("review in transaction", "learner", None),
    CommitPoint("review completed", "learner", "monitor.adapters.reviews:SqlReviewStore.complete_review"),
    CommitPoint("entry taken out", "learner", "monitor.adapters.redis_bank:RedisBankStore.remove"),
    CommitPoint("bank restored", "learner", "monitor.adapters.redis_bank:RedisBankStore.open", after="bank lost"),
)
BY_NAME: Final = {point.name: point for point in POINTS}
