"""An answer is generated once for ever: its key is its content, and the first commit wins."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from captured import run_task

from cluster.task import Task
from harvest.engine.options import EngineOptions
from harvest.errors import DamagedStore, StoreError
from harvest.generate import Answers, Generation, GenerationTask, generate, pending
from harvest.store.commit import Store
from harvest.store.verify import verify_store
from harvest.types import Completion, Edit, EditRow, Request, Sampling

GENERATION = Generation("model-1", "bfloat16", Sampling(20))
REQUESTS = [Request((1, 2, number)) for number in range(4)]


@dataclass
class Talker:
    """An engine that answers by rote: what is tested is what becomes of the answers."""

    words: str
    options: EngineOptions = field(default_factory=lambda: EngineOptions(Path("m")))
    asked: list[Request] = field(default_factory=list)

    @property
    def provenance(self) -> dict[str, object]:
        return self.options.provenance()

    def answer(self, requests: Sequence[Request], sampling: Sampling) -> list[Completion]:
        self.asked += requests
        return [
            Completion((*request.prompt_token_ids, 9), f"{self.words} {request.prompt_token_ids[-1]}", "stop")
            for request in requests
        ]


def task(store: Store, requests: Sequence[Request], generation: Generation = GENERATION) -> GenerationTask:
    return GenerationTask(tuple(map(generation.key, requests)), tuple(requests), generation.sampling, store)


def test_equal_content_has_an_equal_key():
    edit = Edit("f00", EditRow.identity())
    assert GENERATION.key(Request((1, 2))) == Generation("model-1", "bfloat16", Sampling(20)).key(Request((1, 2)))
    assert GENERATION.key(Request((1,), edit)) == GENERATION.key(Request((1,), Edit("f00", EditRow.identity())))


def test_whatever_an_answer_depends_on_changes_its_key():
    request, sampling = Request((1, 23)), GENERATION.sampling
    keys = [
        GENERATION.key(request),
        *(
            replace(GENERATION, **change).key(request)
            for change in (
                {"model": "model-2"},
                {"dtype": "float32"},
                *(
                    {"sampling": replace(sampling, **{name: value})}
                    for name, value in (
                        ("max_tokens", 21),
                        ("repetition_penalty", 1.1),
                        ("temperature", 0.5),
                        ("seed", 1),
                    )
                ),
            )
        ),
        GENERATION.key(Request((1, 2, 3))),
        GENERATION.key(Request((12, 3))),
        GENERATION.key(Request((23, 1))),
        GENERATION.key(Request(())),
        GENERATION.key(Request((1, 23), Edit("a", EditRow.identity()))),
        GENERATION.key(Request((1, 23), Edit("b", EditRow.identity()))),
    ]
    assert len(set(keys)) == len(keys)


def test_answers_come_back_as_they_were_given(tmp_path: Path):
    store = Store(tmp_path / "store").prepare()
    strange = [Completion((), "", "length"), Completion((0, 2**31 - 1), "\x00 和谐 \U0001f600 <script>", "stop")]

    class Strange(Talker):
        def answer(self, requests, sampling):
            return strange

    run_task(task(store, REQUESTS[:2]), Strange(""))
    keys = [GENERATION.key(request) for request in REQUESTS[:2]]
    assert Answers(store).read(keys) == dict(zip(keys, strange, strict=True))
    assert verify_store(store.root) == []


def test_pending_is_each_missing_request_once_in_the_order_asked(tmp_path: Path):
    store = Store(tmp_path / "store").prepare()
    a, b, c, d = REQUESTS
    assert list(pending([c, a, c, b, a], GENERATION, store).values()) == [c, a, b]
    run_task(task(store, [a, d]), Talker("one"))
    assert list(pending([c, a, c, b, d], GENERATION, store).values()) == [c, b]
    assert list(pending([a], replace(GENERATION, dtype="float32"), store).values()) == [a]
    assert pending([], GENERATION, store) == {}


def test_the_first_commit_of_an_answer_counts_for_ever(tmp_path: Path):
    store = Store(tmp_path / "store").prepare()
    a, b, c, _ = REQUESTS
    run_task(task(store, [a, b]), Talker("first"))
    # another study, another company: the same request twice in the store
    run_task(task(store, [b, c]), Talker("second"))
    found = Answers(store).read(map(GENERATION.key, (a, b, c)))
    assert [found[GENERATION.key(one)].text for one in (a, b, c)] == ["first 0", "first 1", "second 2"]


def test_a_task_measured_twice_leaves_the_first_answers(tmp_path: Path):
    store = Store(tmp_path / "store").prepare()
    all_ = task(store, REQUESTS).wanted()
    first, late = (task(store, REQUESTS).measure(Talker(words), all_) for words in ("first", "second"))
    for measured in (first, late):
        task(store, REQUESTS).keep(measured)
    assert len(store.commits("answers")) == 1
    assert {one.text.split()[0] for one in Answers(store).read(map(GENERATION.key, REQUESTS)).values()} == {"first"}


def test_a_task_asks_only_what_nobody_has_answered_since_it_was_made(tmp_path: Path):
    store = Store(tmp_path / "store").prepare()
    a, b, c, d = REQUESTS
    ours, theirs, mine = task(store, [a, b, c]), task(store, [b, d]), Talker("mine")
    assert run_task(theirs, Talker("theirs")) == 2 * (3 + 4)
    assert run_task(ours, mine) == 2 * (3 + 4), "tokens of what was asked alone"
    assert mine.asked == [a, c]
    assert run_task(ours, mine) == run_task(task(store, [d, a]), mine) == 0
    assert mine.asked == [a, c]
    texts = {one.text for one in Answers(store).read(map(GENERATION.key, REQUESTS)).values()}
    assert texts == {"mine 0", "theirs 1", "mine 2", "theirs 3"}
    paid = [commit.provenance["tokens"] for commit in store.commits("answers")]
    assert paid == [{"prefilled": 6, "generated": 8}] * 2


def test_an_engine_that_answers_too_few_commits_nothing(tmp_path: Path):
    store = Store(tmp_path / "store").prepare()

    class Short(Talker):
        def answer(self, requests, sampling):
            return super().answer(requests, sampling)[1:]

    with pytest.raises(ValueError, match=r"equal length|same length|expected length"):
        run_task(task(store, REQUESTS), Short("x"))
    assert store.commits("answers") == []


class Elsewhere:
    """A fleet whose nodes have another disk at the store's path."""

    num_engines = 1

    def run(self, stage: str, tasks: list[Task]) -> None:
        pass


