"""report.html: one file that works offline, with no script and nothing loaded from anywhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from analysis.report.examples import Example
from analysis.report.figure import LEFT, WIDTH, figure_of
from analysis.report.headline import cells, has_planted, number


def render(summary: Mapping[str, Any], examples: Sequence[Example]) -> str:
    """The report as HTML. All that comes from a model, a benchmark or a path is escaped, and stays text."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = number
    environment.filters["count"] = lambda value: f"{value:,}".replace(",", "\N{NARROW NO-BREAK SPACE}")
    return environment.get_template("page.html").render(
        run=summary["run"],
        headline=[(entry, cells(entry)) for entry in summary["headline"]],
        has_planted=has_planted(summary),
        max_draws=max((len(entry["controls"]) for entry in summary["headline"]), default=0),
        figure=figure_of(summary["headline"]),
        figure_width=WIDTH,
        figure_left=LEFT,
        examples=examples,
    )
