"""Who dies when: drawn from one seed, every commit point in turn."""

from __future__ import annotations

import random
from collections import deque
from enum import Enum
from typing import Final

from deploy.chaos.points import POINTS, CommitPoint, ProgramKind
from deploy.chaos.world import SESSION_TIMEOUT_MS, Fate

MOST_HITS: Final = 4  # of a worker's moments, which come with every batch; a learner's come with a review
TRIES: Final = 3
# Of the lives that do not end at a commit point, so many are frozen first.
FROZEN_SHARE: Final = 0.5
ELSEWHERE_SHARE: Final = 0.15
FROZEN_S: Final = SESSION_TIMEOUT_MS / 1000 + 3
STRIKES_PER_KILL: Final = 0.2


class Target(Enum):
    """What a strike takes away."""

    BROKER = "broker"
    BANK = "bank"
    EMPTIED_BANK = "emptied bank"
    DATABASE = "database"


class Plan:
    """Hands out fates and strikes until all are dealt.

    Args:
        kills: how many lives are to end; with as many as there are commit points, each has its turn.
        seed: of everything drawn.
    """

    def __init__(self, kills: int, seed: int) -> None:
        self.chance = random.Random(seed)  # noqa: S311 - no secret
        self.total = kills
        elsewhere = max(0, min(round(ELSEWHERE_SHARE * kills), kills - len(POINTS)))
        points: list[CommitPoint] = []
        while len(points) < kills - elsewhere:
            points += self.chance.sample(POINTS, len(POINTS))
        dealt = points[: kills - elsewhere]
        fates = {kind: [self._at(point) for point in dealt if point.program == kind] for kind in _KINDS}
        fates["worker"] += [self._elsewhere() for _ in range(elsewhere)]
        for each in fates.values():
            self.chance.shuffle(each)
        self._fates = {kind: deque(each) for kind, each in fates.items()}
        self._tries: dict[str, int] = {}
        strikes = [target for _ in range(kills) for target in self.chance.sample(list(Target), len(Target))]
        self._strikes = deque(strikes[: max(1, round(STRIKES_PER_KILL * kills))])

    @property
    def over(self) -> bool:
        """Whether all is dealt."""
        return not (self._strikes or any(self._fates.values()))

    def fate(self, kind: ProgramKind) -> Fate:
        """Return how the next life of such a program ends; it lives on once all fates are dealt."""
        return self._fates[kind].popleft() if self._fates[kind] else Fate()

    def unfulfilled(self, kind: ProgramKind, fate: Fate) -> None:
        """Take back a fate that did not come to pass, to be dealt again, a few times at most."""
        if fate.point is None:
            return
        tries = self._tries[fate.point.name] = self._tries.get(fate.point.name, 0) + 1
        if tries < TRIES:
            self._fates[kind].append(fate)

    def strike(self) -> Target | None:
        """Return what is struck next, if anything."""
        return self._strikes.popleft() if self._strikes else None

    def _at(self, point: CommitPoint) -> Fate:
        return Fate(point=point, hits=self.chance.randint(1, MOST_HITS) if point.program == "worker" else 1)

    def _elsewhere(self) -> Fate:
        frozen_s = FROZEN_S if self.chance.random() < FROZEN_SHARE else None
        return Fate(after_s=self.chance.uniform(5, 10), frozen_s=frozen_s)


_KINDS: Final[tuple[ProgramKind, ...]] = ("worker", "learner")
