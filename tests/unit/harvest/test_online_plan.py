"""What an online capture asks at once: whole blocks, each answer once, as many as fit."""

from __future__ import annotations

from pathlib import Path

import pytest

from harvest.capture import Capturing
from harvest.generate import Generation
from harvest.online import REQUESTS_PER_TASK, Asked, OnlineTask, answer_online
from harvest.store.commit import Store
from harvest.types import OptionOrder, Prompt, Sampling

GENERATION = Generation("model-1", "float32", Sampling(20), "online")
CAPTURING = Capturing("model-1", "float32", "response", "online", ("moments", "rows"))


class Enough(Exception):
    """The tasks were seen."""


class Watching:
    """A fleet that shows what it is asked to run, and runs nothing."""

    num_engines = 1

    def run(self, stage: str, tasks: list) -> None:
        self.tasks: list[OnlineTask] = [task.payload for task in tasks]
        assert len({task.task_id for task in tasks}) == len(tasks)
        raise Enough


def asked(group: str, number: int, token: int) -> Asked:
    question_id = f"q{number}"
    return Asked(Prompt(f"{group}/{question_id}", group, question_id, OptionOrder.PUBLISHED, (token, number)), "d")


def tasks_for(prompts: list[Asked], store: Path) -> list[OnlineTask]:
    fleet = Watching()
    with pytest.raises(Enough):
        answer_online(prompts, GENERATION, CAPTURING, Store(store), fleet)  # type: ignore[arg-type]
    return fleet.tasks


def test_every_prompt_is_asked_once_in_tasks_of_whole_blocks(tmp_path: Path):
    prompts = [asked(f"b.en/V/{aspect}", number, at) for at, aspect in enumerate("ab") for number in range(200)]
    tasks = tasks_for(prompts, tmp_path)
    sizes = [sum(map(len, task.blocks)) for task in tasks]
    assert sum(sizes) == 400
    assert max(sizes) <= REQUESTS_PER_TASK
    keys = [key for task in tasks for key in task.keys]
    assert len(set(keys)) == 400


def test_what_two_groups_ask_alike_is_asked_for_one_of_them(tmp_path: Path):
    """The other's answers are there then, and are replayed."""
    prompts = [asked(f"{name}.en/V/a", number, 0) for name in ("one", "two") for number in range(120)]
    tasks = tasks_for(prompts, tmp_path)
    keys = [key for task in tasks for key in task.keys]
    assert len(keys) == len(set(keys)) == 120
    assert {block[0].prompt.group for task in tasks for block in task.blocks} == {"one.en/V/a"}