def test_answers_that_went_elsewhere_are_a_typed_error(tmp_path: Path):
    store = Store(tmp_path / "store").prepare()
    with pytest.raises(StoreError, match=rf"^store {store.root}: lacks 4 of 4 answers that respond has just") as caught:
        generate("respond", REQUESTS, GENERATION, store, Elsewhere())
    assert caught.value.ends_run
    assert "\n" not in str(caught.value)


def test_a_changed_answer_is_an_error_and_not_an_answer(tmp_path: Path):
    store = Store(tmp_path / "store").prepare()
    run_task(task(store, REQUESTS), Talker("first"))
    (commit,) = store.commits("answers")
    path = Path(str(store.open(commit)))
    path.write_bytes(path.read_bytes().replace(b"first 0", b"fIrst 0"))
    with pytest.raises(DamagedStore):
        Answers(store).read([GENERATION.key(REQUESTS[0])])


def test_an_answer_says_where_it_came_from(tmp_path: Path):
    store = Store(tmp_path / "store").prepare()
    run_task(task(store, REQUESTS), Talker("x"))
    (commit,) = store.commits("answers")
    assert (commit.provenance["mode"], commit.provenance["wall_s"] >= 0) == ("generate", True)
    assert commit.provenance["engine"]["dtype"] == "bfloat16"
    assert commit.provenance["versions"]["python"].startswith("3.")
    assert commit.provenance["host"]
