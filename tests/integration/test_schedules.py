"""However the scheduler cuts, pauses and places the work, each position counts once and the numbers are the model's.

Llama and Gemma2 in float32 against the Hugging Face reference: texts of very different lengths, and one with nothing to
count; replay and online.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import reference
from checkpoints import write_checkpoint
from engine_cases import assert_rows, random_tokens

from harvest.engine.engine import Engine
from harvest.engine.options import EngineOptions
from harvest.engine.seat import open_engine
from harvest.types import Request, Sampling, Text, phase_span

TEXTS = [Text(random_tokens(n, n), n // 3, n - 1) for n in (5, 150, 33, 9, 61)] + [Text(random_tokens(12), 12, 12)]
PROMPTS = [random_tokens(n, n) for n in (20, 70, 33, 60)]
SAMPLING = Sampling(40)
PLAIN = EngineOptions(Path(), "float32", max_model_len=160, max_num_batched_tokens=512, max_num_seqs=8, num_slots=9)
BLOCKS = {"llama": 8, "gemma2": 24}
# of the KV cache, of which Gemma2 needs three for each 32 tokens; four running requests need more, the last must go
SCHEDULES = {
    "one step": PLAIN,
    "chunked prefill": replace(PLAIN, max_num_batched_tokens=24),
    "preemption": replace(PLAIN, max_num_batched_tokens=48, extra={"block_size": 32}),
    "no prefix cache": replace(PLAIN, extra={"enable_prefix_caching": False}),
    "one at a time": replace(PLAIN, max_num_seqs=1, max_num_batched_tokens=160),
    "nothing held back": replace(PLAIN, holds=0),
    "plain torch": replace(PLAIN, fold="torch"),
    "compiled": replace(PLAIN, compiled=True),
    "own process": replace(PLAIN, own_process=True),
    "two tensor ranks": replace(PLAIN, tensor_parallel=2),
    "async scheduling": PLAIN,
}


def count_preemptions(engine: Engine) -> list[str]:
    """The ids of the requests that the scheduler throws out from now on."""
    scheduler = engine._llm.llm_engine.engine_core.engine_core.scheduler
    stock, thrown_out = scheduler._preempt_request, []

    def preempt(request: Any, *more: Any, **named: Any) -> None:
        thrown_out.append(request.request_id)
        stock(request, *more, **named)

    scheduler._preempt_request = preempt
    return thrown_out


def schedule_ahead(patch: pytest.MonkeyPatch) -> None:
    """Let the CPU schedule a step before the last one's tokens are known, as a GPU does; its platform forbids it."""
    from vllm.platforms.cpu import CpuPlatform

    stock = CpuPlatform.check_and_update_config

    def ahead(config: Any) -> None:
        stock(config)
        config.scheduler_config.async_scheduling = True

    patch.setattr(CpuPlatform, "check_and_update_config", staticmethod(ahead))


@pytest.fixture(scope="module", params=["llama", "gemma2"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_checkpoint(tmp_path_factory.mktemp(request.param), request.param)
    ends = greedy_tokens(reference.load_model(folder), PROMPTS[0], 5)[-1]
    # so that an answer ends in mid-batch
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [ends]}))
    return folder


def greedy_tokens(model, prompt: tuple[int, ...], number: int) -> list[int]:
    tokens = list(prompt)
    for _ in range(number):
        tokens.append(int(reference.log_probabilities(model, tokens)[-1].argmax()))
    return tokens[len(prompt) :]


@pytest.fixture(scope="module")
def oracle(model: Path):
    return reference.load_model(model)


@pytest.fixture(scope="module", params=SCHEDULES)
def engine(request: pytest.FixtureRequest, model: Path) -> Iterator[Engine]:
    with pytest.MonkeyPatch.context() as patch:
        # compiles through the eager backend: the graph is what is tested, not inductor
        patch.setenv("VLLM_CPU_CI_ENV", "1")
        if request.param == "async scheduling":
            schedule_ahead(patch)
        options = replace(SCHEDULES[request.param], model=model)
        if request.param == "preemption":
            family = json.loads((model / "config.json").read_text())["model_type"]
            options = replace(options, extra={**options.extra, "num_gpu_blocks_override": BLOCKS[family]})
        opened = open_engine(options)
        ahead = opened._llm.llm_engine.vllm_config.scheduler_config.async_scheduling
        assert ahead == (request.param == "async scheduling")
        preempted = count_preemptions(opened) if request.param == "preemption" else None
        yield opened
        opened.close()
        assert preempted is None or preempted, "nothing was preempted"
        os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"


# one token's float32 forward may be off by more than a mean of many
ONE_TOKEN = 3e-5


def test_replay_counts_every_planned_position_once(engine: Engine, oracle):
    # a prefix that is in the cache already is counted all the same
    engine.answer([Request(TEXTS[1].token_ids[:100])], Sampling(1))
    assert_rows(engine.capture(TEXTS), TEXTS, oracle, ONE_TOKEN)


def test_a_unit_of_one_question(engine: Engine, oracle):
    assert_rows(engine.capture(TEXTS[1:2]), TEXTS[1:2], oracle)


@pytest.mark.parametrize("phase", ["response", "both"])
def test_online_counts_what_was_answered(engine: Engine, oracle, phase: str):
    completions, rows = engine.answer_and_capture(PROMPTS, SAMPLING, phase)
    lengths = [len(done.token_ids) for done in completions]
    assert min(lengths) < max(lengths), "no answer ended before another"
    texts = [
        Text((*prompt, *done.token_ids[:-1]), *phase_span(phase, len(prompt), len(prompt) + len(done.token_ids) - 1))
        for prompt, done in zip(PROMPTS, completions, strict=True)
    ]
    assert_rows(rows, texts, oracle, ONE_TOKEN)
