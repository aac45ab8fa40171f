"""Many units at once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from chaos.drives import Chaos
from chaos.machines import Machines
from chaos.table import Row, scaled

MAX_GROWTH_BYTES = 16 * 2**20


def test_many_units_are_never_more_than_two_deep_and_leave_the_driver_as_small(
    row: Callable[[str, str], Row], machines: Machines, tmp_path: Path
) -> None:
    line = row("10,000 units", "≤ 2 in flight per actor, driver memory flat")
    num_units = scaled(10_000)
    chaos = Chaos(
        tmp_path,
        [list(range(num_units))],
        more={"pace_s": 0, "merge": False, "small": True, "address": machines.address},
    )
    with chaos.drive() as drive:
        told, watched = drive.hear("round"), drive.hear("most_held")
        drive.finish()
    assert (told["done"], told["failures"]) == (num_units, [])
    assert len(chaos.commits()) == num_units
    assert watched["most_held"] == 2, "two were never reached, or passed"
    memory = watched["memory"]
    settled = memory[len(memory) // 4]
    growth = max(memory[len(memory) // 4 :]) - settled
    assert growth < MAX_GROWTH_BYTES, f"the driver grew by {growth} bytes over {num_units} units: {memory}"
    chaos.check_computed_once()
    line.hold(num_units)
    line.say(f"driver {settled / 2**20:.0f} MiB, +{growth / 2**20:.1f} MiB from the first quarter on")
