"""What an operating system says against a store is one sentence that names the remedy, and it ends the run."""

from __future__ import annotations

import errno
import os
import pickle
import platform
from pathlib import Path

import pytest

from harvest.errors import StoreError
from harvest.store.commit import Store
from harvest.store.key import unit_name

UNIT = unit_name("answers", {"of": "a test"})
SAID = {
    errno.ENOSPC: "no space left on HOST; what is committed is safe: free some space and run again",
    errno.EDQUOT: "no space left on HOST; what is committed is safe: free some space and run again",
    errno.EACCES: r"Permission denied \(.*\); make it usable on HOST or set another `store:`",
    errno.EROFS: r"Read-only file system \(.*\); make it usable on HOST or set another `store:`",
    errno.ESTALE: r"Stale file handle \(.*\); what is committed is safe: mount the file system on HOST and run again",
    errno.EIO: r"Input/output error \(.*\); what is committed is safe: mount the file system on HOST and run again",
    errno.ENOTSUP: r"Operation not supported \(.*\); its file system has no hard links: set another `store:`",
}


@pytest.mark.parametrize("code", list(SAID), ids=errno.errorcode.get)
@pytest.mark.parametrize("at", ["write", "link"])
def test_every_refusal_is_a_sentence_and_what_was_committed_is_kept(
    tmp_path: Path, code: int, at: str, monkeypatch: pytest.MonkeyPatch
):
    store, other = Store(tmp_path).prepare(), unit_name("answers", {"of": "another"})
    kept = store.commit(other, ".parquet", lambda path: path.write_bytes(b"kept"), {})

    def write(path: Path) -> None:
        path.write_bytes(b"abc")
        if at == "write":
            raise OSError(code, os.strerror(code), str(path))

    def link(source: Path, target: Path) -> None:
        raise OSError(code, os.strerror(code), str(target))

    said = SAID[code].replace("HOST", platform.node())
    with monkeypatch.context() as refusing:
        if at == "link":
            refusing.setattr(os, "link", link)
        with pytest.raises(StoreError, match=f"^store {tmp_path}: {said}$") as caught:
            store.commit(UNIT, ".parquet", write, {})
    assert caught.value.ends_run
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)
    assert store.find(UNIT) is None
    assert store.open(kept).read() == b"kept"
    again = store.commit(UNIT, ".parquet", lambda path: path.write_bytes(b"again"), {})
    assert store.open(again).read() == b"again"


def test_a_file_that_is_not_there_is_named(tmp_path: Path):
    place = Store(tmp_path).prepare().place
    (tmp_path / "folder").mkdir()
    for key in ("gone", "folder"):
        with pytest.raises(FileNotFoundError) as caught:
            place.read(key)
        assert caught.value.filename == str(tmp_path / key)
