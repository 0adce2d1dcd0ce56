"""The embedded stack: broker, bank store, database, worker and learner in one folder, on free loopback ports."""

from __future__ import annotations

import time
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

import yaml

from deploy.local.programs import Program
from deploy.local.servers import TansuBroker, ValkeyServer
from monitor.settings import Settings, load_settings
from schemas.errors import OperatorError

# What the programs log once they can work.
WORKER_READY = b'"partitions assigned"'
LEARNER_READY = b'"Learning"'


class Stack:
    """Everything a line needs on one machine. Starts on entering, leaves nothing running.

    The broker is in memory: a restarted stack continues with the same database, bank and images, and an empty topic.

    Args:
        directory: holds the settings, the database, the images, the bank's file and all logs.
        bundle: the model.
        keep_images: ``images.keep`` of the settings.
    """

    def __init__(self, directory: Path, bundle: Path, keep_images: str = "flagged") -> None:
        self.directory = directory.resolve()
        self.bundle = bundle.resolve()
        self.broker = TansuBroker(self.directory / "tansu")
        self.valkey = ValkeyServer(self.directory / "valkey")
        self.config = self.directory / "monitor.yaml"
        self.worker = Program("worker", ["--config", str(self.config), "run"], self.directory)
        self.learner = Program("learner", ["--config", str(self.config), "learn"], self.directory)
        self._keep_images = keep_images
        self._running = ExitStack()

    @property
    def settings(self) -> Settings:
        """What the programs of this stack run with."""
        return load_settings(self.config, environment={})

    def check(self) -> None:
        """Raise OperatorError if a program ended by itself."""
        self.worker.check()
        self.learner.check()

    def wait_until_ready(self, timeout: float = 90.0) -> None:
        """Wait until the worker has its partitions and the learner listens.

        Raises:
            OperatorError: one of them ended, or did not get so far in time.
        """
        deadline = time.monotonic() + timeout
        for program, sign in ((self.worker, WORKER_READY), (self.learner, LEARNER_READY)):
            while sign not in program.log_file.read_bytes():
                self.check()
                if time.monotonic() > deadline:
                    msg = f"the {program.name} was not ready within {timeout:.0f} s; see {program.log_file}"
                    raise OperatorError(msg)
                time.sleep(0.1)

    def __enter__(self) -> Self:
        self.directory.mkdir(parents=True, exist_ok=True)
        try:
            self._running.enter_context(self.broker)
            self._running.enter_context(self.valkey)
            self._write_settings()
            self._running.enter_context(self.worker)
            self._running.enter_context(self.learner)
        except BaseException:
            self._running.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._running.close()

    def _write_settings(self) -> None:
        settings = {
            "kafka": {"bootstrap_servers": self.broker.address},
            "redis": {"url": self.valkey.url},
            "database": {"url": f"sqlite:///{self.directory / 'monitor.db'}"},
            "images": {"url": str(self.directory / "images"), "keep": self._keep_images},
            "model": {"bundle": str(self.bundle)},
        }
        self.config.write_text(yaml.safe_dump(settings, sort_keys=False), encoding="utf-8")
