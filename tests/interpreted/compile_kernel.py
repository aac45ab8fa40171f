"""Compiles the kernel for GPUs that need not be here, and prints its PTX's facts as JSON; not under the interpreter."""

from __future__ import annotations

import json
import sys

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from harvest.probe.kernel import fold_kernel
from harvest.probe.triton_fold import BLOCK_NEURONS, BLOCK_TOKENS

FIXED = {"num_tokens": "i32", "table": "*i32", "stride": "i32", "width": "i32", "slot_width": "i32"}
STATE = {"mean": "*fp64", "m2": "*fp64", "low": "*fp32", "high": "*fp32", "positive": "*i32", "peak": "*i32"}


def compiled(capability: int, dtype: str, kind: str, fused: bool, holds: int) -> dict[str, object]:
    values = {"KIND": kind, "FUSED": fused, "HOLDS": holds, "BLOCK_N": BLOCK_TOKENS, "BLOCK_F": BLOCK_NEURONS}
    if not fused:
        values["product"] = None
    if kind == "given":
        values["count"] = None
    types = FIXED | STATE | dict.fromkeys(("rows", "product", "held"), f"*{dtype}") | {"count": "*i64"}
    signature = {name: "constexpr" if name in values else types[name] for name in fold_kernel.arg_names}
    made = triton.compile(ASTSource(fold_kernel, signature, values), target=GPUTarget("cuda", capability, 32))
    ptx = made.asm["ptx"]
    words = {line.split()[0].split(".")[0] for line in ptx.splitlines() if line.strip()}
    atomics = sorted(words & {"atom", "red"})
    return {"capability": capability, "kind": kind, "fused": fused, "cubin": len(made.asm["cubin"]), "atomics": atomics}


if __name__ == "__main__":
    json.dump([compiled(*case) for case in json.loads(sys.argv[1])], sys.stdout)
