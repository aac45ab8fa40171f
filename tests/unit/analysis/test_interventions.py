"""Operations become edit rows, and conditions get ids and fingerprints one can rely on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from analysis.interventions import combine, conditions_for, fingerprint, write_conditions, zero
from analysis.neurons.neuron_set import NeuronSet
from harvest.errors import SelectionError
from harvest.types import EditPhase, EditRow


def make_set(set_id: str, pairs: list[tuple[int, int]], group: str = "g", draw: int = -1, of: str = "") -> NeuronSet:
    layer, neuron = np.array(pairs, np.int32).T
    nothing = np.zeros(len(pairs))
    method = "probability" if draw < 0 else "control"
    return NeuronSet(set_id, group, method, layer, neuron, nothing, nothing, nothing, draw, of)


def test_zero_puts_any_activation_to_zero() -> None:
    row = zero(make_set("a", [(0, 3), (2, 1)]), EditPhase.RESPONSE)
    g = np.array([-3.5, 1e30], np.float32)
    np.testing.assert_array_equal(np.clip(g * row.scale + row.shift, row.floor, row.ceiling), [0, 0])
    assert (row.layer.tolist(), row.neuron.tolist(), row.phase) == ([0, 2], [3, 1], EditPhase.RESPONSE)


def test_a_neuron_touched_twice_is_named() -> None:
    rows = [zero(make_set(name, pairs), EditPhase.BOTH) for name, pairs in (("a", [(0, 3), (1, 1)]), ("b", [(1, 1)]))]
    with pytest.raises(SelectionError, match="neuron 1 of layer 1 is touched 2 times"):
        combine(rows)


def test_combining_keeps_every_edit_and_nothing_is_the_identity() -> None:
    a, b = (zero(make_set(name, [pair]), EditPhase.PROMPT) for name, pair in (("a", (0, 3)), ("b", (1, 3))))
    both = combine([a, EditRow.identity(), b])
    assert (both.layer.tolist(), both.neuron.tolist(), both.phase) == ([0, 1], [3, 3], EditPhase.PROMPT)
    assert len(combine([])) == len(combine([EditRow.identity()])) == 0
    with pytest.raises(SelectionError, match="phases prompt and response"):
        combine([a, zero(make_set("b", [(1, 3)]), EditPhase.RESPONSE)])


SETS = [make_set("g|probability", [(0, 3), (1, 1)]), make_set("h|probability", [(0, 2)], group="h")]
CONTROLS = [make_set(f"g|probability|control-{at}", [(0, at), (1, 9)], draw=at, of="g|probability") for at in range(2)]


def test_every_group_has_a_baseline_and_every_set_and_control_a_cut() -> None:
    conditions = conditions_for(SETS, CONTROLS, ["zero"], EditPhase.BOTH)
    assert [(one.condition_id, one.group, one.direction, one.operation, one.control_draw) for one in conditions] == [
        ("g|none", "g", "none", "none", -1),
        ("h|none", "h", "none", "none", -1),
        ("g|probability|cut-zero", "g", "cut", "zero", -1),
        ("h|probability|cut-zero", "h", "cut", "zero", -1),
        ("g|probability|control-0|cut-zero", "g", "cut", "zero", 0),
        ("g|probability|control-1|cut-zero", "g", "cut", "zero", 1),
    ]
    assert [len(one.edit) for one in conditions] == [0, 0, 2, 1, 2, 2]


def test_unknown_operations_and_doubled_names_are_refused() -> None:
    with pytest.raises(SelectionError, match="no operation 'boost'; the known ones are zero"):
        conditions_for(SETS, [], ["boost"], EditPhase.BOTH)
    with pytest.raises(SelectionError, match=r"2 conditions are called g\|probability\|cut-zero"):
        conditions_for(SETS, [], ["zero", "zero"], EditPhase.BOTH)
    assert conditions_for([], [], ["zero"], EditPhase.BOTH) == []


def test_fingerprint_follows_what_is_done_and_nothing_else() -> None:
    def of(pairs: list[tuple[int, int]], phase: EditPhase = EditPhase.BOTH, name: str = "a") -> str:
        return fingerprint(conditions_for([make_set(name, pairs)], [], ["zero"], phase)[1])

    assert of([(0, 3), (1, 1)]) == of([(1, 1), (0, 3)], name="b")
    distinct = {of([(0, 3), (1, 1)]), of([(0, 3)]), of([(0, 3), (1, 2)]), of([(3, 0)]), of([(0, 3)], EditPhase.PROMPT)}
    assert len(distinct) == 5
    first, second = (fingerprint(one) for one in conditions_for(SETS, [], ["zero"], EditPhase.BOTH)[:2])
    assert first == second
    assert len(first) == 32


def test_table_has_one_row_a_condition_and_set(tmp_path: Path) -> None:
    write_conditions(tmp_path / "conditions.parquet", conditions_for(SETS, CONTROLS, ["zero"], EditPhase.BOTH))
    rows = pq.read_table(tmp_path / "conditions.parquet").to_pylist()
    names = ("condition_id", "set_id", "direction", "operation", "strength", "phase", "control_draw")
    assert [rows[0][name] for name in names] == ["g|none", None, "none", "none", 0.0, "both", -1]
    assert [rows[2][name] for name in names] == [
        "g|probability|cut-zero", "g|probability", "cut", "zero", 1.0, "both", -1,
    ]  # fmt: skip
    assert [row["control_draw"] for row in rows] == [-1, -1, -1, -1, 0, 1]
