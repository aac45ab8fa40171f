"""The actors of a pool: which places they fill, what each has in flight, and which of them can take a task.

A pool has `max_actors` places; an actor fills one, and when it is lost another takes it. Every operation is O(log n).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush

from cluster.backlog import Job
from cluster.policy import Policy


@dataclass(slots=True, eq=False)
class Actor:
    """One actor, from the wish for it to its end."""

    actor_id: int
    place: int
    placed: bool = False
    ready: bool = False
    jobs: list[Job] = field(default_factory=list)
    # in flight, in the order they were handed over
    since: float | None = None
    # when what it does now can have begun; None: it does nothing
    watched: bool = False
    # a look at its clock is planned
    failed_in_row: set[str] = field(default_factory=set)
    listing: int = 0
    # the number under which it is listed as free; 0: it is not

    @property
    def held_cost(self) -> float:
        return sum(job.task.cost for job in self.jobs)


class Roster:
    """All actors that exist or are wished for, by number."""

    def __init__(self, num_actors: int, max_actors: int, policy: Policy) -> None:
        self.actors: dict[int, Actor] = {}
        self.num_placed = self.num_ready = 0
        self.room = num_actors
        # how many the machines that are up can hold
        self._num_actors, self._max_actors, self._policy = num_actors, max_actors, policy
        self._free: list[list[tuple[float, int, Actor]]] = [[] for _ in range(policy.max_in_flight)]
        # by tasks in flight: held cost, listing, actor; void once the actor is listed under another number
        self._next_actor = self._last_listing = 0
        self.begin_run()

    def __len__(self) -> int:
        return len(self.actors)

    def begin_run(self) -> None:
        """Forgets what was lost before: every place may be filled again."""
        taken = {actor.place for actor in self.actors.values()}
        self._vacant = [place for place in range(self._max_actors) if place not in taken]
        heapify(self._vacant)
        self._losses = [0] * self._max_actors  # by place, in a row
        self.num_used_up = 0
        # places that stay empty

    @property
    def has_vacancy(self) -> bool:
        """Whether one more may be started: as many as were asked for, and beyond that as many as there is room for.

        A place that is used up is not made good by one to grow into, unless there is no other actor at all.
        """
        wanted = max(self._num_actors, min(self._max_actors, self.room)) - self.num_used_up
        return bool(self._vacant) and (not self.actors or len(self.actors) < wanted)

    def start(self) -> Actor:
        """One more, at the first vacant place."""
        actor = Actor(self._next_actor, heappop(self._vacant))
        self._next_actor += 1
        self.actors[actor.actor_id] = actor
        return actor

    def set_placed(self, actor: Actor) -> None:
        self.num_placed += not actor.placed
        actor.placed = True

    def set_ready(self, actor: Actor, ready: bool) -> None:
        self.num_ready += ready - actor.ready
        actor.ready = ready
        self.list_free(actor)

    def hold(self, actor: Actor, job: Job) -> None:
        """The job is in flight on the actor."""
        actor.jobs.append(job)
        self.list_free(actor)

    def release(self, actor: Actor, job: Job) -> None:
        """The job is in flight no longer."""
        actor.jobs.remove(job)
        self.list_free(actor)

    def list_free(self, actor: Actor) -> None:
        """Lists an actor where it can be found, if it can take one more task."""
        depth = len(actor.jobs)
        if actor.ready and depth < len(self._free) and not any(job.alone for job in actor.jobs):
            actor.listing = self._last_listing = self._last_listing + 1
            heap = self._free[depth]
            heappush(heap, (actor.held_cost, actor.listing, actor))
            if len(heap) > 2 * len(self.actors) + 8:  # half of it is void: it must not grow with the run
                heap[:] = [entry for entry in heap if entry[2].listing == entry[1]]
                heapify(heap)
        else:
            actor.listing = 0

    def unlist(self, actor: Actor) -> None:
        """Passes over an actor until it is listed again."""
        actor.listing = 0

    def least_busy(self, num_in_flight: int) -> Actor | None:
        """Of the actors that can take one more and have so many in flight, the one that holds least, then longest."""
        heap = self._free[num_in_flight]
        while heap and heap[0][2].listing != heap[0][1]:
            heappop(heap)
        return heap[0][2] if heap else None

    def remove(self, actor: Actor, forgiven: bool) -> None:
        """Forgets an actor; unless forgiven, its place comes one closer to staying empty."""
        self.set_ready(actor, False)
        self.num_placed -= actor.placed
        del self.actors[actor.actor_id]
        self._losses[actor.place] += not forgiven
        if self._losses[actor.place] <= self._policy.max_actor_restarts:
            heappush(self._vacant, actor.place)
        else:
            self.num_used_up += 1

    def use_up(self, place: int) -> None:
        """Once its actor is removed, unforgiven, the place stays empty for the rest of the run."""
        self._losses[place] = self._policy.max_actor_restarts

    def clear_losses(self, place: int) -> None:
        """A task ended there."""
        self._losses[place] = 0
