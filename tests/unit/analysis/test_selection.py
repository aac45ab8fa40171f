"""The probability rule, and sets that survive the disk."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from analysis.neurons.neuron_set import NeuronSet, mask_of, set_name
from analysis.neurons.overlap import precision_recall, read_planted
from analysis.neurons.probability import select_probability
from analysis.neurons.table import read_neurons, write_neurons
from harvest.errors import SelectionError

GROUP = "b.zh/和谐/support"


def effect_of(delta: list[list[float]]) -> xr.Dataset:
    delta_LF = np.array(delta)
    axes = ("layer", "neuron")
    rate_LF = np.abs(delta_LF)
    return xr.Dataset(
        {
            "delta": (axes, delta_LF),
            "rate": (axes, rate_LF),
            "rate_opposite": (axes, rate_LF - delta_LF),
            "base_rate": (axes, rate_LF / 2),
        }
    )


def select(delta: list[list[float]], top_k: int, threshold: float | None = None) -> list[tuple[int, int]]:
    chosen = select_probability(effect_of(delta), set_name(GROUP, "probability"), GROUP, top_k, threshold)
    return list(zip(chosen.layer.tolist(), chosen.neuron.tolist(), strict=True))


def test_top_k_come_first_and_then_those_that_reach_the_threshold() -> None:
    delta = [[0.3, -0.2, 0.1], [0.5, 0.05, 0.2]]
    assert select(delta, 2) == [(1, 0), (0, 0)]
    assert select(delta, 2, 0.2) == [(1, 0), (0, 0), (1, 2)]
    assert select(delta, 5, 0.2) == [(1, 0), (0, 0), (1, 2), (0, 2), (1, 1)]
    assert select(delta, 0, 0.2) == [(1, 0), (0, 0), (1, 2)]


def test_ties_go_to_the_lowest_flat_index() -> None:
    assert select([[0.0, 0.5, 0.5], [0.5, 0.5, 0.5]], 3) == [(0, 1), (0, 2), (1, 0)]


def test_nan_is_never_selected() -> None:
    assert select([[np.nan, 0.1], [-0.4, np.nan]], 2, -1.0) == [(0, 1), (1, 0)]


@pytest.mark.parametrize(
    ("delta", "top_k", "threshold", "message"),
    [
        ([[0.1, 0.2]], 3, None, "top_k is 3 and the model has 2 neurons"),
        ([[0.1, 0.2]], -1, None, "top_k is -1"),
        ([[np.nan, np.nan]], 1, None, "no counted token"),
        ([[0.1, 0.2]], 0, 0.5, "no neuron of .* reaches threshold 0.5"),
    ],
)
def test_what_does_not_fit_is_refused(
    delta: list[list[float]], top_k: int, threshold: float | None, message: str
) -> None:
    with pytest.raises(SelectionError, match=message):
        select(delta, top_k, threshold)


@given(arrays.arrays(np.float64, (3, 4), elements=st.floats(-1, 1)), st.integers(1, 12), st.none() | st.floats(-1, 1))
def test_selection_is_what_a_plain_walk_down_the_sorted_list_gives(
    delta: np.ndarray, top_k: int, threshold: float | None
) -> None:
    flat = sorted(range(12), key=lambda at: (-delta.flat[at], at))
    walked = []
    for at in flat:
        if len(walked) >= top_k and (threshold is None or delta.flat[at] < threshold):
            break
        walked.append(divmod(at, 4))
    assert select(delta.tolist(), top_k, threshold) == walked


def make_set(set_id: str, neurons: list[int], **changes: object) -> NeuronSet:
    size = len(neurons)
    values: dict[str, object] = {
        "set_id": set_id,
        "group": GROUP,
        "method": "probability",
        "layer": np.arange(size, dtype=np.int32) % 2,
        "neuron": np.array(neurons, np.int32),
        "score": np.linspace(1, 0, size),
        "delta": np.linspace(1, 0, size),
        "rate": np.full(size, 0.5),
        "columns": {"base_rate": np.full(size, 0.25)},
    }
    return NeuronSet(**{**values, **changes})  # type: ignore[arg-type]


def test_sets_come_back_from_the_disk_as_they_were(tmp_path: Path) -> None:
    control = {"method": "control", "control_draw": 0, "control_of": "a", "columns": {"rate_gap": np.array([0.1, 0.0])}}
    written = [make_set("a", [3, 1, 2]), make_set("a|control-0", [5, 6], **control)]
    write_neurons(tmp_path / "deep" / "neurons.parquet", written)
    read = read_neurons(tmp_path / "deep" / "neurons.parquet")
    for one, two in zip(written, read, strict=True):
        for name in ("set_id", "group", "method", "control_draw", "control_of"):
            assert getattr(one, name) == getattr(two, name)
        for name in ("layer", "neuron", "score", "delta", "rate"):
            np.testing.assert_array_equal(getattr(one, name), getattr(two, name), strict=True)
        assert one.columns.keys() == two.columns.keys()
        for name, values in one.columns.items():
            np.testing.assert_array_equal(values, two.columns[name], strict=True)
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["neurons.parquet"]


def test_a_set_that_would_be_lost_is_not_written(tmp_path: Path) -> None:
    path = tmp_path / "neurons.parquet"
    with pytest.raises(SelectionError, match="set a has no neuron"):
        write_neurons(path, [make_set("a", [])])
    with pytest.raises(SelectionError, match="two sets are called a"):
        write_neurons(path, [make_set("a", [1]), make_set("a", [2])])
    assert not path.exists()


def test_missing_or_damaged_file_names_the_stage_that_writes_it(tmp_path: Path) -> None:
    path = tmp_path / "neurons.parquet"
    with pytest.raises(SelectionError, match="no such file; run `value-harvest select"):
        read_neurons(path)
    path.write_bytes(b"PAR1 but not really")
    with pytest.raises(SelectionError, match="not a readable Parquet file"):
        read_neurons(path)


def test_mask_marks_every_neuron_of_every_set() -> None:
    mask = mask_of([make_set("a", [3, 1]), make_set("b", [3])], (2, 4))
    assert {tuple(pair) for pair in np.argwhere(mask).tolist()} == {(0, 3), (1, 1)}


def test_precision_and_recall_are_shares_and_a_share_of_nothing_is_nan() -> None:
    a, b, c = (0, 1), (0, 2), (1, 1)
    assert precision_recall({a, b}, {b, c, (9, 9)}) == (0.5, 1 / 3)
    nothing_found, nothing_planted = precision_recall(set(), {a}), precision_recall({a}, set())
    assert np.isnan(nothing_found[0])
    assert nothing_found[1] == 0
    assert nothing_planted[0] == 0
    assert np.isnan(nothing_planted[1])


def test_planted_truth_is_read_by_group(tmp_path: Path) -> None:
    path = tmp_path / "planted.json"
    path.write_text('[{"group": "g", "layer": 1, "neuron": 5}, {"group": "h", "layer": 0, "neuron": 2}]')
    assert read_planted(path) == {"g": {(1, 5)}, "h": {(0, 2)}}
    path.write_text('[{"group": "g", "layer": 1}]')
    with pytest.raises(SelectionError, match="not a list of planted neurons"):
        read_planted(path)
