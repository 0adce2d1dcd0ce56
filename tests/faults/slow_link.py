"""A slow network in front of a server."""

from __future__ import annotations

import contextlib
import socket
import socketserver
import threading
import time
from collections.abc import Callable

from tests.relay import Relay

CHUNK_BYTES = 2**20


class SlowLink(Relay):
    """Passes bytes on between clients and a server, its answers after ``delay_s``. A context manager.

    Args:
        port: of the server, on 127.0.0.1.
        delay_s: may be changed at any time.
    """

    def __init__(self, port: int, delay_s: float) -> None:
        super().__init__(port, _Connection)
        self.delay_s = delay_s


class _Connection(socketserver.BaseRequestHandler):
    server: SlowLink

    def handle(self) -> None:
        with socket.create_connection(self.server.server_side) as far:
            requests = threading.Thread(target=_pass_on, args=(self.request, far, lambda: 0.0), daemon=True)
            requests.start()
            _pass_on(far, self.request, lambda: self.server.delay_s)
            requests.join()


def _pass_on(source: socket.socket, target: socket.socket, delay_s: Callable[[], float]) -> None:
    """Pass bytes on until one side has had enough, and tell both."""
    with contextlib.suppress(OSError):
        while data := source.recv(CHUNK_BYTES):
            time.sleep(delay_s())
            target.sendall(data)
    for side in (source, target):
        with contextlib.suppress(OSError):
            side.shutdown(socket.SHUT_RDWR)
