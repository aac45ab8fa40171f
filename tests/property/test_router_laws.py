"""Whatever the scheduler does, every planned position is counted once, and every edited one is edited."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from harvest.probe.router import FOREVER, NoSlotLeft, Router, Stretch, Ticket
from harvest.probe.state import IDENTITY, SINK, Routing

CPU = torch.device("cpu")
HOLDS = 3


@dataclass
class Asked:
    """A request as the schedule sees it, and what became of its positions."""

    request_id: str
    length: int
    ticket: Ticket | None
    slot: int = SINK
    computed: int = 0
    held: int = 0
    counted: Counter[int] = field(default_factory=Counter)

    @property
    def planned(self) -> Counter[int]:
        if self.ticket is None:
            return Counter()
        return Counter(range(self.ticket.count_start, min(self.ticket.count_stop, self.length)))


def edits_of(routing: Routing) -> dict[int, int]:
    """The edit row of each edited token."""
    if routing.edited is None:
        return {}
    tokens, rows = (each.tolist() for each in routing.edited)
    assert len(set(tokens)) == len(tokens)
    return dict(zip(tokens, rows, strict=True))


def slots_of(router: Router, keys: list[int]) -> list[int]:
    return [journey.slot if journey else SINK for journey in router.journeys(keys)]


def place(routing: Routing, segments: list[tuple[Asked, int, int]]) -> None:
    """Read a routing back: which request's position stands at each token of the step, counted where, edited how."""
    owners = [(asked, position + i) for asked, position, length in segments for i in range(length)]
    assert len({segment.slot for segment in routing.segments}) == len(routing.segments)
    counted = []
    for segment in routing.segments:
        asked, position = owners[segment.begin]
        assert SINK != segment.slot == asked.slot
        assert segment.before == asked.counted.total()
        assert segment.held == asked.held
        asked.held = asked.held % HOLDS + 1 if segment.length == 1 else 0
        asked.counted.update(range(position, position + segment.length))
        counted += range(segment.begin, segment.begin + segment.length)
        assert all(owners[token][0] is asked for token in counted[-segment.length :])
    assert [token for begin, end in routing.runs for token in range(begin, end)] == counted
    assert all(end < begin for (_, end), (begin, _) in pairwise(routing.runs))
    edited = edits_of(routing)
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
    router = Router(num_slots, HOLDS)
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
                    (one.slot,) = slots_of(router, [one.ticket.key])
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
        place(router.route([Stretch(one.request_id, at, length) for one, at, length in segments], CPU), segments)
        finished = [one for one in running if one.computed == one.length]
        router.leave(one.request_id for one in finished)
        running = [one for one in running if one not in finished]
        done += [one for one in finished if one.slot != SINK]
        blocked = not running and bool(waiting)
        if done and (blocked or data.draw(st.booleans())):
            router.release([one.ticket.key for one in done if one.ticket])
            assert slots_of(router, [one.ticket.key for one in done if one.ticket]) == [SINK] * len(done)
            for one in done:
                one.slot = SINK
            done = []
    for one in every:
        assert one.counted == one.planned


def test_a_released_slot_is_given_again_and_no_more_than_there_are():
    router = Router(3)
    for key in (1, 2):
        router.arrive(f"r{key}", Ticket(key, 0, 4))
    with pytest.raises(NoSlotLeft, match=r"request 3 .* none of 2 slots is free"):
        router.arrive("r3", Ticket(3, 0, 4))
    with pytest.raises(NoSlotLeft, match=r"request 2 .* its key is taken"):
        router.arrive("another", Ticket(2, 0, 4))
    router.arrive("r4", Ticket(4, 5, 5))
    assert slots_of(router, [4, 99]) == [SINK, SINK]
    (freed,) = slots_of(router, [2])
    router.leave(["r2"])
    router.release([2, 4, 99])
    router.arrive("r3", Ticket(3, 0, 4))
    assert slots_of(router, [3]) == [freed]


def test_a_request_without_a_ticket_is_inert():
    assert Ticket.from_extra_args(None) is None
    assert Ticket.from_extra_args({}) is None
    assert Ticket.from_extra_args({"another": 1}) is None
    router = Router(2)
    router.arrive("mine", Ticket(0, 0, 2))
    routing = router.route([Stretch("theirs", 0, 5), Stretch("mine", 0, 2), Stretch("theirs too", 9, 1)], CPU)
    assert routing.runs == [(5, 7)]
    assert routing.edited is None
    idle = router.route([Stretch("theirs", 5, 1)], CPU)
    assert idle == Routing()
    assert router.route([], CPU) == Routing()


def test_a_finished_request_that_is_forwarded_once_more_is_inert():
    router = Router(2)
    router.arrive("r", Ticket(0, 0, 9, edit_row=1))
    router.leave(["r", "never heard of"])
    routing = router.route([Stretch("r", 3, 2)], CPU)
    assert routing == Routing()


@pytest.mark.parametrize(
    ("start", "stop", "edited"), [(0, 3, [0, 1, 2]), (3, FOREVER, [3, 4]), (0, FOREVER, [*range(5)])]
)
def test_a_phase_ends_with_the_last_prompt_token(start: int, stop: int, edited: list[int]):
    """Prompt of 3, answer of 2: prompt, response and both, chunked through the border."""
    router = Router(2)
    router.arrive("r", Ticket(0, 0, 0, 1, start, stop))
    found = []
    for position, length in ((0, 2), (2, 2), (4, 1)):
        routing = router.route([Stretch("other", 0, 1), Stretch("r", position, length)], CPU)
        edits = edits_of(routing)
        found += [token - 1 + position for token in edits]
        assert set(edits.values()) <= {1}
    assert found == edited


def test_a_released_request_that_is_still_forwarded_counts_no_more():
    router = Router(2)
    router.arrive("r", Ticket(0, 0, 9))
    router.release([0])
    router.arrive("next", Ticket(0, 0, 9))
    assert router.route([Stretch("r", 0, 2)], CPU) == Routing()
    assert [segment.begin for segment in router.route([Stretch("r", 2, 1), Stretch("next", 0, 1)], CPU).segments] == [1]


@given(st.builds(Ticket, *[st.integers(0, 2**31 - 1)] * 6))
def test_a_ticket_survives_the_journey_through_extra_args(ticket: Ticket):
    extra_args = ticket.to_extra_args()
    assert all(type(value) is int for value in extra_args.values())
    assert Ticket.from_extra_args({**extra_args, "another": 3}) == ticket
