"""Checkpoints and engines that many tests share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cluster.launch import PRIVATE

os.environ.update({"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"})
# vLLM imports Ray, which reads these only then, and other tests of the same process connect to it later
os.environ.update(PRIVATE)

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
