"""Checkpoints and engines that many tests share."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from places import S3, Somewhere, new_folder, new_prefix, serving

from cluster.launch import PRIVATE

os.environ.update({"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"})
# vLLM imports Ray, which reads these only then, and other tests of the same process connect to it later
os.environ.update(PRIVATE)

# whoever starts the tests in the background may have SIGINT ignored, and every process of theirs would inherit that
signal.signal(signal.SIGINT, signal.default_int_handler)

PROJECT = Path(__file__).parent.parent
SHARED_DATA = PROJECT.parent / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The published data, which has no licence and so is not in the project."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"the published data is not at {SHARED_DATA}")
    return SHARED_DATA


@pytest.fixture(scope="session")
def tiny_llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Llama checkpoint (3 layers, 96 neurons), float32, with a byte-level tokenizer."""
    from checkpoints import write_checkpoint

    return write_checkpoint(tmp_path_factory.mktemp("tiny-llama"), "llama")


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3]:
    """An S3 service of the session's own."""
    with serving(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture
def s3(s3_server: S3, monkeypatch: pytest.MonkeyPatch) -> S3:
    """The same, named by the environment as a user's is."""
    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    return s3_server


@pytest.fixture(params=["folder", "bucket"])
def somewhere(request: pytest.FixtureRequest, tmp_path: Path) -> Somewhere:
    """An empty place of either kind."""
    return new_folder(tmp_path) if request.param == "folder" else new_prefix(request.getfixturevalue("s3"))
