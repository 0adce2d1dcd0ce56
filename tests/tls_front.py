"""TLS in front of a server that has none: what the embedded servers are built without."""

from __future__ import annotations

import contextlib
import select
import socket
import socketserver
import ssl

from deploy.local.servers import HOST
from tests.relay import Relay

CHUNK_BYTES = 2**16


class TlsFront(Relay):
    """Speaks TLS with clients, and passes on what they say to a server on 127.0.0.1. A context manager.

    Args:
        port: of the server.
        context: with the certificate.
    """

    def __init__(self, port: int, context: ssl.SSLContext) -> None:
        super().__init__(port, _Connection)
        self.context = context

    @property
    def address(self) -> str:
        """Where clients connect to."""
        return f"{HOST}:{self.port}"


class _Connection(socketserver.BaseRequestHandler):
    server: TlsFront

    def handle(self) -> None:
        # A client that speaks no TLS, or believes nothing, is gone at the handshake.
        with (
            contextlib.suppress(OSError),
            self.server.context.wrap_socket(self.request, server_side=True) as near,
            socket.create_connection(self.server.server_side) as far,
        ):
            while True:
                ready = [near] if near.pending() else select.select([near, far], [], [])[0]
                for side in ready:
                    data = side.recv(CHUNK_BYTES)
                    if not data:
                        return
                    (far if side is near else near).sendall(data)
