"""A TCP server between a program and a server, for what the network in between does."""

from __future__ import annotations

import socketserver
import threading
from typing import Self

from deploy.local.servers import HOST


class Relay(socketserver.ThreadingTCPServer):
    """Listens on a free port of 127.0.0.1 while it is entered; ``handler`` passes on what clients say.

    Args:
        port: of the server, on 127.0.0.1.
        handler: deals with one connection.
    """

    daemon_threads = True

    def __init__(self, port: int, handler: type[socketserver.BaseRequestHandler]) -> None:
        super().__init__((HOST, 0), handler)
        self.server_side = HOST, port
        self._thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05})

    @property
    def port(self) -> int:
        """Where clients connect to."""
        return int(self.server_address[1])

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self._thread.join()
        self.server_close()
