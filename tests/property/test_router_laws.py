"""Whatever the scheduler does, every planned position is counted once, and every edited one is edited."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from harvest.probe.router import FOREVER, NoSlotLeft, Router, Segment, Ticket
from harvest.probe.state import IDENTITY, SINK, Routing

CPU = torch.device("cpu")


@dataclass
class Asked:
    """A request as the schedule sees it, and what became of its positions."""

    request_id: str
    length: int
    ticket: Ticket | None
    slot: int = SINK
    computed: int = 0
    counted: Counter[int] = field(default_factory=Counter)

    @property
    def planned(self) -> Counter[int]:
        if self.ticket is None:
            return Counter()
        return Counter(range(self.ticket.count_start, min(self.ticket.count_stop, self.length)))


def place(routing: Routing, segments: list[tuple[Asked, int, int]]) -> None:
    """Read a routing back: which request's position stands at each token of the step, counted where, edited how."""
    owners = [(asked, position + i) for asked, position, length in segments for i in range(length)]
    slots = [int(routing.active_A[at]) for at in routing.local_N]
    tokens = routing.counted_N.tolist()
    assert len(set(tokens)) == len(tokens)
    assert SINK not in slots
    assert [slots.count(int(slot)) for slot in routing.active_A] == routing.tokens_A.tolist()
    for token, slot in zip(tokens, slots, strict=True):
        asked, position = owners[token]
        assert slot == asked.slot
        asked.counted[position] += 1
    edited = dict(zip(routing.edited_E.tolist(), routing.row_E.tolist(), strict=True))
    assert len(edited) == len(routing.edited_E)
    for token, (asked, position) in enumerate(owners):
        ticket = asked.ticket
        inside = ticket is not None and ticket.edit_start <= position < ticket.edit_stop
        assert edited.get(token, IDENTITY) == (ticket.edit_row if ticket and inside else IDENTITY)


@st.composite
def requests(draw: st.DrawFn, number: int) -> Asked:
    length = draw(st.integers(1, 12))
    if draw(st.integers(0, 7)) == 0:
        return Asked(f"stranger {number}", length, None)
    start = draw(st.integers(0, length))
    stop = draw(st.integers(start, length))
    edit = draw(st.sampled_from([(IDENTITY, 0, FOREVER), (1, 0, FOREVER), (2, 0, start), (3, start, FOREVER)]))
    return Asked(f"request {number}", length, Ticket(100 + number, start, stop, *edit))


@settings(deadline=None, max_examples=120)
@given(st.data())
def test_every_planned_position_is_counted_once_under_any_schedule(data: st.DataObject):
    num_slots = data.draw(st.integers(2, 5))
    router = Router(num_slots)
    waiting = [data.draw(requests(number)) for number in range(data.draw(st.integers(1, 8)))]
    every, running, done = list(waiting), [], []
    while waiting or running:
        live = sum(one.slot != SINK for one in running + done)
        for one in list(waiting):
            needs = bool(one.planned)
            if needs and live >= num_slots - 1:
                continue
            if data.draw(st.booleans()) or not running:
                waiting.remove(one)
                running.append(one)
                if one.ticket is not None:
                    router.arrive(one.request_id, one.ticket)
                    (one.slot,) = router.slots([one.ticket.key])
                    assert (one.slot != SINK) == needs
                live += needs
        slots = [one.slot for one in running + done if one.slot != SINK]
        assert len(set(slots)) == len(slots), "two live requests share a slot"
        segments = []
        for one in data.draw(st.permutations(running)):
            what = data.draw(st.integers(0, 5))
            if what == 0 and one.computed:
                # preempted: all of it is forwarded again, and the engine says it is new
                one.computed = 0
                if one.ticket is not None:
                    router.arrive(one.request_id, one.ticket)
            elif what == 1:
                continue
            length = data.draw(st.integers(1, one.length - one.computed))
            segments.append((one, one.computed, length))
            one.computed += length
        place(router.route([Segment(one.request_id, at, length) for one, at, length in segments], CPU), segments)
        finished = [one for one in running if one.computed == one.length]
        router.leave(one.request_id for one in finished)
        running = [one for one in running if one not in finished]
        done += [one for one in finished if one.slot != SINK]
        blocked = not running and bool(waiting)
        if done and (blocked or data.draw(st.booleans())):
            router.release([one.ticket.key for one in done if one.ticket])
            assert router.slots([one.ticket.key for one in done if one.ticket]) == [SINK] * len(done)
            for one in done:
                one.slot = SINK
            done = []
    for one in every:
        assert one.counted == one.planned


def test_a_released_slot_is_given_again_and_no_more_than_there_are():
    router = Router(3)
    for key in (1, 2):
        router.arrive(f"r{key}", Ticket(key, 0, 4))
    with pytest.raises(NoSlotLeft, match="request 3"):
        router.arrive("r3", Ticket(3, 0, 4))
    router.arrive("r4", Ticket(4, 5, 5))
    assert router.slots([4, 99]) == [SINK, SINK]
    (freed,) = router.slots([2])
    router.leave(["r2"])
    router.release([2, 4, 99])
    router.arrive("r3", Ticket(3, 0, 4))
    assert router.slots([3]) == [freed]


def test_a_request_without_a_ticket_is_inert():
    assert Ticket.from_extra_args(None) is None
    assert Ticket.from_extra_args({}) is None
    assert Ticket.from_extra_args({"another": 1}) is None
    router = Router(2)
    router.arrive("mine", Ticket(0, 0, 2))
    routing = router.route([Segment("theirs", 0, 5), Segment("mine", 0, 2), Segment("theirs too", 9, 1)], CPU)
    assert routing.counted_N.tolist() == [5, 6]
    assert routing.edited_E.numel() == 0
    idle = router.route([Segment("theirs", 5, 1)], CPU)
    assert idle.counted_N.numel() == idle.edited_E.numel() == 0
    assert router.route([], CPU).counted_N.numel() == 0


def test_a_finished_request_that_is_forwarded_once_more_is_inert():
    router = Router(2)
    router.arrive("r", Ticket(0, 0, 9, edit_row=1))
    router.leave(["r", "never heard of"])
    routing = router.route([Segment("r", 3, 2)], CPU)
    assert routing.counted_N.numel() == routing.edited_E.numel() == 0


@pytest.mark.parametrize(
    ("start", "stop", "edited"), [(0, 3, [0, 1, 2]), (3, FOREVER, [3, 4]), (0, FOREVER, [*range(5)])]
)
def test_a_phase_ends_with_the_last_prompt_token(start: int, stop: int, edited: list[int]):
    """Prompt of 3, answer of 2: prompt, response and both, chunked through the border."""
    router = Router(2)
    router.arrive("r", Ticket(0, 0, 0, 1, start, stop))
    found = []
    for position, length in ((0, 2), (2, 2), (4, 1)):
        routing = router.route([Segment("other", 0, 1), Segment("r", position, length)], CPU)
        found += [int(token) - 1 + position for token in routing.edited_E]
        assert set(routing.row_E.tolist()) <= {1}
    assert found == edited


@given(st.builds(Ticket, *[st.integers(0, 2**31 - 1)] * 6))
def test_a_ticket_survives_the_journey_through_extra_args(ticket: Ticket):
    extra_args = ticket.to_extra_args()
    assert all(type(value) is int for value in extra_args.values())
    assert Ticket.from_extra_args({**extra_args, "another": 3}) == ticket
