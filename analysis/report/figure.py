"""Where everything stands in the figure of shifts: the geometry only, the page draws it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.cells import cell_len

WIDTH, LEFT, RIGHT = 880, 230, 24
ROW_HEIGHT, TOP, BOTTOM = 40, 14, 44
LONGEST_LABEL, LONGEST_SUBLABEL = 30, 36
# Latin characters that fit left of the axis; a Chinese one takes two


@dataclass(frozen=True, slots=True)
class Row:
    """One set; all lengths in user units of the SVG."""

    label: str
    sublabel: str
    title: str
    # in full, shown on hover
    y: float
    x: float | None
    # of the set's shift; None where there is none
    interval: tuple[float, float] | None
    controls: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Figure:
    """The figure's rows and its axis."""

    height: int
    rows: tuple[Row, ...]
    ticks: tuple[tuple[float, str], ...]
    # (x, label)
    zero_x: float


def figure_of(headline: Sequence[Mapping[str, Any]]) -> Figure | None:
    """The figure of shifts of the sets that were ablated; None if none has one."""
    headline = [entry for entry in headline if entry["operation"] is not None]
    shifts = [value for entry in headline for value in _values(entry)]
    if not shifts:
        return None
    step = _nice_step(max([*shifts, 0.0]) - min([*shifts, 0.0]))
    # whole numbers of steps, so that the zero among the ticks is exactly 0
    first, last = math.floor(min([*shifts, -step / 2]) / step), math.ceil(max([*shifts, step / 2]) / step)
    low, high = first * step, last * step

    def x(value: float) -> float:
        return round(LEFT + (value - low) / (high - low) * (WIDTH - LEFT - RIGHT), 1)

    rows = tuple(_row(entry, TOP + ROW_HEIGHT * (at + 0.5), x) for at, entry in enumerate(headline))
    return Figure(
        height=TOP + ROW_HEIGHT * len(rows) + BOTTOM,
        rows=rows,
        ticks=tuple((x(at * step), f"{at * step:g}".replace("-", "−")) for at in range(first, last + 1)),
        zero_x=x(0.0),
    )


def _values(entry: Mapping[str, Any]) -> list[float]:
    values = [entry["shift"], *(entry["interval"] or ()), *(one["shift"] for one in entry["controls"])]
    return [value for value in values if value is not None]


def _row(entry: Mapping[str, Any], y: float, x: Callable[[float], float]) -> Row:
    benchmark, _, rest = entry["group"].partition("/")
    interval = entry["interval"]
    return Row(
        label=_shortened(rest.replace("/", " · "), LONGEST_LABEL),
        sublabel=_shortened(
            " · ".join(filter(None, (benchmark, entry["method"], entry["operation"]))), LONGEST_SUBLABEL
        ),
        title=entry["set_id"],
        y=y,
        x=None if entry["shift"] is None else x(entry["shift"]),
        interval=None if interval is None else (x(interval[0]), x(interval[1])),
        controls=tuple(x(one["shift"]) for one in entry["controls"] if one["shift"] is not None),
    )


def _shortened(label: str, longest: int) -> str:
    if cell_len(label) <= longest:
        return label
    while cell_len(label) >= longest:
        label = label[:-1]
    return label + "…"


def _nice_step(span: float) -> float:
    """A step of 1, 2 or 5 times a power of ten that cuts the span into about six; 1 for no span."""
    if span <= 0:
        return 1.0
    magnitude = 10.0 ** math.floor(math.log10(span / 6))
    return next(factor * magnitude for factor in (1, 2, 5, 10) if factor * magnitude >= span / 6)
