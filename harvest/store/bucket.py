"""A store in a bucket, through the S3 protocol.

A conditional put is the exclusive creation. Endpoint and region are taken from the environment where the store is
named, and travel with it; credentials come from the environment of whoever uses it.
"""

from __future__ import annotations

import os
import re
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any, cast

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, GenericError, PreconditionError
from obstore.store import S3Store

from harvest.errors import InputError, StoreError
from harvest.store.outage import sentence
from harvest.store.place import PIECE_BYTES, Entry, in_parallel
from harvest.store.tree import File

CONNECT_S, REQUEST_S, RETRY_S = 5, 60, 180
# a request of 60 s carries 16 MiB at 0.3 MB/s; an outage that outlasts the retries ends the run
PART_BYTES = 16 << 20
_URL = re.compile(r"s3://([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])(?:/(.*))?")


def bucket_at(url: str) -> Bucket:
    """The bucket and prefix of a URL, with the endpoint and region of this environment.

    Raises InputError unless it is s3://BUCKET/PREFIX.
    """
    found = _URL.fullmatch(url.rstrip("/"))
    parts = (found[2] or "").split("/") if found else []
    if not found or (parts != [""] and not all(re.fullmatch(r"[\w.=+-]+", one, re.ASCII) for one in parts)):
        raise InputError(f"store {url!r}: is neither a path nor s3://BUCKET/PREFIX of letters, digits and ._=+-")
    if {".", ".."} & set(parts):
        raise InputError(f"store {url!r}: a prefix has no . or ..; write it out")
    environment = os.environ.get
    endpoint = environment("AWS_ENDPOINT_URL_S3") or environment("AWS_ENDPOINT_URL")
    # the client library panics on it
    if endpoint and not re.match(r"https?://[^/]", endpoint):
        raise InputError(f"AWS_ENDPOINT_URL {endpoint!r}: is not http(s)://HOST; set it, or unset it for AWS itself")
    return Bucket(url.rstrip("/"), endpoint, environment("AWS_REGION") or environment("AWS_DEFAULT_REGION"))


@dataclass(frozen=True)
class Bucket:
    """A bucket, which must be there, and a prefix in it."""

    root: str
    endpoint: str | None
    region: str | None

    def at(self, key: str) -> str:
        return f"{self.root}/{key}" if key else self.root

    @property
    def _client(self) -> S3Store:
        return _client(self.root, self.endpoint, self.region, RETRY_S, REQUEST_S)

    def read(self, key: str) -> bytes:
        with self._told():
            return obstore.get(self._client, key).bytes().to_bytes()

    def stream(self, key: str) -> tuple[str, Iterator[bytes]]:
        with self._told():
            found = obstore.get(self._client, key)
            return str(found.meta["e_tag"]), self._pieces(found)

    def _pieces(self, found: Any) -> Iterator[bytes]:
        with self._told():
            yield from map(bytes, found.stream(min_chunk_size=PIECE_BYTES))

    def read_range(self, key: str, start: int, stop: int, stamp: str) -> bytes | None:
        with self._told():
            try:
                found = obstore.get(self._client, key, options={"range": (start, stop), "if_match": stamp})
                return found.bytes().to_bytes()
            except PreconditionError:
                return None

    def exists(self, key: str) -> bool:
        with self._told():
            try:
                obstore.head(self._client, key)
            except FileNotFoundError:
                return False
            return True

    def names(self) -> list[str]:
        with self._told():
            found = obstore.list_with_delimiter(self._client)
        return sorted([*found["common_prefixes"], *(one["path"] for one in found["objects"])])

    def list(self, prefix: str) -> list[Entry]:
        with self._told():
            found = [one for page in obstore.list(self._client, prefix or None) for one in page]
        return sorted(Entry(one["path"], one["size"], one["last_modified"].timestamp()) for one in found)

    def create(self, key: str, data: bytes) -> bool:
        give_up = time.monotonic() + RETRY_S
        with self._told():
            for tries_left in (2, 1, 0):
                try:
                    obstore.put(self._client, key, data, mode="create")
                except AlreadyExistsError:
                    break
                except GenericError:
                    # the client doesn't repeat it, for it could have been done: if it was, the next try sees it
                    if not tries_left or time.monotonic() > give_up:
                        raise
                else:
                    return True
        return self.read(key) == data

    def put(self, key: str, data: bytes) -> None:
        with self._told():
            obstore.put(self._client, key, data, chunk_size=PART_BYTES)

    @contextmanager
    def staged(self, key: str) -> Iterator[Path]:
        try:
            with tempfile.TemporaryDirectory(prefix="value-harvest-") as folder:
                yield Path(folder, key.rpartition("/")[2])
        except OSError as error:
            # S3 has no part in it yet
            raise StoreError(
                f"store {self.root}: {error.strerror or error} in {tempfile.gettempdir()}, where a unit is written "
                "before it is sent; what is committed is safe: make room there, or set TMPDIR, and run again"
            ) from error

    def land(self, path: Path, key: str, files: Sequence[File]) -> None:
        def send(file: File) -> None:
            with self._told():
                obstore.put(self._client, f"{key}/{file.name}".rstrip("/"), path / file.name, chunk_size=PART_BYTES)

        in_parallel(send, files)

    def settle(self, key: str) -> None:
        """A bucket has what it has answered for."""

    def remove(self, key: str) -> None:
        with self._told():
            obstore.delete(self._client, [key, *(one.key for one in self.list(key))])

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError as error:
            if "NoSuchBucket" in str(error):
                raise StoreError(sentence(self.root, str(error))) from None
            raise
        except BaseError as error:
            # its own text is a screen of debug output
            raise StoreError(sentence(self.root, str(error))) from None


@cache
def _client(root: str, endpoint: str | None, region: str | None, retry_s: float, request_s: float) -> S3Store:
    name, _, prefix = root.removeprefix("s3://").partition("/")
    settings: dict[str, Any] = {"endpoint": endpoint, "region": region}
    return S3Store(
        name,
        prefix=prefix or None,
        client_options={
            "allow_http": (endpoint or "").startswith("http://"),
            "connect_timeout": timedelta(seconds=CONNECT_S),
            "timeout": timedelta(seconds=request_s),
        },
        retry_config={
            "max_retries": 20,
            "retry_timeout": timedelta(seconds=retry_s),
            "backoff": {"init_backoff": timedelta(seconds=0.1), "max_backoff": timedelta(seconds=15), "base": 2},
        },
        **cast("Any", {name: value for name, value in settings.items() if value}),
    )
