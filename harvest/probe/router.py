"""Which token is whose: a request's journey, and the routing of each step. Plain integers; knows no engine."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from harvest.errors import EngineError
from harvest.probe.state import IDENTITY, SINK, Edited, Routing, Segment

FOREVER = 2**31 - 1
# past any position


@dataclass(frozen=True, slots=True)
class Ticket:
    """What a request carries through the engine, as small integers (its `extra_args`)."""

    key: int
    # the asker's own number for the request; engine ids are not the asker's to choose
    count_start: int = 0
    count_stop: int = 0
    # positions [start, stop) are counted; empty: the sink
    edit_row: int = IDENTITY
    edit_start: int = 0
    edit_stop: int = FOREVER

    def to_extra_args(self) -> dict[str, int]:
        return {f"value_harvest_{name}": int(getattr(self, name)) for name in self.__slots__}

    @staticmethod
    def from_extra_args(extra_args: Mapping[str, int] | None) -> Ticket | None:
        """The ticket, or None for a request that carries none (a warm-up, another user's)."""
        if not extra_args or "value_harvest_key" not in extra_args:
            return None
        return Ticket(**{name: extra_args[f"value_harvest_{name}"] for name in Ticket.__slots__})


@dataclass(frozen=True, slots=True)
class Stretch:
    """A request's tokens in one step: consecutive in the batch, consecutive in position."""

    request_id: str
    position: int
    # of its first token
    length: int


@dataclass(slots=True)
class Journey:
    ticket: Ticket
    slot: int
    high_water: int
    # positions below were counted already; a recomputed one (preemption) is not counted again
    held: int = 0
    # of the counted tokens, how many the slot still holds back

    @property
    def counted(self) -> int:
        return self.high_water - self.ticket.count_start


class NoSlotLeft(EngineError):
    """A request wants to be counted and cannot: no slot is free, or another one of the same key is counted still."""


class Router:
    """Keeps every request's journey; slots are given at arrival and freed when their rows are collected."""

    def __init__(self, num_slots: int, holds: int = 0) -> None:
        self._holds = holds
        self._num_slots = num_slots
        self._free = list(range(num_slots - 1, SINK, -1))
        self._journeys: dict[str, Journey] = {}
        self._counted: dict[int, Journey] = {}
        # by key, until they are released: a journey's count outlives it

    def arrive(self, request_id: str, ticket: Ticket) -> None:
        """A request, new or come back after a preemption; the latter keeps its slot and its high-water mark."""
        if request_id in self._journeys:
            return
        journey = Journey(ticket, SINK, ticket.count_start)
        if ticket.count_start < ticket.count_stop:
            if ticket.key in self._counted or not self._free:
                raise NoSlotLeft(
                    f"request {ticket.key} of a unit cannot be counted: its key is taken, or none of "
                    f"{self._num_slots - 1} slots is free; a unit before it was not released, report it as a bug"
                )
            journey.slot = self._free.pop()
            self._counted[ticket.key] = journey
        self._journeys[request_id] = journey

    def leave(self, request_ids: Iterable[str]) -> None:
        for request_id in request_ids:
            self._journeys.pop(request_id, None)

    def journeys(self, keys: Sequence[int]) -> list[Journey | None]:
        """The journeys of these keys; None for a request that never came or had nothing to count."""
        return [self._counted.get(key) for key in keys]

    def release(self, keys: Sequence[int]) -> None:
        for key in keys:
            journey = self._counted.pop(key, None)
            if journey is not None:
                self._free.append(journey.slot)
                # should it still be forwarded, it counts no more
                journey.slot = SINK

    def route(self, stretches: Sequence[Stretch], device: torch.device) -> Routing:
        """The routing of one step, and the journeys moved past it."""
        legs = _Legs(self._holds)
        offset = 0
        for stretch in stretches:
            journey = self._journeys.get(stretch.request_id)
            if journey is not None:
                legs.count(journey, stretch, offset)
                legs.edit(journey.ticket, stretch, offset)
            offset += stretch.length
        return legs.as_routing(device)


@dataclass(slots=True)
class _Legs:
    """What one step counts and edits, request by request."""

    holds: int
    segments: list[Segment] = field(default_factory=list)
    edited: list[np.ndarray] = field(default_factory=list)
    # indices of tokens in the batch
    rows: list[int] = field(default_factory=list)
    # the edit row of each entry above

    def count(self, journey: Journey, stretch: Stretch, offset: int) -> None:
        start = max(stretch.position, journey.high_water)
        stop = min(stretch.position + stretch.length, journey.ticket.count_stop)
        if journey.slot == SINK or start >= stop:
            return
        begin, length = start - stretch.position + offset, stop - start
        self.segments.append(Segment(begin, length, journey.slot, journey.held, journey.counted))
        alone = length == 1 and self.holds > 0
        journey.held = journey.held % self.holds + 1 if alone else 0
        journey.high_water = stop

    def edit(self, ticket: Ticket, stretch: Stretch, offset: int) -> None:
        start = max(stretch.position, ticket.edit_start)
        stop = min(stretch.position + stretch.length, ticket.edit_stop)
        if ticket.edit_row != IDENTITY and start < stop:
            self.edited.append(np.arange(start, stop) - stretch.position + offset)
            self.rows.append(ticket.edit_row)

    def as_routing(self, device: torch.device) -> Routing:
        routing = Routing(self.segments, _runs(self.segments))
        if self.edited:
            rows = np.repeat(np.asarray(self.rows, np.int64), [len(at) for at in self.edited])
            tokens = np.concatenate(self.edited)
            routing.edited = Edited(torch.from_numpy(tokens).to(device), torch.from_numpy(rows).to(device))
        return routing


def _runs(segments: Sequence[Segment]) -> list[tuple[int, int]]:
    """Maximal stretches [begin, end) of counted tokens."""
    runs: list[tuple[int, int]] = []
    for begin, length, *_ in segments:
        if runs and runs[-1][1] == begin:
            runs[-1] = (runs[-1][0], begin + length)
        else:
            runs.append((begin, begin + length))
    return runs
