"""A node that cannot import what an actor is made of, told from what Ray says of it."""

from __future__ import annotations

import re

from cluster.actor import Fault

_MODULE = re.compile(r"No module named '?([\w.]+)")
_IP = re.compile(r"\bip=([\w.:]+)")


def missing_module(error: Exception) -> Fault | None:
    """The fault of a node without a module that came with an actor's class or worker; None for any other error."""
    text = str(error)
    module, node = _MODULE.search(text), _IP.search(text)
    if module is None or node is None:
        return None
    return Fault(
        "ModuleNotFoundError",
        f"node {node[1]} has no module {module[1]}; install there what this process has, in the environment that Ray "
        "runs in, and restart Ray there",
        False,
        None,
    )
