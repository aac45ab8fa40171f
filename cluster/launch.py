"""Connects this process to Ray: a private one on this machine, or a cluster that runs already.

Ray is imported only here, in `pool`, and only when it is needed: who merely imports this package pays nothing.
"""

from __future__ import annotations

import os
import re
import secrets
import sys
from pathlib import Path
from typing import Any
from uuid import uuid4

from cluster.errors import ClusterError
from cluster.exposure import warn_if_open

_OBJECT_STORE_BYTES = 200 * 2**20  # payloads and receipts are small; Ray would take 30 % of the memory

PRIVATE = {
    # whatever the platform: "no cluster" makes Ray listen on the loopback address alone
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    # and whoever else is on this machine cannot run code through its ports
    "RAY_AUTH_MODE": "token",
}
# what a private Ray needs in the environment when it is imported

_WHERE = "RAY_AUTH_TOKEN, RAY_AUTH_TOKEN_PATH or ~/.ray/auth_token"

_ADDRESS = re.compile(r"auto|ray://.*|(\S+):(\d{1,5})")

_address: str | None = None
# what this process is connected to, while it is
_session_folder = ""


def connect(
    address: str | None = None,
    num_cpus: int | None = None,
    *,
    debug: bool = False,
    dashboard_host: str | None = None,
) -> None:
    """Connects to Ray; a second call with the same address does nothing.

    Without an address it starts a private Ray that dies with this process, even if that is killed; it dies with the
    thread that called, too, so call from the main thread. `num_cpus` is what the private Ray hands out (default: this
    machine's cores), and `dashboard_host` where its dashboard listens (default: it has none). `debug` shows the
    workers' output. With an address, one line on stderr says so if the cluster is open to others.

    Raises ClusterError if the address is none, or nothing answers there, or it has another token, none, another Ray
    or another Python; if this process is connected to another one; if Ray was imported before without PRIVATE; or for
    a dashboard that is not installed.
    """
    global _address, _session_folder
    if is_connected():
        if address != _address:
            raise ClusterError(f"connected to {_address or 'a private Ray'} already: disconnect before {address}")
        return
    _set_environment(debug)
    info = _start_private(num_cpus, dashboard_host, debug) if address is None else _join(address, debug)
    _address, _session_folder = address, info["session_dir"]
    if address is not None:
        try:
            warn_if_open(address, info)
        except BaseException:
            disconnect()
            raise


def disconnect() -> None:
    """Leaves Ray; a private one stops. Does nothing if there is no connection."""
    global _address  # noqa: PLW0603 - Ray itself is one per process
    if is_connected():
        import ray

        ray.shutdown()
    _address = None


def is_address(address: str) -> bool:
    """Whether it has the form of a cluster's address; Ray Client's has, and is refused where it is joined."""
    found = _ADDRESS.fullmatch(address)
    return found is not None and (found[2] is None or 1 <= int(found[2]) <= 65535)


def is_connected() -> bool:
    """Whether this process is connected to Ray."""
    if "ray" not in sys.modules:
        return False  # and it must not be imported before the environment is set
    import ray

    return bool(ray.is_initialized())


def log_folder() -> str:
    """Where the logs of this connection's workers are, on the machine each ran on."""
    return f"{_session_folder}/logs"


def _start_private(num_cpus: int | None, dashboard_host: str | None, debug: bool) -> dict[str, Any]:
    if "ray" in sys.modules and not PRIVATE.items() <= os.environ.items():
        wanted = " ".join(f"{name}={value}" for name, value in PRIVATE.items())
        raise ClusterError(
            "Ray was imported before this process connected to it (vLLM does that), and would be open to others; "
            f"connect first, or set {wanted} in the environment"
        )
    os.environ.update(PRIVATE)
    os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    import ray

    if dashboard_host is not None:
        _check_dashboard()
    context = ray.init(
        "local",  # never the cluster of another process on this machine
        num_cpus=num_cpus,
        object_store_memory=_OBJECT_STORE_BYTES,
        include_dashboard=dashboard_host is not None,
        **({} if dashboard_host is None else {"dashboard_host": dashboard_host}),
        # a killed worker's own children (an engine's processes) go with it, and free their memory
        _system_config={"process_group_cleanup_enabled": True},
        **_options(debug),
    )
    return dict(context.address_info)


def _check_dashboard() -> None:
    from ray._private.utils import get_dashboard_dependency_error

    error = get_dashboard_dependency_error()
    if error is not None:
        import ray

        raise ClusterError(
            f"cluster.dashboard: Ray's dashboard is not installed ({error}); run `pip install "
            f'"ray[default]=={ray.__version__}"`, or leave it out'
        )


def _join(address: str, debug: bool) -> dict[str, Any]:
    if not is_address(address):
        raise ClusterError(
            f"cluster.address: {address!r} is no address of a Ray cluster; give auto, or HOST:PORT such as "
            "10.0.0.1:6379, or leave it out to run on this machine alone"
        )
    if address.startswith("ray://"):
        raise ClusterError(
            f"{address}: is Ray Client's address, through which no engine can be run; start the study on a node of the "
            "cluster, with the address auto"
        )
    if "ray" not in sys.modules and "RAY_AUTH_MODE" not in os.environ and _has_token():
        # Ray itself looks for a token only where it starts a cluster
        os.environ["RAY_AUTH_MODE"] = "token"
    import ray

    try:
        return dict(ray.init(address, **_options(debug)).address_info)
    except ConnectionError as error:
        with_it = "takes the token" if os.environ.get("RAY_AUTH_MODE") == "token" else "lets in who brings no token"
        raise ClusterError(
            f"no Ray cluster answers at {address} and {with_it}: start one with `ray start --head`, give its token in "
            f"{_WHERE}, or leave the address out to run on this machine alone"
        ) from error
    except ray.exceptions.AuthenticationError as error:
        raise ClusterError(
            f"{address}: RAY_AUTH_MODE is token and there is none; put the cluster's token in {_WHERE}"
        ) from error
    except RuntimeError as error:
        if "Version mismatch" not in str(error):
            raise
        raise ClusterError(
            f"{address}: {' '.join(str(error).split())}; start the study from the environment that the cluster runs in"
        ) from error


def _has_token() -> bool:
    return (
        bool(os.environ.get("RAY_AUTH_TOKEN") or os.environ.get("RAY_AUTH_TOKEN_PATH"))
        or (Path.home() / ".ray" / "auth_token").is_file()
    )


def _options(debug: bool) -> dict[str, Any]:
    return {
        "namespace": f"pool-{uuid4()}",
        "log_to_driver": debug,
        "logging_level": "info" if debug else "error",
    }


def _set_environment(debug: bool) -> None:
    """What Ray reads from the environment, most of it while it is imported, and hands to its processes."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    # under `uv run` Ray would start its workers through uv, which resolves, and may download
    os.environ["RAY_ENABLE_UV_RUN_RUNTIME_ENV"] = "0"
    if not debug:
        # Ray prints a paragraph on stdout for every lost worker, whatever its log level; the pool says it in a line
        os.environ["RAY_DEDUP_LOGS_SKIP_REGEX"] = "."
