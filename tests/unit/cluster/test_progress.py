"""What a person sees of a run."""

from __future__ import annotations

from io import StringIO

from rich.console import Console

from cluster.progress import Progress
from cluster.task import Counts


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def shown(console: Console, out: StringIO) -> str:
    clock = Clock()
    progress = Progress("capture", console, every_s=5.0, clock=clock)
    progress.begin(40)
    for done in range(41):
        progress.update(Counts(total=40, done=done, quarantined=0, retries=1, actors=2))
        clock.now += 0.25
    progress.end(Counts(total=40, done=40, quarantined=0, retries=1, actors=2))
    return out.getvalue()


def test_piped_it_writes_a_plain_line_now_and_then_and_the_last_one() -> None:
    out = StringIO()
    assert shown(Console(file=out, force_terminal=False, soft_wrap=True), out).splitlines() == [
        "capture 20/40 tasks, 2 actors, 1 retries, 0 quarantined, 5.0 s",
        "capture 40/40 tasks, 2 actors, 1 retries, 0 quarantined, 10.0 s",
        "capture 40/40 tasks, 2 actors, 1 retries, 0 quarantined, 10.2 s",
    ]


def test_on_a_terminal_the_last_line_stands() -> None:
    out = StringIO()
    text = shown(Console(file=out, force_terminal=True, width=120, soft_wrap=True, highlight=False), out)
    assert text.endswith("capture 40/40 tasks, 2 actors, 1 retries, 0 quarantined, 10.2 s\n")


def test_a_label_with_brackets_is_text() -> None:
    out = StringIO()
    progress = Progress("[red]x", Console(file=out, force_terminal=False), clock=Clock())
    progress.begin(0)
    progress.end(Counts(0, 0, 0, 0, 0))
    assert out.getvalue().startswith("[red]x 0/0 tasks")
