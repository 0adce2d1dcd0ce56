"""Which model is to inspect which camera: what people assigned, and whose word holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Generic, Protocol, TypeVar

from schemas.artifacts import Manifest
from schemas.errors import BundleError

V = TypeVar("V")


class Role(StrEnum):
    """What a model is for: its verdicts count (active), or it only looks on (shadow)."""

    ACTIVE = "active"
    SHADOW = "shadow"


@dataclass(frozen=True, slots=True)
class Chosen:
    """A model, and the folder that its bundle lies in."""

    model_id: str
    bundle: Path


# No bundle has this name: what a camera has that has no shadow.
NO_MODEL = Chosen("", Path())


@dataclass(frozen=True, slots=True)
class Assignment:
    """A person's word on which model a camera gets.

    Attributes:
        camera: None: every camera that has no assignment of its own.
        chosen: None: nothing is assigned any more.
    """

    camera: str | None
    role: Role
    chosen: Chosen | None
    by: str
    why: str | None
    at: datetime


@dataclass(frozen=True, slots=True)
class Cameras:
    """Some cameras: those named, or all but those named."""

    names: frozenset[str] = frozenset()
    all_but: bool = True


EVERY_CAMERA = Cameras()


@dataclass(frozen=True, slots=True)
class PerCamera(Generic[V]):
    """Something that some cameras have of their own and all others share."""

    others: V
    own: Mapping[str, V] = field(default_factory=dict)

    def of(self, camera: str | None) -> V:
        """Return what a camera has; of None: what those share that have nothing of their own."""
        return self.others if camera is None else self.own.get(camera, self.others)

    def each(self) -> set[V]:
        """Return everything that there is, once."""
        return {self.others, *self.own.values()}

    def cameras(self, value: V) -> Cameras:
        """Return the cameras that have this."""
        shared = value == self.others
        return Cameras(frozenset(camera for camera, its in self.own.items() if (its == value) != shared), shared)


class Assignments(Protocol):
    """The assignments in the database, as the programs that follow them see them."""

    def in_force(self, role: Role) -> Sequence[Assignment]:
        """Return the newest assignment of this role for each camera, and for every camera.

        Raises:
            StoreUnavailableError: the database is away.
        """


def choose(in_force: Sequence[Assignment], default: Chosen) -> PerCamera[Chosen]:
    """Return the model of each camera.

    A camera's own assignment counts for more than that for every camera; without either it gets the ``default``: the
    settings' model, and as a shadow ``NO_MODEL``.
    """
    chosen = {each.camera: each.chosen for each in in_force if each.chosen is not None}
    others = chosen.pop(None, default)
    return PerCamera(others, {camera: each for camera, each in chosen.items() if camera is not None})


def require_same(found: Manifest, chosen: Chosen) -> None:
    """Raise BundleError unless a bundle holds the model that was assigned."""
    if found.model_id != chosen.model_id:
        msg = (
            f"{chosen.bundle}: holds model {found.model_id}, and model {chosen.model_id} was assigned. Put that one's "
            "bundle there again, or activate the one that is there ('paedid-monitor model activate')."
        )
        raise BundleError(msg)
