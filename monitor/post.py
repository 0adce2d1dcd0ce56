"""A model at work: the inspector, its cameras' banks, and its control charts."""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from monitor.assignments import Chosen, require_same
from monitor.bank_follower import BankFollower
from monitor.core.inspector import Inspector
from monitor.drift_monitor import DriftMonitor
from monitor.ports import BankKey, BankStore, Clock, InspectionStore


@dataclass(eq=False, slots=True)
class Post:
    """One model at work. Owned by the thread that inspects.

    Attributes:
        inspector: the model on its device.
        banks: the cameras' memory banks.
        drift: told of every inspection.
        most_at_once: found out the hard way: halved whenever the device's memory did not hold that many frames.
        said_blind: of a shadow: whether the log tells that it cannot see some frames.
    """

    inspector: Inspector
    banks: BankFollower
    drift: DriftMonitor
    most_at_once: int = sys.maxsize
    said_blind: bool = False

    @property
    def model_id(self) -> str:
        """The model's name."""
        return self.inspector.manifest.model_id


class PostMaker:
    """Makes posts: of a model that is there, or of a bundle.

    Args:
        load: bundle to model, on its device; may raise BundleError.
        banks: where the banks are followed.
        store: knows where the control charts stood.
        clock: for the posts.
    """

    def __init__(
        self, load: Callable[[Path], Inspector], banks: BankStore, store: InspectionStore, clock: Clock
    ) -> None:
        self._load_model = load
        self._banks = banks
        self._store = store
        self._clock = clock

    def of(self, inspector: Inspector) -> Post:
        """Return a model's post."""
        drift = DriftMonitor(
            inspector.drift_baseline, inspector.manifest.model_id, self._store.drift_report, self._clock
        )
        return Post(inspector, BankFollower(inspector, self._banks, self._clock), drift)

    def load(self, chosen: Chosen, cameras: Collection[str]) -> Post:
        """Load a model, follow these cameras' banks, and inspect once, so that its first frames wait for none of it.

        Raises:
            BundleError: the bundle is not to be had, or holds another model.
            BankMismatchError: a camera's bank was made by another model of this name.
            StoreUnavailableError: the banks are away.
        """
        inspector = self._load_model(chosen.bundle)
        require_same(inspector.manifest, chosen)
        post = self.of(inspector)
        for camera in cameras:
            # While Redis is away, the new model would lack what people have taught it; the old one has that at hand.
            self._banks.version(BankKey(camera, post.model_id))
        banks = [post.banks.current(camera) for camera in cameras]
        spec = inspector.manifest.architecture.input
        grey = np.full((1, spec.channels, spec.height, spec.width), 0.5, np.float32)
        inspector.inspect(grey, banks[0] if banks else inspector.new_bank())
        return post
