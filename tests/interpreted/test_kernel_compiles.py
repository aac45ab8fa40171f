"""The kernel compiles for real GPUs down to machine code, which needs none; what it computes there is tests/gpu's."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton", reason="Triton is not installed beside vLLM; `make test-triton` runs this")

CASES = [
    (80, "bf16", "silu", False, 16),
    (90, "bf16", "gelu_tanh", True, 16),
    # as what is held back is folded at last
    (90, "fp32", "given", False, 0),
]


def test_the_kernel_compiles_for_gpus_and_has_no_atomic_in_it(tmp_path: Path):
    """Without atomics and with a slot in one program alone, the order of every sum is fixed."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    script = Path(__file__).with_name("compile_kernel.py")
    ran = subprocess.run(
        [sys.executable, str(script), json.dumps(CASES)],
        env=environment | {"TRITON_CACHE_DIR": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr[-2000:]
    made = json.loads(ran.stdout)
    assert [(each["capability"], each["kind"], each["fused"]) for each in made] == [
        (capability, kind, fused) for capability, _, kind, fused, _ in CASES
    ]
    assert all(each["cubin"] > 0 and each["atomics"] == [] for each in made)
