"""Where an engine's threads run changes nothing that it computes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

CAPTURE = """
import dataclasses, hashlib, os, sys
from pathlib import Path
import cluster.cores
from cluster.cores import OnOwnCores
from harvest.engine.options import EngineOptions
from harvest.engine.seat import EngineSeat
from harvest.types import Text

class Capture:
    def wanted(self):
        return (60, 9, 31)

    def measure(self, engine, sizes):
        return engine.capture([Text(tuple(range(3, 3 + size)), 0, size) for size in sizes])

    def keep(self, rows):
        return [getattr(rows, field.name) for field in dataclasses.fields(rows)]

# other engines on this machine may hold its cores
cluster.cores.lock_folder = lambda: Path(sys.argv[3])
seat = EngineSeat(EngineOptions(Path(sys.argv[1]), "float32", max_model_len=128))
worker = (OnOwnCores(seat, 1) if sys.argv[2] == "bound" else seat)(0)
found = hashlib.sha256()
for values in worker(Capture()):
    found.update(repr(getattr(values, "tobytes", lambda: values)()).encode())
threads = {len(os.sched_getaffinity(int(task))) for task in os.listdir("/proc/self/task")}
print("RESULT", found.hexdigest(), threads, flush=True)
worker.close()
"""


def capture(model: Path, how: str, locks: Path) -> tuple[str, str]:
    """A digest of an engine's rows, and how many cores its threads may use."""
    command = [sys.executable, "-c", CAPTURE, model, how, locks]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("RESULT")]
    _, digest, threads = line.split(maxsplit=2)
    return digest, threads


def test_a_bound_engine_computes_the_same_bits_on_one_core(tiny_llama: Path, tmp_path: Path) -> None:
    bound, threads = capture(tiny_llama, "bound", tmp_path)
    assert threads == "{1}"
    free, _ = capture(tiny_llama, "free", tmp_path)
    assert bound == free
