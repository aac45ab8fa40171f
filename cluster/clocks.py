"""Whose time is up."""

from __future__ import annotations

from collections.abc import Iterator
from heapq import heappop, heappush

from cluster.roster import Actor


class Clocks:
    """One clock an actor, for what it does now; starting one again costs O(log n), and reading them all nothing."""

    def __init__(self, deadline_s: float | None) -> None:
        self._deadline_s = deadline_s
        self._due: list[tuple[float, int, float, Actor]] = []
        # when, number, since, actor; void once the actor's own `since` differs

    def start(self, actor: Actor, now: float) -> None:
        """What the actor does now began now."""
        actor.since = now
        if self._deadline_s is not None:
            heappush(self._due, (now + self._deadline_s, actor.actor_id, now, actor))

    def stop(self, actor: Actor) -> None:
        """The actor does nothing."""
        actor.since = None

    def overdue(self, now: float) -> Iterator[Actor]:
        """The actors that have been at it for longer than the deadline, each told once."""
        while self._due and self._due[0][0] < now:
            _, _, since, actor = heappop(self._due)
            if actor.since == since:
                self.stop(actor)
                yield actor
