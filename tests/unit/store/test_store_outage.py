"""A bucket that goes away ends the run in one sentence, loses nothing, and the next run completes."""

from __future__ import annotations

import pickle
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from places import BUCKET, S3, new_prefix, serving
from stored import commit_moments, finished_store, random_questions

from harvest.errors import InputError, StoreError
from harvest.store import bucket
from harvest.store.commit import Store
from harvest.store.gc import sweep
from harvest.store.key import unit_name
from harvest.store.merge import merge_moments
from harvest.store.reader import open_merged
from harvest.store.verify import orphans, verify_store

UNIT = unit_name("answers", {"of": "a test"})


@pytest.fixture
def own_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3]:
    """A server that a test may stop, and clients that give up soon."""
    monkeypatch.setattr(bucket, "RETRY_S", 0.5)
    monkeypatch.setattr(bucket, "REQUEST_S", 1)
    with serving(tmp_path) as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        yield server


def _unit(number: int) -> str:
    return unit_name("moments", {"name": str(number)})


def _commit(store: Store, number: int) -> str:
    return commit_moments(store, str(number), "g", random_questions(number, [2])).unit


OUTAGES = {
    "closed": ((signal.SIGUSR1, signal.SIGUSR2), "cannot be reached"),
    "stopped": ((signal.SIGSTOP, signal.SIGCONT), "cannot be reached .it does not answer in time"),
}


@pytest.mark.parametrize("outage", list(OUTAGES))
def test_an_outage_in_the_middle_of_commits_loses_nothing(own_server: S3, outage: str):
    (stop, go_on), sentence = OUTAGES[outage]
    store = Store(new_prefix(own_server).root).prepare()
    committed: list[str] = []
    caught: list[BaseException] = []

    def run() -> None:
        try:
            committed.extend(_commit(store, number) for number in range(1000))
        except StoreError as error:
            caught.append(error)

    runner = threading.Thread(target=run)
    runner.start()
    while len(store.committed(map(_unit, range(9)))) < 3:
        assert runner.is_alive(), caught
    own_server.process.send_signal(stop)
    runner.join(60)
    [error] = caught
    assert error.ends_run
    assert sentence.split(".")[0] in str(error)
    assert "\n" not in str(error)
    assert len(str(error)) < 400
    assert str(pickle.loads(pickle.dumps(error))) == str(error)
    for act in (lambda: store.find(UNIT), lambda: store.committed([UNIT]), store.prepare):
        with pytest.raises(StoreError, match=f"{sentence}.*; what is committed is safe: look at AWS_ENDPOINT_URL"):
            act()
    own_server.process.send_signal(go_on)
    bucket._client.cache_clear()
    bucket.REQUEST_S = bucket.RETRY_S = 30
    assert set(committed) <= store.committed(committed)
    units = [_commit(store, number) for number in range(len(committed) + 2)]
    assert units[: len(committed)] == committed
    sweep(store, 0, delete=True)
    assert verify_store(store.root) == []
    assert orphans(store.root) == []
    with open_merged(merge_moments(store, units, {})) as merged:
        assert int(merged["token_count"].sum()) == 2 * len(units)


def _said(store: Store) -> str:
    with pytest.raises(StoreError) as caught:
        store.prepare()
    assert caught.value.ends_run
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_what_is_wrong_with_the_set_up_is_said_in_one_sentence(s3: S3, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(bucket, "RETRY_S", 0.5)
    said = _said(Store("s3://no-such-bucket/x"))
    assert said == (
        "store s3://no-such-bucket/x: there is no bucket no-such-bucket; create it, or set another `store:`"
    )
    for act in (lambda: Store("s3://no-such-bucket/x").find(UNIT), lambda: verify_store("s3://no-such-bucket/x")):
        with pytest.raises(StoreError, match="there is no bucket no-such-bucket; create it"):
            act()
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    assert "the bucket cannot be reached (" in _said(Store(f"s3://{BUCKET}/x"))
    monkeypatch.setenv("AWS_ENDPOINT_URL", "nonsense")
    with pytest.raises(InputError, match=r"AWS_ENDPOINT_URL 'nonsense': is not http\(s\)://HOST; set it"):
        Store(f"s3://{BUCKET}/x")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    # so that nothing outside this machine is asked for them
    monkeypatch.setenv("AWS_METADATA_ENDPOINT", "http://127.0.0.1:1/latest/api/token")
    bucket._client.cache_clear()
    assert "there are no credentials; set AWS_ACCESS_KEY_ID" in _said(Store(f"s3://{BUCKET}/y"))
    bucket._client.cache_clear()


def test_endpoint_and_region_travel_and_credentials_do_not(s3: S3, monkeypatch: pytest.MonkeyPatch):
    store = finished_store(new_prefix(s3).root)
    store.place.read("store.json")
    data = pickle.dumps(store)
    assert s3.environment["AWS_ENDPOINT_URL"].encode() in data
    assert b"us-east-1" in data
    for secret in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        assert b'"' + s3.environment[secret].encode() not in data
        assert (b"\x8c" + bytes([len(s3.environment[secret])]) + s3.environment[secret].encode()) not in data
    for name in ("AWS_ENDPOINT_URL", "AWS_REGION"):
        monkeypatch.delenv(name)
    assert pickle.loads(data).commits("answers") == store.commits("answers")
