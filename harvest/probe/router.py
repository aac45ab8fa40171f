"""Which token is whose: a request's journey, and the routing of each step. Plain integers; knows no engine."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from harvest.probe.state import IDENTITY, SINK, Routing

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
class Segment:
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


class NoSlotLeft(RuntimeError):
    """More requests want to be counted at once than there are slots: the asker's bug."""


class Router:
    """Keeps every request's journey; slots are given at arrival and freed when their rows are collected."""

    def __init__(self, num_slots: int) -> None:
        self._free = list(range(num_slots - 1, SINK, -1))
        self._journeys: dict[str, Journey] = {}
        self._slot_of_key: dict[int, int] = {}

    def arrive(self, request_id: str, ticket: Ticket) -> None:
        """A request, new or come back after a preemption; the latter keeps its slot and its high-water mark."""
        if request_id in self._journeys:
            return
        slot = SINK
        if ticket.count_start < ticket.count_stop:
            if not self._free:
                raise NoSlotLeft(f"no slot left for request {ticket.key}: collect finished units first")
            slot = self._free.pop()
            self._slot_of_key[ticket.key] = slot
        self._journeys[request_id] = Journey(ticket, slot, ticket.count_start)

    def leave(self, request_ids: Iterable[str]) -> None:
        for request_id in request_ids:
            self._journeys.pop(request_id, None)

    def slots(self, keys: Sequence[int]) -> list[int]:
        """The slots of these keys; SINK for a request that had nothing to count."""
        return [self._slot_of_key.get(key, SINK) for key in keys]

    def release(self, keys: Sequence[int]) -> None:
        for key in keys:
            slot = self._slot_of_key.pop(key, SINK)
            if slot != SINK:
                self._free.append(slot)

    def route(self, segments: Sequence[Segment], device: torch.device) -> Routing:
        """The routing of one step, and the high-water marks moved past it."""
        legs = _Legs()
        offset = 0
        for segment in segments:
            journey = self._journeys.get(segment.request_id)
            if journey is not None:
                legs.add(journey, segment, offset)
            offset += segment.length
        return legs.as_routing(device)


@dataclass(slots=True)
class _Legs:
    """What one step counts and edits, request by request."""

    counted: list[np.ndarray] = field(default_factory=list)
    # indices of tokens in the batch
    active: list[int] = field(default_factory=list)
    # the slot of each entry above
    edited: list[np.ndarray] = field(default_factory=list)
    rows: list[int] = field(default_factory=list)
    # the edit row of each entry above

    def add(self, journey: Journey, segment: Segment, offset: int) -> None:
        ticket, end = journey.ticket, segment.position + segment.length
        start, stop = max(segment.position, journey.high_water), min(end, ticket.count_stop)
        if journey.slot != SINK and start < stop:
            self.counted.append(np.arange(start, stop) - segment.position + offset)
            self.active.append(journey.slot)
            journey.high_water = stop
        start, stop = max(segment.position, ticket.edit_start), min(end, ticket.edit_stop)
        if ticket.edit_row != IDENTITY and start < stop:
            self.edited.append(np.arange(start, stop) - segment.position + offset)
            self.rows.append(ticket.edit_row)

    def as_routing(self, device: torch.device) -> Routing:
        if not self.counted and not self.edited:
            return Routing.at_rest()
        tokens = [len(at) for at in self.counted]

        def whole(values: np.ndarray | list[int]) -> torch.Tensor:
            return torch.from_numpy(np.asarray(values, np.int64)).to(device)

        return Routing(
            counted_N=whole(_joined(self.counted)),
            local_N=whole(np.repeat(np.arange(len(tokens)), tokens)),
            active_A=whole(self.active),
            tokens_A=torch.tensor(tokens, dtype=torch.float64, device=device),
            edited_E=whole(_joined(self.edited)),
            row_E=whole(np.repeat(np.asarray(self.rows, np.int64), [len(at) for at in self.edited])),
        )


def _joined(parts: list[np.ndarray]) -> np.ndarray:
    return np.concatenate([np.zeros(0, np.int64), *parts])
