"""The engine against the reference: statistics, edits, and doing nothing when nothing is asked."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import reference
from engine_cases import assert_edited, assert_rows, edit_row, random_tokens

from harvest.engine.options import EngineOptions
from harvest.engine.seat import open_engine
from harvest.errors import ModelError, SelectionError
from harvest.types import Edit, EditPhase, Request, Sampling, Text


@pytest.fixture(scope="module")
def engine(tiny_llama: Path) -> Iterator[object]:
    engine = open_engine(EngineOptions(tiny_llama, dtype="float32", max_model_len=512))
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def oracle(tiny_llama: Path):
    return reference.load_model(tiny_llama)


def test_rows_equal_the_reference(engine, oracle):
    texts = [Text(random_tokens(n, n), n // 3, n - 1) for n in (9, 40, 200, 3, 77)] + [Text(random_tokens(20), 20, 20)]
    rows = engine.capture(texts)
    assert_rows(rows, texts, oracle)
    for at, text in enumerate(texts[:-1]):
        expected = reference.reference_row(oracle, text)
        np.testing.assert_allclose(rows.min_QLF[at], expected.min, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(rows.max_QLF[at], expected.max, rtol=1e-4, atol=1e-5)


def test_the_same_unit_gives_the_same_bytes(engine):
    texts = [Text(random_tokens(n, n), 1, n) for n in (30, 4, 120)]
    first = engine.capture(texts)
    engine.capture([Text(random_tokens(50, 99), 0, 50)])
    again = engine.capture(texts)
    for name in first.__slots__:
        assert getattr(first, name).tobytes() == getattr(again, name).tobytes()


def test_a_prefix_in_the_cache_is_counted_all_the_same(engine):
    shared = random_tokens(256, 5)
    engine.answer([Request((*shared, 1))], Sampling(1))
    rows = engine.capture([Text((*shared, 2, 3), 10, 258)])
    assert rows.num_tokens_Q.tolist() == [248]


@pytest.mark.parametrize("phase", list(EditPhase))
@pytest.mark.parametrize(
    "coefficients",
    [{"scale": 0.0}, {"scale": 5.0}, {"scale": 1.0, "shift": 2.5}, {"scale": 1.0, "floor": -0.1, "ceiling": 0.3}],
    ids=["zero", "scale", "add", "clamp"],
)
def test_edited_answers_equal_the_edited_reference(engine, oracle, phase, coefficients):
    """The edited request stands in a batch with 31 others; its log-probabilities are the plainly edited model's."""
    row = edit_row([(0, 3), (0, 95), (1, 0), (2, 17), (2, 50)], phase=phase, **coefficients)
    others = [Edit(f"other-{i}", edit_row([(i % 3, i), (1, 60 + i)], scale=float(i))) for i in range(20)]
    prompt = random_tokens(24, 7)
    requests = [Request(prompt, Edit(f"tried-{phase}-{coefficients}", row))]
    requests += [Request(random_tokens(20 + i, i), others[i] if i < 20 else None) for i in range(31)]
    output = engine.run(requests, Sampling(8), logprobs=3)[0].outputs[0]
    assert_edited(output, prompt, row, oracle)


def test_an_identity_edit_changes_nothing(engine):
    prompt = random_tokens(30, 3)
    same = edit_row([(0, 1), (2, 40)], scale=1.0)
    plain, edited = engine.run([Request(prompt), Request(prompt, Edit("same", same))], Sampling(8), logprobs=1)
    assert list(plain.outputs[0].token_ids) == list(edited.outputs[0].token_ids)


def test_one_condition_does_not_poison_anothers_cache(engine, oracle):
    """The cut comes first and fills KV blocks of the same tokens; the plain answer must not read them."""
    prompt = random_tokens(300, 11)
    cut = Request(prompt, Edit("cut-much", edit_row([(0, i) for i in range(96)])))
    engine.answer([cut], Sampling(4))
    plain = engine.run([Request(prompt)], Sampling(4), logprobs=2)[0].outputs[0]
    expected = reference.log_probabilities(oracle, [*prompt, *plain.token_ids])
    for step, table in enumerate(plain.logprobs):
        for token, found in table.items():
            assert found.logprob == pytest.approx(expected[len(prompt) + step - 1, token], abs=1e-3)


def test_edits_outside_the_model_are_refused_before_anything_runs(engine):
    with pytest.raises(SelectionError, match="layer 3, neuron 5 is not in this model, which has 3 probed layers"):
        engine.answer([Request((1, 2), Edit("x", edit_row([(3, 5)])))], Sampling(1))
    with pytest.raises(SelectionError, match="layer 1, neuron 7 is edited twice"):
        engine.answer([Request((1, 2), Edit("x", edit_row([(1, 7), (1, 7)])))], Sampling(1))


def test_a_failed_step_leaves_nothing_behind(engine, oracle, monkeypatch: pytest.MonkeyPatch):
    """Its requests are aborted and its slots free: the next unit and the next answers are as ever."""
    texts = [Text(random_tokens(n, n), 1, n) for n in (30, 20)]
    router = engine._llm.llm_engine.engine_core.engine_core.model_executor.driver_worker.worker._router
    for _ in range(3):
        with monkeypatch.context() as patch:
            patch.setattr(router, "route", fail_once)
            with pytest.raises(RuntimeError, match="the GPU fell off"):
                engine.capture(texts)
        assert not engine._llm.llm_engine.has_unfinished_requests()
    assert_rows(engine.capture(texts), texts, oracle)
    assert len(engine.answer([Request((1, 2, 3))], Sampling(4))[0].token_ids) == 4


def fail_once(*_: object) -> None:
    raise RuntimeError("the GPU fell off")


def test_an_unknown_activation_is_refused():
    from harvest.models.families import kind_of

    class SwigluOaiAndMul:
        pass

    with pytest.raises(ModelError, match="SwigluOaiAndMul is not known"):
        kind_of(SwigluOaiAndMul(), "layer 4")
