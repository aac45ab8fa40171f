"""Whose time is up."""

from __future__ import annotations

from collections.abc import Iterator
from heapq import heappop, heappush

from cluster.roster import Actor


class Clocks:
    """One clock an actor, for what it does now. Starting one again is free, and so is asking while nobody is late."""

    def __init__(self, deadline_s: float | None) -> None:
        self._deadline_s = deadline_s
        self._checks: list[tuple[float, int, Actor]] = []
        # when to look at an actor next, at most one entry each; it may have begun something else by then

    def start(self, actor: Actor, now: float) -> None:
        """What the actor does now began now."""
        actor.since = now
        if self._deadline_s is not None and not actor.watched:
            self._watch(actor, now + self._deadline_s)

    def stop(self, actor: Actor) -> None:
        """The actor does nothing."""
        actor.since = None

    def overdue(self, now: float) -> Iterator[Actor]:
        """The actors that have been at it for longer than the deadline, each told once."""
        while self._deadline_s is not None and self._checks and self._checks[0][0] < now:
            _, _, actor = heappop(self._checks)
            actor.watched = False
            if actor.since is None:
                continue
            due = actor.since + self._deadline_s
            if due < now:
                self.stop(actor)
                yield actor
            else:
                self._watch(actor, due)

    def _watch(self, actor: Actor, due: float) -> None:
        actor.watched = True
        heappush(self._checks, (due, actor.actor_id, actor))
