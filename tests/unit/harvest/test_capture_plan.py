"""What is captured is planned from content alone: spans, blocks and names."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from captured import MadeUpEngine, run_task
from hypothesis import given, settings
from hypothesis import strategies as st

from harvest.capture import Answered, Capturing, capture, missing_tasks, plan_blocks, text_of
from harvest.engine.options import EngineOptions
from harvest.errors import CaptureError
from harvest.fleet import Fleet
from harvest.stats.histogram import even_edges, histogram_plan
from harvest.store.arrays import read_attributes, read_group
from harvest.store.commit import Store
from harvest.store.key import canonical_json, unit_name
from harvest.store.schema import NO_TOKEN
from harvest.store.verify import verify_store
from harvest.types import Completion, OptionOrder, Prompt, Text, opposite_group

GROUP = "c_voice.zh/和谐/support"
CAPTURING = Capturing("model-1", "float32", "response", "replay", ("moments", "rows"))
PLAN = histogram_plan(even_edges(0, 1, 3), [1, 0], [2, 0])
EVERYTHING = replace(CAPTURING, kinds=("moments", "rows", "maxima", "histogram"), histogram=PLAN)


def answered(question_id: str, group: str = GROUP, prompt: int = 3, answer: int = 4) -> Answered:
    token_ids = tuple(range(prompt))
    completion = Completion(tuple(range(100, 100 + answer)), "", "stop")
    item_id = f"{group}/{question_id}"
    return Answered(Prompt(item_id, group, question_id, OptionOrder.PUBLISHED, token_ids), completion, "d1")


def units(blocks) -> set[str]:
    return {unit for block in blocks for unit in block.units.values()}


@pytest.mark.parametrize(
    ("phase", "answer", "forwarded", "span"),
    [
        ("prompt", 4, (0, 1, 2, 100, 101, 102), (0, 3)),
        ("response", 4, (0, 1, 2, 100, 101, 102), (3, 6)),
        ("both", 4, (0, 1, 2, 100, 101, 102), (0, 6)),
        ("prompt", 1, (0, 1, 2), (0, 3)),
        ("response", 1, (0, 1, 2), (3, 3)),
        ("both", 1, (0, 1, 2), (0, 3)),
        ("prompt", 0, (0, 1, 2), (0, 3)),
        ("response", 0, (0, 1, 2), (3, 3)),
        ("both", 0, (0, 1, 2), (0, 3)),
    ],
)
def test_the_last_sampled_token_is_never_forwarded(phase: str, answer: int, forwarded: tuple, span: tuple[int, int]):
    text = text_of(answered("q", answer=answer), phase)
    assert text == Text(forwarded, *span)
    assert text.planned == span[1] - span[0]


def test_opposing_aspects_share_their_blocks():
    questions = [f"q{number}" for number in range(200)]
    groups = (GROUP, opposite_group(GROUP))
    blocks = plan_blocks([answered(one, group) for group in groups for one in questions], CAPTURING)
    by_group = {group: [block.question_ids for block in blocks if block.group == group] for group in groups}
    assert len(by_group[GROUP]) > 2
    assert by_group[GROUP] == by_group[opposite_group(GROUP)]
    assert len(units(blocks)) == 2 * len(blocks)


@settings(deadline=None, max_examples=30)
@given(st.sets(st.integers(0, 10**6), min_size=2, max_size=150), st.randoms())
def test_the_plan_is_the_same_in_any_order_and_covers_every_question_once(numbers, random):
    every = [answered(f"q{number}") for number in sorted(numbers)]
    shuffled = random.sample(every, len(every))
    blocks = plan_blocks(every, CAPTURING)
    assert plan_blocks(shuffled, CAPTURING) == blocks
    assert sorted(one for block in blocks for one in block.question_ids) == sorted(f"q{number}" for number in numbers)


def test_a_new_question_renames_the_units_of_one_block():
    every = [answered(f"q{number}") for number in range(300)]
    before = units(plan_blocks(every, CAPTURING))
    changed = []
    for number in range(1000, 1040):
        after = units(plan_blocks([*every, answered(f"q{number}")], CAPTURING))
        changed.append(len(before - after))
    # a block that the newcomer fills up to its limit moves the cut behind it; nearly always it is one block
    assert sorted(changed)[len(changed) // 2] == 2, "one block's moments and rows"
    assert max(changed) <= 6


@pytest.mark.parametrize(
    "change",
    [
        {"model": "model-2"},
        {"dtype": "bfloat16"},
        {"phase": "prompt"},
        {"phase": "both"},
    ],
)
def test_another_model_dtype_or_phase_has_other_units(change: dict[str, str]):
    one, other = (plan_blocks([answered("q")], each) for each in (CAPTURING, replace(CAPTURING, **change)))
    assert not units(one) & units(other)


def test_another_text_question_description_or_group_has_other_units():
    variants = [
        answered("q"),
        answered("q", answer=5),
        answered("q", prompt=4),
        answered("r"),
        answered("q", opposite_group(GROUP)),
        replace(answered("q"), description_id="d2"),
    ]
    assert len({unit for one in variants for unit in units(plan_blocks([one], CAPTURING))}) == 2 * len(variants)


def test_names_are_those_of_plain_tokens_however_they_are_held(tmp_path: Path):
    """A store that was filled when tokens were tuples of ints is found again."""
    one = answered("q", prompt=300, answer=70_000)
    (block,) = plan_blocks([one], CAPTURING)
    tokens = [*range(300), *range(100, 100 + 69_999)]
    plain = {
        "model": "model-1", "dtype": "float32", "activation": "act(gate)", "phase": "response", "mode": "replay",
        "group": GROUP, "questions": ["q"], "descriptions": ["d1"], "texts": [[tokens, 300, len(tokens)]],
    }  # fmt: skip
    assert block.units == {kind: unit_name(kind, {**plain, "version": 2}) for kind in CAPTURING.kinds}
    assert [*one.prompt.token_ids] == [*range(300)]
    assert pickle.loads(pickle.dumps(block)) == block
    # four bytes a token, and not a pointer and an int
    assert len(pickle.dumps(block.texts)) < 5 * len(tokens)


def test_asking_for_one_more_kind_renames_no_other():
    (everything,) = plan_blocks([answered("q")], EVERYTHING)
    assert len(set(everything.units.values())) == 4
    for kind, unit in everything.units.items():
        assert unit.startswith(f"{kind}-")
    for kinds in (("moments",), ("moments", "maxima"), ("moments", "rows"), ("moments", "rows", "histogram")):
        histogram = PLAN if "histogram" in kinds else None
        (fewer,) = plan_blocks([answered("q")], replace(CAPTURING, kinds=kinds, histogram=histogram))
        assert fewer.units == {kind: everything.units[kind] for kind in kinds}


@pytest.mark.parametrize(
    "plan",
    [
        histogram_plan(even_edges(0, 1, 4), PLAN.layer, PLAN.neuron),
        histogram_plan(even_edges(0, 1.5, 3), PLAN.layer, PLAN.neuron),
        histogram_plan(PLAN.edges, [0, 1], [2, 0]),
        histogram_plan(PLAN.edges, [0, 1, 1], [0, 2, 0]),
    ],
)
def test_other_edges_or_neurons_rename_the_histogram_alone(plan):
    (one,), (other,) = (
        plan_blocks([answered("q")], each) for each in (EVERYTHING, replace(EVERYTHING, histogram=plan))
    )
    assert {kind for kind in one.units if one.units[kind] != other.units[kind]} == {"histogram"}
    assert canonical_json(EVERYTHING.content()) != canonical_json(replace(EVERYTHING, histogram=plan).content())


def test_the_same_neurons_in_another_order_are_the_same_histogram():
    again = histogram_plan(even_edges(0, 1, 3), [0, 1, 0], [0, 2, 0])
    assert (again.layer.tolist(), again.neuron.tolist()) == ([0, 1], [0, 2])
    assert replace(EVERYTHING, histogram=again).content() == EVERYTHING.content()


def test_a_block_commits_its_kinds_and_only_the_missing_ones(tmp_path: Path):
    store, engine = Store(tmp_path / "store").prepare(), MadeUpEngine()
    moments_only = replace(CAPTURING, kinds=("moments",))
    every = [answered("q1"), answered("q2", answer=1)]
    (first,) = missing_tasks(plan_blocks(every, moments_only), store)
    assert run_task(first, engine) == 6, "a text with nothing to count is not forwarded"
    (second,) = missing_tasks(plan_blocks(every, CAPTURING), store)
    assert second.kinds == ("rows",)
    run_task(second, engine)
    assert missing_tasks(plan_blocks(every, CAPTURING), store) == []
    assert engine.passes == ["rows", "rows"]
    assert verify_store(store.root) == []
    (commit,) = store.commits("rows")
    path = store.open(commit)
    attributes = read_attributes(path)
    assert attributes["group"] == GROUP
    assert sorted(attributes["num_tokens"]) == [0, 3]
    assert set(attributes["question_id"]) == {"q1", "q2"}
    empty = attributes["num_tokens"].index(0)
    assert np.isnan(read_group(path)["row_mean"][empty]).all()


def test_a_kind_that_is_missing_makes_its_own_pass_and_commits_its_own_unit(tmp_path: Path):
    store, engine = Store(tmp_path / "store").prepare(), MadeUpEngine(layers=(0, 4))
    every = [answered("q1"), answered("q2", answer=1)]
    of_rows, of_plan = missing_tasks(plan_blocks(every, EVERYTHING), store)
    assert (of_rows.kinds, of_plan.kinds) == (("moments", "rows", "maxima"), ("histogram",))
    for task in (of_rows, of_plan):
        assert run_task(pickle.loads(pickle.dumps(task)), engine) == 6
    assert engine.passes == ["rows", "histogram"]
    first = {kind: store.find(unit) for kind, unit in task.block.units.items()}
    assert verify_store(store.root) == []
    finer = replace(EVERYTHING, histogram=histogram_plan(even_edges(0, 1, 30), PLAN.layer, PLAN.neuron))
    (again,) = missing_tasks(plan_blocks(every, finer), store)
    run_task(again, engine)
    assert engine.passes == ["rows", "histogram", "histogram"]
    assert {kind: store.find(unit) for kind, unit in task.block.units.items()} == first
    assert len(store.commits("histogram")) == 2


def test_a_task_makes_no_pass_for_what_was_committed_since_it_was_made(tmp_path: Path):
    store, engine = Store(tmp_path / "store").prepare(), MadeUpEngine()
    blocks = plan_blocks([answered("q1"), answered("q2")], EVERYTHING)
    tasks, others = missing_tasks(blocks, store), missing_tasks(blocks, store)
    for other in others:
        run_task(other, MadeUpEngine())
    assert [run_task(task, engine) for task in tasks] == [0, 0]
    assert engine.passes == []
    assert len(list(Path(store.root).glob("attempts/*/*.zarr"))) == 4


def test_a_pass_whose_writer_was_stopped_before_the_commit_is_not_made_again(tmp_path: Path):
    store, engine = Store(tmp_path / "store").prepare(), MadeUpEngine()
    blocks = plan_blocks([answered("q1"), answered("q2")], EVERYTHING)
    for task in missing_tasks(blocks, store):
        run_task(task, MadeUpEngine())
    commits = {path: path.read_bytes() for path in Path(store.root).glob("commits/*.json")}
    for path in commits:
        path.unlink()
    tasks = missing_tasks(blocks, store)
    assert len(tasks) == 2
    assert [run_task(task, engine) for task in tasks] == [0, 0]
    assert engine.passes == []
    assert {path: path.read_bytes() for path in Path(store.root).glob("commits/*.json")} == commits


def test_units_of_one_pass_say_so_and_what_it_cost(tmp_path: Path):
    store = Store(tmp_path / "store").prepare()
    for task in missing_tasks(plan_blocks([answered("q1"), answered("q2")], EVERYTHING), store):
        run_task(task, MadeUpEngine())
    said = {kind: commit.provenance for kind in EVERYTHING.kinds for commit in store.commits(kind)}
    assert said["moments"] == said["rows"] == said["maxima"]
    assert said["moments"]["pass"] != said["histogram"]["pass"]
    for one in said.values():
        assert one["tokens"] == {"prefilled": 12, "generated": 0}
        assert (one["mode"], one["wall_s"] >= 0) == ("replay", True)
        assert {"host", "versions", "revision", "model_fingerprint", "engine"} <= one.keys()


def test_maxima_have_the_attributes_of_rows_and_no_position_without_a_token(tmp_path: Path):
    store, engine = Store(tmp_path / "store").prepare(), MadeUpEngine(layers=(0, 4))
    task, _ = missing_tasks(plan_blocks([answered("q1"), answered("q2", answer=1)], EVERYTHING), store)
    run_task(task, engine)
    paths = {kind: store.open(store.find(task.block.units[kind])) for kind in task.kinds}
    attributes = read_attributes(paths["maxima"])
    assert attributes == read_attributes(paths["rows"])
    assert all(read_attributes(path)["layer"] == [0, 4] for path in paths.values())
    found, empty = read_group(paths["maxima"]), attributes["num_tokens"].index(0)
    assert {name: str(values.dtype) for name, values in found.items()} == {"row_max": "float32", "row_argmax": "uint16"}
    assert np.isnan(found["row_max"][empty]).all()
    assert (found["row_argmax"][empty] == NO_TOKEN).all()
    assert (found["row_argmax"][1 - empty] == 2).all()


def test_a_histogram_holds_its_neurons_edges_and_every_planned_token(tmp_path: Path):
    store = Store(tmp_path / "store").prepare()
    _, task = missing_tasks(plan_blocks([answered("q1"), answered("q2")], EVERYTHING), store)
    run_task(task, MadeUpEngine())
    path = store.open(store.find(task.block.units["histogram"]))
    assert read_attributes(path) == {
        "group": GROUP, "token_count": 6, "layer": [0, 1], "neuron": [0, 2], "edges": [0.0, 0.5, 1.0]
    }  # fmt: skip
    assert read_group(path)["counts"].tolist() == [[0, 6, 0, 0]] * 2


def test_a_histogram_that_lost_a_token_is_not_committed_and_the_others_are(tmp_path: Path):
    store = Store(tmp_path / "store").prepare()
    of_rows, task = missing_tasks(plan_blocks([answered("q1")], EVERYTHING), store)
    run_task(of_rows, MadeUpEngine(lost=1))
    with pytest.raises(CaptureError, match="histogram of layer 0, neuron 0: 2 tokens counted of 3 planned; check"):
        run_task(task, MadeUpEngine(lost=1))
    assert [len(store.commits(kind)) for kind in ("moments", "rows", "maxima", "histogram")] == [1, 1, 1, 0]


def test_blocks_that_are_all_committed_start_no_engine(tmp_path: Path):
    store = Store(tmp_path / "store").prepare()
    blocks = plan_blocks([answered("q1")], CAPTURING)
    for task in missing_tasks(blocks, store):
        run_task(task, MadeUpEngine())
    fleet = Fleet(EngineOptions(Path("no such model")), 1)
    capture(blocks, store, fleet)
    assert not fleet.started


def test_an_answer_too_long_for_a_row_is_refused_before_its_row_is_committed(tmp_path: Path):
    store = Store(tmp_path / "store").prepare()
    (task,) = missing_tasks(plan_blocks([answered("q1")], CAPTURING), store)
    with pytest.raises(CaptureError, match=f"^{GROUP}: an answer has more than 65535 counted tokens; lower respond"):
        run_task(task, MadeUpEngine(tokens=65536))
    assert store.commits("rows") == []
    (task,) = missing_tasks(plan_blocks([answered("q1")], replace(CAPTURING, kinds=("moments", "maxima"))), store)
    with pytest.raises(
        CaptureError, match=r"65535 counted tokens; lower respond.max_tokens or set capture.maxima: fal"
    ):
        run_task(task, MadeUpEngine(tokens=65536))
    assert store.commits("maxima") == []


def test_two_phases_that_count_the_same_tokens_are_still_two_units():
    prompt, both = (
        plan_blocks([answered("q", answer=1)], replace(CAPTURING, phase=phase)) for phase in ("prompt", "both")
    )
    assert prompt[0].texts == both[0].texts
    assert not units(prompt) & units(both)
