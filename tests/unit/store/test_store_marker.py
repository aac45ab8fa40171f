"""A place is a store because its marker says so, and nothing is written where it doesn't."""

from __future__ import annotations

import platform
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from places import Somewhere
from stored import finished_store

from harvest.errors import ConfigError, InputError, StoreError
from harvest.store.commit import Store
from harvest.store.export import export
from harvest.store.gc import sweep
from harvest.store.key import unit_name
from harvest.store.sealed import seal
from harvest.store.verify import verify_store
from harvest.store.view import publish

UNIT = unit_name("answers", {"of": "a test"})

ACTS: dict[str, Callable[[Store], object]] = {
    "prepare": Store.prepare,
    "commit": lambda store: store.commit(UNIT, ".parquet", lambda path: path.write_bytes(b"x"), {}),
    "write_plan": lambda store: store.write_plan({"units": []}),
    "export to": lambda store: export(finished_store(Path(store.root).with_name("source")), store),
}
LOOKS: dict[str, Callable[[Store], object]] = {
    "check": Store.check,
    "verify": lambda store: verify_store(store.root),
    "gc": lambda store: sweep(store, 0, delete=True),
    "export from": lambda store: export(store, Store(f"{store.root}-copy")),
}


def test_the_marker_is_made_first_and_once(somewhere: Somewhere):
    store = Store(somewhere.root)
    assert store.prepare() == store
    assert somewhere.files.names() == ["store.json"]
    made = somewhere.files.read("store.json")
    store.prepare()
    store.check()
    assert somewhere.files.read("store.json") == made
    assert verify_store(store.root) == []


def _said(act: str, store: Store) -> str:
    try:
        found = {**ACTS, **LOOKS}[act](store)
    except (InputError, StoreError) as error:
        return str(error)
    assert act == "verify"
    return "; ".join(f"{one.path} {one.what}" for one in found)


@pytest.mark.parametrize("act", [*ACTS, *LOOKS])
@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ({"store.json": seal({"format": "value-harvest store", "layout": 99})}, "which is not value-harvest store 1;"),
        ({"store.json": seal({"format": "another", "layout": 1})}, "says another 1, which is not"),
        (
            {"thesis.tex": b"mine"},
            r"holds other files \(thesis.tex\) and no store.json; name|there is no store at|sees no store.json",
        ),
        ({"commits/x.json": b"mine"}, r"holds other files|store.json is missing|sees no store.json"),
        ({"store.json": b'{"digest":"'}, "store.json was changed"),
        ({"store.json": b""}, "store.json was changed"),
    ],
    ids=["version", "format", "foreign", "unmarked", "half", "empty"],
)
def test_what_is_no_store_of_this_layout_is_refused_and_left_alone(
    tmp_path: Path, act: str, content: dict[str, bytes], sentence: str
):
    root = tmp_path / "store"
    for name, data in content.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    said = _said(act, Store(root))
    assert re.search(sentence, said), said
    assert "\n" not in said
    left = {one.relative_to(root).as_posix(): one.read_bytes() for one in root.rglob("*") if one.is_file()}
    assert left == content
    assert not Path(f"{root}-copy").exists()


WRITES: dict[str, Callable[[Store], object]] = {
    "commit": ACTS["commit"],
    "write_plan": ACTS["write_plan"],
    "publish": lambda store: publish(store.place, "0" * 40, ".zarr", [], Path.touch),
}


@pytest.mark.parametrize("act", list(WRITES))
def test_a_store_that_is_gone_is_not_made_anew_by_who_writes_to_it(somewhere: Somewhere, act: str):
    store = Store(somewhere.root).prepare()
    somewhere.files.delete("store.json")
    with pytest.raises(StoreError, match=rf"is not there on {platform.node()}, .*is it mounted\?") as caught:
        WRITES[act](store)
    assert caught.value.ends_run
    assert "\n" not in str(caught.value)
    assert somewhere.files.names() == []


def test_a_foreign_prefix_is_refused(somewhere: Somewhere):
    somewhere.files.write("thesis.tex", b"mine")
    with pytest.raises(InputError, match=r"holds other files \(thesis.tex\)"):
        Store(somewhere.root).prepare()
    assert somewhere.files.names() == ["thesis.tex"]


def test_hidden_files_and_a_file_system_s_own_are_nobody_s(tmp_path: Path):
    (tmp_path / "lost+found").mkdir()
    (tmp_path / "lost+found" / "#1").touch()
    (tmp_path / ".snapshot").touch()
    assert verify_store(Store(tmp_path).prepare().root) == []


def test_a_place_that_cannot_be_made_is_a_setting_s_error(tmp_path: Path):
    (tmp_path / "file").touch()
    for name, why in (("file/store", "Not a directory"), ("a\0b", "null byte"), ("x" * 300, "File name too long")):
        with pytest.raises(ConfigError, match=rf"^store: '.*' cannot be written \(.*{why}\); choose another") as caught:
            Store(tmp_path / name).prepare()
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "url", ["gs://b/x", "s3://", "s3://b", "s3://bucket/../x", "s3://bucket/%2e", "s3://Bucket", "s3://bucket/a//b"]
)
def test_a_url_that_is_no_bucket_is_refused(url: str):
    with pytest.raises(InputError, match=r"^store .*s3://BUCKET/PREFIX|^store .*write it out") as caught:
        Store(url)
    assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="a URL that was taken for a path"):
        Store(Path("s3://bucket/x"))
    with pytest.raises(InputError, match="is a bucket, which keeps what it has answered for"):
        Store("s3://bucket/x", fsync=True)


MAKER = "import sys; from harvest.store.commit import Store; sys.stdin.readline(); Store(sys.argv[1]).prepare()"


def test_racing_processes_make_one_marker(somewhere: Somewhere):
    racers = [
        subprocess.Popen([sys.executable, "-c", MAKER, somewhere.root], stdin=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    for racer in racers:
        racer.communicate("\n", timeout=60)
    assert [racer.returncode for racer in racers] == [0] * 4
    assert somewhere.files.names() == ["store.json"]
