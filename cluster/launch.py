"""Connects this process to Ray: a private one on this machine, or a cluster that runs already.

Ray is imported only here, in `pool`, and only when it is needed: who merely imports this package pays nothing.
"""

from __future__ import annotations

import os
import secrets
import sys
from typing import Any
from uuid import uuid4

from cluster.errors import ClusterError

_OBJECT_STORE_BYTES = 200 * 2**20  # payloads and receipts are small; Ray would take 30 % of the memory

PRIVATE = {
    # whatever the platform: "no cluster" makes Ray listen on the loopback address alone
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    # and whoever else is on this machine cannot run code through its ports
    "RAY_AUTH_MODE": "token",
}
# what a private Ray needs in the environment when it is imported

_address: str | None = None
# what this process is connected to, while it is
_session_folder = ""


def connect(address: str | None = None, num_cpus: int | None = None, *, debug: bool = False) -> None:
    """Connects to Ray; a second call with the same address does nothing.

    Without an address it starts a private Ray that dies with this process, even if that is killed; it dies with the
    thread that called, too, so call from the main thread. `num_cpus` is what the private Ray hands out (default: this
    machine's cores). `debug` shows the workers' output. Raises ClusterError if nothing answers at the address, if
    this process is connected to another one, or if Ray was imported before without PRIVATE.
    """
    global _address, _session_folder
    if is_connected():
        if address != _address:
            raise ClusterError(f"connected to {_address or 'a private Ray'} already: disconnect before {address}")
        return
    _set_environment(debug)
    info = _start_private(num_cpus, debug) if address is None else _join(address, debug)
    _address, _session_folder = address, info["session_dir"]


def disconnect() -> None:
    """Leaves Ray; a private one stops. Does nothing if there is no connection."""
    global _address  # noqa: PLW0603 - Ray itself is one per process
    if is_connected():
        import ray

        ray.shutdown()
    _address = None


def is_connected() -> bool:
    """Whether this process is connected to Ray."""
    if "ray" not in sys.modules:
        return False  # and it must not be imported before the environment is set
    import ray

    return bool(ray.is_initialized())


def num_gpus() -> float:
    """The GPUs of all machines together; 0 without a connection."""
    if not is_connected():
        return 0.0
    import ray

    return float(ray.cluster_resources().get("GPU", 0.0))


def log_folder() -> str:
    """Where the logs of this connection's workers are, on the machine each ran on."""
    return f"{_session_folder}/logs"


def _start_private(num_cpus: int | None, debug: bool) -> dict[str, Any]:
    if "ray" in sys.modules and not PRIVATE.items() <= os.environ.items():
        wanted = " ".join(f"{name}={value}" for name, value in PRIVATE.items())
        raise ClusterError(
            "Ray was imported before this process connected to it (vLLM does that), and would be open to others; "
            f"connect first, or set {wanted} in the environment"
        )
    os.environ.update(PRIVATE)
    os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    import ray

    context = ray.init(
        "local",  # never the cluster of another process on this machine
        num_cpus=num_cpus,
        object_store_memory=_OBJECT_STORE_BYTES,
        include_dashboard=False,
        # a killed worker's own children (an engine's processes) go with it, and free their memory
        _system_config={"process_group_cleanup_enabled": True},
        **_options(debug),
    )
    return dict(context.address_info)


def _join(address: str, debug: bool) -> dict[str, Any]:
    import ray

    try:
        return dict(ray.init(address, **_options(debug)).address_info)
    except ConnectionError as error:
        raise ClusterError(
            f"no Ray cluster answers at {address}: start one with `ray start --head`, or leave the address out to run "
            "on this machine alone"
        ) from error


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
