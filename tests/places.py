"""The two kinds of place that a store can be in, and their files as an outsider sees them: by path, or by boto3."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import boto3

BUCKET = "units"
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_REGION": "us-east-1"}


@dataclass
class S3:
    """A server process, and what its clients need in their environment."""

    port: int
    process: subprocess.Popen[bytes]
    log: Path

    @property
    def environment(self) -> dict[str, str]:
        return {**CREDENTIALS, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.port}"}

    @property
    def client(self) -> Any:
        names = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION", "AWS_ENDPOINT_URL")
        key, secret, region, url = (self.environment[name] for name in names)
        return boto3.client(
            "s3", endpoint_url=url, region_name=region, aws_access_key_id=key, aws_secret_access_key=secret
        )


@contextmanager
def serving(folder: Path) -> Iterator[S3]:
    """A server with an empty bucket, on a port of its own; it is stopped at the end."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = folder / "s3.log"
    with log.open("wb") as output:
        command = [sys.executable, str(Path(__file__).with_name("s3_server.py")), str(port)]
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
    try:
        _wait(port, process, log)
        server = S3(port, process, log)
        server.client.create_bucket(Bucket=BUCKET)
        yield server
    finally:
        # a stopped process takes no other signal
        process.send_signal(signal.SIGCONT)
        process.terminate()
        process.wait(20)


def _wait(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise AssertionError(f"the S3 server did not start: {log.read_text()}")


class FolderFiles:
    def __init__(self, root: str) -> None:
        self._root = Path(root)

    def names(self) -> list[str]:
        return sorted(one.relative_to(self._root).as_posix() for one in self._root.rglob("*") if one.is_file())

    def read(self, key: str) -> bytes:
        return (self._root / key).read_bytes()

    def write(self, key: str, data: bytes) -> None:
        (self._root / key).parent.mkdir(parents=True, exist_ok=True)
        (self._root / key).write_bytes(data)

    def delete(self, key: str) -> None:
        (self._root / key).unlink()


class BucketFiles:
    def __init__(self, root: str, client: Any) -> None:
        self._prefix = root.removeprefix(f"s3://{BUCKET}/") + "/"
        self._client = client

    def names(self) -> list[str]:
        pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=self._prefix)
        return sorted(one["Key"].removeprefix(self._prefix) for page in pages for one in page.get("Contents", []))

    def read(self, key: str) -> bytes:
        return self._client.get_object(Bucket=BUCKET, Key=self._prefix + key)["Body"].read()

    def write(self, key: str, data: bytes) -> None:
        self._client.put_object(Bucket=BUCKET, Key=self._prefix + key, Body=data)

    def delete(self, key: str) -> None:
        self._client.delete_object(Bucket=BUCKET, Key=self._prefix + key)


Files = FolderFiles | BucketFiles


@dataclass(frozen=True)
class Somewhere:
    """An empty place for a store."""

    root: str
    files: Files


def new_folder(parent: Path) -> Somewhere:
    root = str(parent / uuid4().hex)
    return Somewhere(root, FolderFiles(root))


def new_prefix(server: S3) -> Somewhere:
    root = f"s3://{BUCKET}/{uuid4().hex}/store"
    return Somewhere(root, BucketFiles(root, server.client))
