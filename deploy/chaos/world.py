"""The line under the storm: servers, programs, settings; and what ends a program's life."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

import yaml

from deploy.chaos.brokers import StormyBroker
from deploy.chaos.databases import StormyDatabase
from deploy.chaos.points import CommitPoint, ProgramKind
from deploy.local.programs import Program
from deploy.local.servers import ValkeyServer
from monitor.adapters import migrations
from monitor.adapters.kafka import ensure_topics
from monitor.settings import Settings, load_settings

COMMANDS: Final[dict[ProgramKind, str]] = {"worker": "run", "learner": "learn"}
SESSION_TIMEOUT_MS: Final = 6000
# What the reviewer did not confirm is to be confirmed too.
SETTINGS: Final = {
    "batch": {"max_frames": 8},
    "log": {"format": "json"},
}


@dataclass(frozen=True, slots=True)
class Fate:
    """How a program's life ends, unless the storm is over before. All None: it lives on.

    Attributes:
        point: it kills itself at this point,
        hits: when it comes there for the so-manyth time.
        after_s: it is killed after so many seconds, wherever it is.
        frozen_s: it is stopped for so long, then goes on: longer than its session lasts.
    """

    point: CommitPoint | None = None
    hits: int = 1
    after_s: float | None = None
    frozen_s: float | None = None


class Life:
    """One life of a program, from its start to its end.

    Args:
        world: where it lives.
        kind: which program.
        name: names its log.
        fate: how it ends.
        config: its settings; default: the world's.
    """

    def __init__(self, world: World, kind: ProgramKind, name: str, fate: Fate, config: Path | None = None) -> None:
        self.fate = fate
        self.kind = kind
        self.started = time.monotonic()
        arguments = ["--config", str(config or world.config), COMMANDS[kind]]
        module = "monitor"
        if fate.point is not None:
            module, arguments = "deploy.chaos.doomed", [fate.point.name, str(fate.hits), "SIGKILL", *arguments]
        self._program = Program(name, arguments, world.directory, module).start()
        self.killed = self.provoked = self.was_frozen = False
        self._frozen = False

    @property
    def age_s(self) -> float:
        """Seconds since it was started."""
        return time.monotonic() - self.started

    @property
    def pid(self) -> int | None:
        """Its process id while it lives."""
        return self._program.pid

    @property
    def exit_code(self) -> int | None:
        """How it ended, negative for a signal; None while it lives."""
        return self._program.exit_code

    def log_bytes(self) -> bytes:
        """Return what it, and those of its name before it, have logged."""
        return self._program.log_file.read_bytes()

    def check(self) -> None:
        """Raise OperatorError, with the end of its log, if it ended."""
        self._program.check()

    def kill(self) -> None:
        """Kill it, frozen or not."""
        self.killed = True
        self._program.kill()

    def freeze(self) -> None:
        """Stop it where it is: it still holds its connections, and believes in its partitions."""
        self._frozen = self.was_frozen = True
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        if self._frozen:
            self._frozen = False
            self._signal(signal.SIGCONT)

    def stop(self) -> None:
        """Let it finish, as an operator would."""
        self.thaw()
        self._program.stop()

    def _signal(self, number: signal.Signals) -> None:
        if (pid := self._program.pid) is not None:
            os.kill(pid, number)


class World:
    """Servers and settings in a folder; a context manager. Programs are started by `Life`.

    Args:
        directory: where everything goes; made when absent.
        bundle: the model.
        database: which.
        broker: which.
        sections: settings that differ from those of the storm.
    """

    def __init__(
        self,
        directory: Path,
        bundle: Path,
        database: StormyDatabase,
        broker: StormyBroker,
        **sections: Mapping[str, object],
    ) -> None:
        self._sections = sections
        self.directory = directory.resolve()
        self.config = self.directory / "monitor.yaml"
        self.database = database
        self.broker = broker
        self._bundle = bundle.resolve()
        self._valkey = ValkeyServer(self.directory / "valkey")
        self._running = ExitStack()

    @property
    def settings(self) -> Settings:
        """What the programs run with."""
        return load_settings(self.config, environment={})

    def __enter__(self) -> Self:
        self.directory.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:
            stack.enter_context(self.broker)
            stack.enter_context(self._valkey)
            stack.enter_context(self.database)
            self._write_settings()
            migrations.upgrade(self.database.url)
            self.make_topics()
            self._running = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._running.close()

    def make_topics(self) -> None:
        """Make the topics, as a plant's broker would still have them."""
        ensure_topics(self.settings.kafka, self.settings.limits)

    def restore_broker(self) -> None:
        """Start the broker again, with its topics: empty ones if it forgets."""
        self.broker.restore()
        self.make_topics()

    def kill_valkey(self, *, losing_all: bool) -> None:
        """Kill Valkey and start it again, with what it had written to its file, or with nothing."""
        self._valkey.kill()
        if losing_all:
            shutil.rmtree(self._valkey.directory / "appendonlydir", ignore_errors=True)
        self._valkey.start()

    def _write_settings(self) -> None:
        servers = {
            "kafka": {"bootstrap_servers": self.broker.address, "session_timeout_ms": SESSION_TIMEOUT_MS},
            "redis": {"url": self._valkey.url, "timeout_s": 1.0},
            "database": {"url": self.database.url},
            "images": {"url": str(self.directory / "images"), "keep": "all"},
            "model": {"bundle": str(self._bundle)},
        }
        self.config.write_text(yaml.safe_dump(servers | SETTINGS | self._sections, sort_keys=False), encoding="utf-8")
