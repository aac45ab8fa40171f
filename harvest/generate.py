"""Requests with edit rows become completions, each generated once for ever.

An answer's key is its content: model, prompt tokens, sampling, edit row. Answers are committed in Parquet units of
some hundred; the commit names the keys it holds, so a study finds every answer that any study ever made.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from cluster.task import Task
from harvest.fleet import Fleet
from harvest.provenance import provenance
from harvest.store.commit import Commit, Store
from harvest.store.key import digest, unit_name
from harvest.types import Completion, Request, Sampling

if TYPE_CHECKING:
    from harvest.engine.engine import Engine

_REQUESTS_PER_TASK = 256
_COLUMNS = pa.schema(
    [
        ("answer_key", pa.string()),
        ("token_ids", pa.list_(pa.int32())),
        ("text", pa.string()),
        ("finish_reason", pa.string()),
    ]
)


@dataclass(frozen=True, slots=True)
class Generation:
    """All that an answer depends on beside its request."""

    model: str
    # names all of the checkpoint that an answer depends on
    dtype: str
    sampling: Sampling
    mode: str = "replay"
    # answers that were counted while they were made are answers of their own

    def key(self, request: Request) -> str:
        content = {
            "model": self.model,
            "dtype": self.dtype,
            "sampling": self.sampling.content(),
            "prompt": list(request.prompt_token_ids),
            "edit": request.edit.fingerprint if request.edit else None,
        }
        return digest(content if self.mode == "replay" else {**content, "mode": self.mode})


def answers_unit(keys: Sequence[str]) -> str:
    """The name of the unit that holds these answers."""
    return unit_name("answers", {"answers": list(keys)})


def commit_answers(
    store: Store, keys: Sequence[str], completions: Sequence[Completion], source: dict[str, object]
) -> None:
    columns = {
        "answer_key": list(keys),
        "token_ids": [list(completion.token_ids) for completion in completions],
        "text": [completion.text for completion in completions],
        "finish_reason": [completion.finish_reason for completion in completions],
    }
    write = partial(pq.write_table, pa.table(columns, schema=_COLUMNS))
    store.commit(answers_unit(keys), ".parquet", write, source, members=tuple(keys))


@dataclass(frozen=True, slots=True)
class GenerationTask:
    """Some requests for one engine; running it commits their answers."""

    keys: tuple[str, ...]
    requests: tuple[Request, ...]
    sampling: Sampling
    store: Store

    @property
    def unit(self) -> str:
        return answers_unit(self.keys)

    def run(self, engine: Engine) -> str:
        completions = engine.answer(self.requests, self.sampling)
        commit_answers(self.store, self.keys, completions, provenance(engine.provenance))
        return self.unit


class Answers:
    """The answers that a store holds, found by key; of an answer made twice, the earlier commit's counts."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._home: dict[str, Commit] = {}
        for commit in store.commits("answers"):
            for key in commit.members:
                self._home.setdefault(key, commit)

    def __contains__(self, key: str) -> bool:
        return key in self._home

    def read(self, keys: Iterable[str]) -> dict[str, Completion]:
        """The completions of these keys, each unit's file read once and checked against its commit."""
        wanted = set(keys)
        homes = {self._home[key].unit: self._home[key] for key in wanted}
        found: dict[str, Completion] = {}
        for commit in homes.values():
            for row in pq.read_table(pa.BufferReader(self._store.open(commit).read()), schema=_COLUMNS).to_pylist():
                key = row["answer_key"]
                if key in wanted and self._home[key].unit == commit.unit:
                    found[key] = Completion(tuple(row["token_ids"]), row["text"], row["finish_reason"])
        return found


def pending(requests: Sequence[Request], generation: Generation, store: Store) -> dict[str, Request]:
    """The requests whose answers no study has made yet, by key, each once, in the order asked."""
    answers = Answers(store)
    keyed = {generation.key(request): request for request in requests}
    return {key: request for key, request in keyed.items() if key not in answers}


def generate(
    stage: str, requests: Sequence[Request], generation: Generation, store: Store, fleet: Fleet
) -> list[Completion]:
    """The answers in the order asked; only those that the store lacks are generated.

    Raises UnitsFailed if some could not be generated; the others are kept.
    """
    missing = list(pending(requests, generation, store).items())
    size = min(_REQUESTS_PER_TASK, max(1, -(-len(missing) // fleet.num_engines)))
    tasks = []
    for start in range(0, len(missing), size):
        keys, some = zip(*missing[start : start + size], strict=True)
        task = GenerationTask(keys, some, generation.sampling, store)
        tasks.append(Task(task.unit, task, cost=float(sum(len(request.prompt_token_ids) for request in some))))
    fleet.run(stage, tasks)
    keys_asked = [generation.key(request) for request in requests]
    found = Answers(store).read(keys_asked)
    return [found[key] for key in keys_asked]
