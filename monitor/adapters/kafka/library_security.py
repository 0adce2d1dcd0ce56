"""What kafka-python hides of a secured broker's answers, got out of it. No other file of the security uses its insides.

Written against kafka-python 3.0.12. Tests fail when the library no longer does what is told here.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from kafka.errors import KafkaError
from kafka.net.inet import KafkaNetSocket
from kafka.net.manager import KafkaConnectionManager
from kafka.net.selector import NetworkSelector

WOULD_BLOCK = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)
# The first answers are small. A TLS listener's alert to a client without TLS, read as a length, is larger: 352 MB.
MAX_FIRST_ANSWER_BYTES: Final = 100_000_000


class _LastWord:
    """Lets the library read what came before the end of a connection.

    A broker says why it refuses a password, and hangs up. The library reads until nothing is left; where that ends with
    the end of the connection, it drops all that it has just read, and reports a mere disconnection (transport.py,
    ``_read_from_sock``). So the end is told at the next reading, if anything was read before it.
    """

    def __init__(self) -> None:
        self._has_read = False
        self._ended: OSError | None = None

    def after(self, data: bytes) -> bytes:
        """Return what was read; an end is put off if anything was read before it."""
        if not data and self._has_read:
            self._has_read = False
            raise BlockingIOError
        self._has_read = bool(data)
        return data

    def failed(self, error: OSError) -> OSError:
        """Return what to raise for an error while reading."""
        if isinstance(error, WOULD_BLOCK):
            self._has_read = False
        elif self._has_read:
            self._has_read, self._ended = False, error
            return BlockingIOError()
        return error

    def raise_ended(self) -> None:
        """Raise the error that was put off."""
        if self._ended is not None:
            raise self._ended


class PlainSocket(socket.socket):
    """A socket whose last data the library gets to see."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - the socket's own
        super().__init__(*args, **kwargs)
        self._last_word = _LastWord()

    def __del__(self) -> None:
        """Close without a warning: a client that is closed while it connects leaves its socket behind."""
        self.close()

    def recv(self, *args: Any) -> bytes:  # noqa: ANN401
        """Return what has arrived, and the end only at a call of its own."""
        self._last_word.raise_ended()
        try:
            return self._last_word.after(super().recv(*args))
        except OSError as error:
            raise self._last_word.failed(error) from None


class TlsSocket(ssl.SSLSocket):
    """The same over TLS."""

    _last_word: _LastWord | None = None  # made by a class method of ssl's, which calls no __init__

    def __del__(self) -> None:
        """Close without a warning, see :class:`PlainSocket`."""
        self.close()

    def recv(self, *args: Any) -> bytes:  # noqa: ANN401
        """Return what has arrived, and the end only at a call of its own."""
        word = self._last_word = self._last_word or _LastWord()
        word.raise_ended()
        try:
            return word.after(super().recv(*args))
        except OSError as error:
            raise word.failed(error) from None

    def do_handshake(self, block: bool = False) -> None:  # noqa: FBT001, FBT002 - the socket's own
        """Shake hands; a socket that got no further is closed, which the library leaves to the garbage collector."""
        try:
            super().do_handshake(block)
        except WOULD_BLOCK:
            raise
        except OSError:
            self.close()
            raise


class ClosingSocket(KafkaNetSocket):  # type: ignore[misc] # untyped library
    """How clients connect: as they do, but a socket that got no connection is closed at once.

    kafka-python leaves it to the garbage collector, and one a second and client while a broker is away. It asks for
    this class by the scheme of ``proxy_url``; no proxy is involved.
    """

    SCHEMES = ("direct",)

    def socket(
        self,
        family: int = socket.AF_UNSPEC,
        sock_type: int = socket.SOCK_STREAM,
        proto: int = socket.IPPROTO_TCP,
    ) -> PlainSocket:
        """Return a socket that is not connected yet."""
        return PlainSocket(family, sock_type, proto)

    async def sock_connect(
        self, net: object, sock: PlainSocket, sockaddr: object, timeout_at: float | None = None
    ) -> PlainSocket:
        """Return the socket, connected to ``sockaddr``."""
        try:
            connected: PlainSocket = await super().sock_connect(net, sock, sockaddr, timeout_at=timeout_at)
        except BaseException:  # also when its client is closed meanwhile
            sock.close()
            raise
        return connected


@dataclass(frozen=True, slots=True)
class Broker:
    """A broker as the cluster advertises it: where clients are to connect to."""

    number: int
    host: str
    port: int


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of connecting to one server.

    Attributes:
        brokers: the cluster's, if all went well.
        error: what went wrong.
        connected: the server answered as Kafka, and took the user if there is one; what it refused came after that.
    """

    brokers: Sequence[Broker] = ()
    error: BaseException | None = None
    connected: bool = False


def ask(server: str, options: Mapping[str, Any], timeout_s: float) -> Answer:
    """Connect to one server, say who is there, and ask for the brokers.

    A client does the same when it is made, but tries again whatever is wrong, and tells in the end of a timeout alone
    (manager.py, ``_do_bootstrap``). So here the first attempt of such a client is made, and its error is kept.

    Args:
        server: host:port.
        options: of the clients, see :func:`~monitor.adapters.kafka.connection.client_options`.
        timeout_s: how long this may take.
    """
    configs = {**options, "bootstrap_servers": [server], "receive_message_max_bytes": MAX_FIRST_ANSWER_BYTES}
    net = NetworkSelector(**configs)
    manager = KafkaConnectionManager(net, **configs)
    milliseconds = max(1, round(timeout_s * 1000))
    connected = False

    async def connect() -> list[Any]:
        nonlocal connected
        node = manager.cluster.bootstrap_brokers()[0].node_id
        connection = manager.get_connection(
            node, timeout_ms=milliseconds, pop_on_close=False, refresh_metadata_on_err=False
        )
        await manager.wait_for(connection.init_future, milliseconds)
        connected = True
        await manager.wait_for(manager.call_soon(manager.cluster.refresh_metadata, node), milliseconds)
        return list(manager.cluster.brokers())

    try:
        found = net.run(connect)
    except (KafkaError, OSError, ValueError) as error:  # ValueError: a SCRAM server that does not know the password
        return Answer(error=error, connected=connected)
    finally:
        manager.close()
        net.close()
    return Answer([Broker(each.node_id, each.host, each.port) for each in found], connected=True)
