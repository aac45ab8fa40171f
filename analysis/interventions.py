"""Named operations on neuron sets, and the conditions of an ablation.

A condition is one row of edit coefficients applied to the items of one group. It is made of a set and an operation;
a control is another set, not another operation.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

import numpy as np
import pyarrow as pa

from analysis.neurons.neuron_set import NeuronSet
from analysis.tables import write_table
from harvest.errors import SelectionError
from harvest.types import EditPhase, EditRow

Operation = Callable[[NeuronSet, EditPhase], EditRow]
NONE, CUT = "none", "cut"
# directions: the model as it is; the set silenced

_SCHEMA = pa.schema(
    [(name, pa.string()) for name in ("condition_id", "set_id", "group", "direction", "operation")]
    + [("strength", pa.float64()), ("phase", pa.string()), ("control_draw", pa.int32())]
    + [("control_of", pa.string()), ("fingerprint", pa.string())]
)


@dataclass(frozen=True, slots=True, eq=False)
class Condition:
    """What is done to the model while it answers the items of one group."""

    condition_id: str
    set_ids: tuple[str, ...]
    # empty for the baseline
    group: str
    direction: str
    operation: str
    strength: float
    phase: EditPhase
    control_draw: int
    # -1: not a control
    control_of: str
    # the set_id its control set is matched to; "" where it is not a control
    edit: EditRow


def zero(neurons: NeuronSet, phase: EditPhase) -> EditRow:
    """The edit that puts every activation of the set to 0."""
    size = len(neurons)
    return EditRow(
        layer=neurons.layer,
        neuron=neurons.neuron,
        scale=np.zeros(size, np.float32),
        shift=np.zeros(size, np.float32),
        floor=np.full(size, -np.inf, np.float32),
        ceiling=np.full(size, np.inf, np.float32),
        phase=phase,
    )


OPERATIONS: dict[str, Operation] = {"zero": zero}


def combine(rows: Sequence[EditRow]) -> EditRow:
    """One row with the edits of all; the identity where there are none.

    Raises SelectionError if a neuron is touched twice, or the rows differ in phase.
    """
    rows = [row for row in rows if len(row)]
    if not rows:
        return EditRow.identity()
    phases = sorted({row.phase for row in rows})
    if len(phases) > 1:
        raise SelectionError(f"one condition has edits in the phases {' and '.join(phases)}; give them the same")
    layer, neuron = (np.concatenate([getattr(row, name) for row in rows]) for name in ("layer", "neuron"))
    ((pair, times),) = Counter(zip(layer.tolist(), neuron.tolist(), strict=True)).most_common(1)
    if times > 1:
        raise SelectionError(
            f"neuron {pair[1]} of layer {pair[0]} is touched {times} times by one condition; leave it in one set"
        )
    scale, shift, floor, ceiling = (
        np.concatenate([getattr(row, name) for row in rows]) for name in ("scale", "shift", "floor", "ceiling")
    )
    return EditRow(layer, neuron, scale, shift, floor, ceiling, phases[0])


def fingerprint(condition: Condition) -> str:
    """32 hex digits of what the condition does to the model; equal for equal edits, whatever their order or name."""
    row = condition.edit
    order = np.lexsort((row.neuron, row.layer))
    digest = blake2b(f"{len(row)} {row.phase if len(row) else ''}".encode(), digest_size=16)
    for name, dtype in (
        ("layer", "<i4"),
        ("neuron", "<i4"),
        ("scale", "<f4"),
        ("shift", "<f4"),
        ("floor", "<f4"),
        ("ceiling", "<f4"),
    ):
        digest.update(getattr(row, name)[order].astype(dtype).tobytes())
    return digest.hexdigest()


def conditions_for(
    sets: Sequence[NeuronSet], controls: Sequence[NeuronSet], operations: Sequence[str], phase: EditPhase
) -> list[Condition]:
    """The baseline of every group, then every set and every control under every operation.

    Raises SelectionError if an operation is unknown, or two conditions get the same id.
    """
    for name in operations:
        if name not in OPERATIONS:
            raise SelectionError(f"ablate: no operation {name!r}; the known ones are {', '.join(sorted(OPERATIONS))}")
    groups = dict.fromkeys(one.group for one in sets)
    conditions = [_baseline(group, phase) for group in groups]
    conditions += [_cut(one, name, phase) for one in (*sets, *controls) for name in operations]
    name, times = Counter(one.condition_id for one in conditions).most_common(1)[0] if conditions else ("", 1)
    if times > 1:
        raise SelectionError(f"ablate: {times} conditions are called {name}; name each operation and each set once")
    return conditions


def _baseline(group: str, phase: EditPhase) -> Condition:
    return Condition(f"{group}|{NONE}", (), group, NONE, NONE, 0.0, phase, -1, "", EditRow.identity())


def _cut(one: NeuronSet, operation: str, phase: EditPhase) -> Condition:
    return Condition(
        condition_id=f"{one.set_id}|{CUT}-{operation}",
        set_ids=(one.set_id,),
        group=one.group,
        direction=CUT,
        operation=operation,
        strength=1.0,
        phase=phase,
        control_draw=one.control_draw,
        control_of=one.control_of,
        edit=combine([OPERATIONS[operation](one, phase)]),
    )


def write_conditions(path: Path, conditions: Sequence[Condition]) -> None:
    """Write `conditions.parquet`: one row per condition and set; a baseline has one row, whose set_id is null."""
    rows = [
        {
            "condition_id": one.condition_id,
            "set_id": set_id,
            "group": one.group,
            "direction": one.direction,
            "operation": one.operation,
            "strength": one.strength,
            "phase": str(one.phase),
            "control_draw": one.control_draw,
            "control_of": one.control_of or None,
            "fingerprint": fingerprint(one),
        }
        for one in conditions
        for set_id in one.set_ids or (None,)
    ]
    write_table(path, pa.Table.from_pylist(rows, schema=_SCHEMA))
