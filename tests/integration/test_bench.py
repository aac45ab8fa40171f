"""The bench prints its tables, and its contenders count what they should. Nothing is asserted on speed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import reference
import torch
from engine_cases import random_tokens

import bench
from bench.lines import BARE, HISTOGRAM, HOOKS, ONLINE, PRACTICE, REPLAY, ROWS
from bench.peers import hooks, reference_practice
from bench.table import Spread
from bench.workload import grouped
from harvest.types import Text


def test_a_tiny_bench_prints_every_line_and_target():
    arguments = ["--sizes", "tiny", "--rounds", "1", "--texts", "2", "--new-tokens", "2"]
    ran = subprocess.run(
        [sys.executable, "-m", "bench.capture", *arguments],
        cwd=Path(bench.__path__[0]).parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    rows = [line.split(" | ") for line in ran.stdout.splitlines() if line.startswith("| tiny")]
    assert {BARE, ROWS, HISTOGRAM, HOOKS, ONLINE, REPLAY, PRACTICE} <= {row[2] for row in rows}
    # a line that is compared with itself
    assert [row[6] for row in rows if row[2:5] == [BARE, "1", "1"]] == ["1.000 / 1.000 / 1.000"] * 2
    assert ran.stdout.count(", seen ") == 5
    assert "prefill, a counted token: " in ran.stdout


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        (
            "store --model tiny --questions 3 --forward-s 0.02 --units 3 --rounds 1 --merge-moments 3 --merge-rows 2",
            ["| moments and rows |", "| moments, 3 units: merge |", "| rows, 2 units: open and read one group |"],
        ),
        (
            "scale --actors 2 --tasks 40 --mean-s 0.02 --engines 5 --units 40 --groups 1",
            ["| 40 units on 2 actors |", "| 40 units on 5 engines, both |", "in flight per actor: target ≤ 2, seen 2"],
        ),
    ],
    ids=["store", "scale"],
)
def test_a_tiny_bench_of_the_rest_prints_every_line(command: str, expected: list[str]):
    ran = subprocess.run(
        [sys.executable, "-m", *f"bench.{command}".split()],
        cwd=Path(bench.__path__[0]).parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    for line in expected:
        assert line in ran.stdout


@pytest.mark.parametrize("size", [1, 3], ids=["one by one", "padded"])
def test_hooks_count_what_the_reference_counts(tiny_llama: Path, size: int):
    texts = [Text(random_tokens(n, n), n // 2, n) for n in (9, 30, 17, 4)]
    model = reference.load_model(tiny_llama)
    expected = [reference.reference_row(model, text) for text in texts]
    recorder = hooks.Recorder(model, len(texts))
    hooks.forward(model, recorder, texts, size)
    rows = recorder.rows(texts)
    for at, row in enumerate(expected):
        assert rows.num_tokens_Q[at] == row.num_tokens
        assert (np.abs(rows.positive_QLF[at] - row.positive) <= row.near_zero).all()
        for name in ("mean", "m2", "min", "max"):
            found = getattr(rows, f"{name}_QLF")[at]
            np.testing.assert_allclose(found, getattr(row, name), rtol=1e-4, atol=1e-4, err_msg=name)


def test_the_reference_practice_fills_numpys_histogram():
    x_TF = torch.randn(20, 5, generator=torch.Generator().manual_seed(0)) * 2
    x_TF[3] = 0
    recorder = reference_practice.Recorder(2, 5)
    recorder.add(1, x_TF[:9])
    recorder.add(1, x_TF[9:])
    edges = np.array([-np.inf, *(at / 100 for at in range(300)), np.inf])
    # numpy's bins hold their lower edge, these their upper one
    expected = [np.histogram(-x_TF[:, at].numpy(), -edges[::-1])[0][::-1] for at in range(5)]
    np.testing.assert_array_equal(recorder.histogram_LFB[1].numpy(), expected)
    np.testing.assert_array_equal(recorder.on_LF[1].numpy(), (x_TF > 0).sum(dim=0).numpy())
    assert not recorder.histogram_LFB[0].any()


def test_every_text_is_in_one_group_and_groups_are_of_like_size():
    for groups in range(1, 65):
        units = grouped(range(64), groups)
        assert [member for unit in units for member in unit] == list(range(64))
        sizes = {len(unit) for unit in units}
        assert len(units) == groups
        assert max(sizes) - min(sizes) <= 1


def test_a_spread_is_least_median_and_greatest():
    assert str(Spread.of([3.0, 1.0, 2.0, 10.0])) == "1.00 / 2.50 / 10.00"
