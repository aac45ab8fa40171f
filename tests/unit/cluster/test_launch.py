"""Which addresses of a cluster are taken; no Ray."""

from __future__ import annotations

import pytest

from cluster.errors import ClusterError
from cluster.launch import connect, is_address


@pytest.mark.parametrize("address", ["10.0.0.1", "nonsense", "", "host:abc", "host:0", "host:65536", ":6379", "local"])
def test_an_address_that_cannot_be_one_is_refused_in_a_sentence(address: str) -> None:
    with pytest.raises(
        ClusterError, match=r"cluster\.address: .* is no address of a Ray cluster; give auto, or HOST:PORT"
    ):
        connect(address)


@pytest.mark.parametrize("address", ["auto", "10.0.0.1:6379", "head.lan:6379", "[::1]:6379", "ray://head:10001"])
def test_what_has_the_form_of_an_address_is_looked_for(address: str) -> None:
    assert is_address(address)
