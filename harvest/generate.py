"""Requests with edit rows become completions, each generated once for ever.

An answer's key is its content: model, prompt tokens, sampling, edit row. Answers are committed in Parquet units of
some hundred; the commit names the keys it holds, so a study finds every answer that any study ever made.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from threading import Lock
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from cluster.task import Task
from harvest.errors import StoreError
from harvest.fleet import Fleet
from harvest.provenance import Pass, Source, provenance, timed
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


def commit_answers(store: Store, keys: Sequence[str], completions: Sequence[Completion], source: Source) -> None:
    columns = {
        "answer_key": list(keys),
        "token_ids": [list(completion.token_ids) for completion in completions],
        "text": [completion.text for completion in completions],
        "finish_reason": [completion.finish_reason for completion in completions],
    }
    write = partial(pq.write_table, pa.table(columns, schema=_COLUMNS))
    store.commit(answers_unit(keys), ".parquet", write, source, members=tuple(keys))


@dataclass(frozen=True, slots=True)
class Generated:
    """Answers that are not committed yet."""

    keys: tuple[str, ...]
    completions: list[Completion]
    source: Source
    tokens: int
    # forwarded and sampled


@dataclass(frozen=True, slots=True)
class GenerationTask:
    """Some requests for one engine; keeping it commits their answers."""

    keys: tuple[str, ...]
    requests: tuple[Request, ...]
    sampling: Sampling
    store: Store

    @property
    def unit(self) -> str:
        return answers_unit(self.keys)

    def wanted(self) -> dict[str, Request]:
        """The requests that nobody has answered since the task was made, by key."""
        there = answered_by_now(self.store, self.keys)
        return {key: request for key, request in zip(self.keys, self.requests, strict=True) if key not in there}

    def measure(self, engine: Engine, wanted: Mapping[str, Request]) -> Generated:
        requests = tuple(wanted.values())
        completions, wall_s = timed(lambda: engine.answer(requests, self.sampling))
        prefilled = sum(len(request.prompt_token_ids) for request in requests)
        work = Pass("generate", wall_s, prefilled, sum(len(done.token_ids) for done in completions))
        return Generated(tuple(wanted), completions, provenance(engine.provenance, work), work.tokens)

    def keep(self, measured: Generated) -> int:
        """Commit what was generated; the tokens that were forwarded and sampled for it."""
        commit_answers(self.store, measured.keys, measured.completions, measured.source)
        return measured.tokens


class Answers:
    """The answers that a store holds, found by key; of an answer made twice, the earlier commit's counts."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._home: dict[str, Commit] = {}
        self._read: set[str] = set()
        # units
        self.refresh()

    def refresh(self) -> None:
        """See what was committed since; a commit never changes, so each is read once."""
        for commit in self._store.commits("answers", self._read):
            self._read.add(commit.unit)
            for key in commit.members:
                known = self._home.setdefault(key, commit)
                if (commit.created_ns, commit.unit) < (known.created_ns, known.unit):
                    self._home[key] = commit

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


_looking = Lock()
# tasks of one process ask from several threads


@cache
def _seen_here(store: Store) -> Answers:
    return Answers(store)


def answered_by_now(store: Store, keys: Iterable[str]) -> set[str]:
    """Those of the keys whose answers are committed; cheap to ask again and again in one process."""
    with _looking:
        answers = _seen_here(store)
        answers.refresh()
        return {key for key in keys if key in answers}


def pending(requests: Sequence[Request], generation: Generation, store: Store) -> dict[str, Request]:
    """The requests whose answers no study has made yet, by key, each once, in the order asked."""
    return _pending(_keyed(requests, generation), Answers(store))


def _keyed(requests: Sequence[Request], generation: Generation) -> list[tuple[str, Request]]:
    return [(generation.key(request), request) for request in requests]


def _pending(keyed: Iterable[tuple[str, Request]], answers: Answers) -> dict[str, Request]:
    return {key: request for key, request in dict(keyed).items() if key not in answers}


def answers_plan(requests: Sequence[Request], generation: Generation) -> dict[str, object]:
    """The answers that are asked for, as a plan names them: by key, each once."""
    return {"answers": list(dict(_keyed(requests, generation)))}


def generate(
    stage: str, requests: Sequence[Request], generation: Generation, store: Store, fleet: Fleet
) -> list[Completion]:
    """The answers in the order asked; only those that the store lacks are generated.

    Raises UnitsFailed if some could not be generated; the others are kept; StoreError if the store
    lacks answers that were.
    """
    keyed, answers = _keyed(requests, generation), Answers(store)
    missing = list(_pending(keyed, answers).items())
    size = min(_REQUESTS_PER_TASK, max(1, -(-len(missing) // fleet.num_engines)))
    tasks = []
    for start in range(0, len(missing), size):
        keys, some = zip(*missing[start : start + size], strict=True)
        task = GenerationTask(keys, some, generation.sampling, store)
        # tokens, at most
        cost = sum(len(request.prompt_token_ids) + generation.sampling.max_tokens for request in some)
        tasks.append(Task(task.unit, task, cost=float(cost)))
    fleet.run(stage, tasks)
    answers.refresh()
    if lost := [key for key, _ in missing if key not in answers]:
        raise StoreError(
            f"store {store.root}: lacks {len(lost)} of {len(missing)} answers that {stage} has just committed "
            f"(the first: {lost[0]}); make it the same place on every node and run again"
        )
    found = answers.read(key for key, _ in keyed)
    return [found[key] for key, _ in keyed]
