"""Serves Prometheus' metrics, and at ``/ready`` whether the program can do its work."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

from prometheus_client import start_http_server

from monitor.settings import MetricsSettings
from schemas.errors import ConfigurationError

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIEnvironment


@contextlib.contextmanager
def serving_metrics(settings: MetricsSettings, ready: Callable[[], bool]) -> Iterator[None]:
    """Within, the metrics and ``/ready`` are served at the settings' host and port; port 0: nothing listens.

    Args:
        settings: host and port.
        ready: asked by the server's threads; then ``/ready`` answers 200, else 503.

    Raises:
        ConfigurationError: the port cannot be listened on.
    """
    if settings.port == 0:
        yield
        return
    try:
        server, thread = start_http_server(settings.port, settings.host)
    except OSError as error:
        key, problem = "metrics.port", f"cannot listen on {settings.host}: {error.strerror or error}"
        remedy = "Choose a free port, or 0 for no metrics."
        raise ConfigurationError(key, settings.port, problem, remedy) from error
    metrics = server.get_app()
    assert metrics is not None

    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if environ.get("PATH_INFO") != "/ready":
            return metrics(environ, start_response)
        is_ready = ready()
        start_response("200 OK" if is_ready else "503 Service Unavailable", [("Content-Type", "text/plain")])
        return [b"ready\n" if is_ready else b"not ready\n"]

    server.set_app(app)
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
