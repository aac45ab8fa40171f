"""The command line as a person runs it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

PROJECT = Path(__file__).parent.parent.parent


def command(*words: str | Path) -> list[str]:
    return [sys.executable, "-m", "value_harvest", *map(str, words)]


def run(*words: str | Path, code: int = 0) -> subprocess.CompletedProcess[str]:
    """Run a command to its end and demand its exit code."""
    environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
    done = subprocess.run(command(*words), cwd=PROJECT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == code, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done
