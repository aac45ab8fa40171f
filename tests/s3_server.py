"""An S3 service on 127.0.0.1 (moto), which answers one request at a time: run as `s3_server.py PORT`.

moto looks whether a key is there and writes it in two steps, so threads of one server could both create it; S3 itself
promises that one does. SIGUSR1 closes the port and SIGUSR2 opens it again, with all that was stored.
"""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterable
from typing import Any

from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server

_one_at_a_time = threading.Lock()
_app = DomainDispatcherApplication(create_backend_app)


def serve(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    with _one_at_a_time:
        return list(_app(environ, start_response))


if __name__ == "__main__":
    # before a thread is started: it inherits the mask
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1, signal.SIGUSR2})
    while True:
        server = make_server("127.0.0.1", int(sys.argv[1]), serve, threaded=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        signal.sigwait({signal.SIGUSR1})
        server.shutdown()
        server.server_close()
        signal.sigwait({signal.SIGUSR2})
