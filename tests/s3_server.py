"""An S3 service on 127.0.0.1 (moto), which answers one request at a time: run as `s3_server.py PORT`.

moto looks whether a key is there and writes it in two steps, so threads of one server could both create it; S3 itself
promises that one does.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterable
from typing import Any

from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import run_simple

_one_at_a_time = threading.Lock()
_app = DomainDispatcherApplication(create_backend_app)


def serve(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    with _one_at_a_time:
        return list(_app(environ, start_response))


if __name__ == "__main__":
    run_simple("127.0.0.1", int(sys.argv[1]), serve, threaded=True)
