"""Whether a cluster that was joined is open to others, who could then run code on it as its owner."""

from __future__ import annotations

import ipaddress
import os
import sys
from collections.abc import Mapping
from typing import Any

from cluster.errors import ClusterError

_HEAD = {"node:__internal_head__": 0.001}  # a resource that Ray gives to the head node alone
_ASK_S = 30.0  # a worker has to be started for the question


def warn_if_open(address: str, info: Mapping[str, Any]) -> None:
    """One line on stderr if the cluster asks for no token, or nobody on its head node says whether it does.

    A cluster with a token asks for it at its dashboard too. Raises ClusterError if this process asks for one and the
    cluster does not: its workers bring none when they answer, and every actor would die.
    """
    mode = _head_mode()
    if mode == "token":
        return
    if mode and os.environ.get("RAY_AUTH_MODE") == "token":
        raise ClusterError(
            f"{address}: the Ray cluster asks for no token, and this process does, so that its workers could not "
            "answer; start every node with RAY_AUTH_MODE=token and the same token (docs/CLUSTER.md), or, where nobody "
            "else reaches it, set RAY_AUTH_MODE=disabled here"
        )
    what = "the Ray cluster asks for no token" if mode else "its head node did not say whether it asks for a token"
    text = f"{address}: {what}; without one, whoever reaches its ports can run code as you"
    url = str(info.get("webui_url") or "")
    if url and not is_loopback(url):
        text += f", and its dashboard listens at {url}"
    remedy = "start every node with RAY_AUTH_MODE=token and the same token (docs/CLUSTER.md)"
    sys.stderr.write(f"warning: {text}; {remedy}\n")


def is_loopback(host_port: str) -> bool:
    """Whether only this machine reaches the address."""
    host = host_port.rpartition(":")[0].strip("[]")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _head_mode() -> str:
    """The head node's own RAY_AUTH_MODE, `disabled` where it has none; empty if it does not answer.

    This process's says nothing: a cluster without a token lets in who brings one.
    """
    import ray

    def mode() -> str:
        return os.environ.get("RAY_AUTH_MODE", "disabled").lower()

    try:
        return str(ray.get(ray.remote(num_cpus=0, resources=_HEAD)(mode).remote(), timeout=_ASK_S))
    except ray.exceptions.GetTimeoutError:
        return ""
