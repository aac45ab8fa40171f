"""How large a study is, from its shape: bytes, files, units, tokens, and what a second of an engine asks of the rest.

Formulae only; the constants that must be measured come from `bench.constants`. The tables of docs/SCALE.md are these:

    python -m bench.sizes             # measures the constants, under a minute, and prints the tables
    python -m bench.sizes --write     # puts them into docs/SCALE.md
"""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.constants import Constants, measure
from bench.machine import machine_lines
from bench.paced import MODELS, Model
from bench.payloads import ANSWER_TOKENS, PROMPT_TOKENS, QUESTIONS, block_sizes
from bench.results import listed, table
from bench.simulation import World, simulate
from harvest.store.arrays import Layout
from harvest.store.schema import MERGED, MOMENTS, ROWS, Variable, numpy_type

SCHEMAS = {"moments": MOMENTS, "rows": ROWS}
STUDIES = (24, 1000)
# groups
ROW_BYTES = 32
# of RequestRows in memory, per question and neuron
REFERENCE_TOKENS_PER_S = 20_000
# assumed: a prefill of an 8B model on one GPU; others in proportion to GPUs ÷ parameters
BILLIONS = {"8B": 8, "70B": 70, "405B": 405}
GPUS = {"8B": 1, "70B": 8, "405B": 16}
# of one engine, assumed
_DOC = Path(__file__).parent.parent / "docs" / "SCALE.md"
_TABLES = re.compile(r"(?<=<!-- tables -->\n).*(?=<!-- end of tables -->)", re.DOTALL)


def bytes_per_neuron(schema: Mapping[str, Variable]) -> int:
    """Of all its variables: 44 for moments, 48 once merged, 6 for a question's row."""
    return sum(numpy_type(variable.dtype).itemsize for variable in schema.values())


def data_bytes(kind: str, model: Model, num_questions: int) -> int:
    """Of a unit's arrays as they lie on disk: values, 4 bytes a chunk, and 16 a chunk and 4 for a shard's index."""
    total = 0
    for variable in SCHEMAS[kind].values():
        sizes = {"question": num_questions, "layer": model.num_layers, "neuron": model.num_neurons}
        shape = tuple(sizes[dim] for dim in variable.dims)
        layout = Layout(variable, shape, shape)
        num_chunks = math.prod(shape) // math.prod(layout.chunk)
        total += math.prod(shape) * numpy_type(variable.dtype).itemsize + 4 * num_chunks
        total += 0 if layout.chunk == layout.shard else 16 * num_chunks + 4
    return total


def num_files(kind: str) -> int:
    """Of a unit: the group's metadata, and of each variable its metadata and its values."""
    return 1 + 2 * len(SCHEMAS[kind])


def num_folders(kind: str) -> int:
    """Of a unit on a disk: its own, its attempt's, and of each variable its own, `c`, and one for each axis but one."""
    return 2 + sum(1 + len(variable.dims) for variable in SCHEMAS[kind].values())


@dataclass(frozen=True, slots=True)
class Study:
    """A benchmark's groups, captured with moments and rows."""

    model: Model
    num_groups: int
    block_size: float
    # mean questions of a block

    @property
    def texts(self) -> int:
        return self.num_groups * QUESTIONS

    @property
    def tokens(self) -> int:
        return self.texts * (PROMPT_TOKENS + ANSWER_TOKENS)

    @property
    def blocks(self) -> int:
        return round(self.texts / self.block_size)

    @property
    def moments_bytes(self) -> float:
        return self.blocks * bytes_per_neuron(MOMENTS) * self.model.neurons

    @property
    def rows_bytes(self) -> float:
        return self.texts * bytes_per_neuron(ROWS) * self.model.neurons

    @property
    def merged_bytes(self) -> float:
        """Of the moments' view; that of the rows is as large as its units."""
        return self.num_groups * bytes_per_neuron(MERGED) * self.model.neurons


def tables(constants: Constants, block_size: float) -> str:
    """All tables, as Markdown."""
    studies = [Study(MODELS[name], groups, block_size) for name in BILLIONS for groups in STUDIES]
    parts = (
        constants.table(),
        _store(studies),
        _engine(constants, block_size),
        _driver(studies, constants),
        _speedup(studies[0].blocks),
    )
    return "\n\n".join(parts)


def _store(studies: Iterable[Study]) -> str:
    header = ("model × groups", "blocks", "commits", "files", "folders", "moments", "rows", "merged moments")
    lines = []
    for study in studies:
        files, folders = (sum(map(of, SCHEMAS)) for of in (num_files, num_folders))
        # and for each unit the attempt's record and the commit
        counts = (study.blocks, 2 * study.blocks, study.blocks * (files + 4), study.blocks * folders)
        sizes = (study.moments_bytes, study.rows_bytes, study.merged_bytes)
        lines.append((_name(study), *(f"{count:,}" for count in counts), *map(amount, sizes)))
    return f"**The store**\n\n{table(header, lines)}"


def _engine(constants: Constants, block_size: float) -> str:
    columns = ("s a block", "GB from the GPU", "MB/s, moments", "MB/s, rows", "CPU s, moments", "CPU s, rows", "cores")
    header = ("engine", "tokens/s", *columns, "GB beside it")
    lines = []
    for name, billions in BILLIONS.items():
        model = MODELS[name]
        speed = REFERENCE_TOKENS_PER_S * GPUS[name] * BILLIONS["8B"] / billions
        forward_s = block_size * (PROMPT_TOKENS + ANSWER_TOKENS) / speed
        moments = bytes_per_neuron(MOMENTS) * model.neurons
        rows = bytes_per_neuron(ROWS) * model.neurons * block_size
        moments_s = constants.fold_s * block_size * model.neurons + constants.write_s * moments
        rows_s = constants.write_s * rows
        memory = 2 * ROW_BYTES * 64 * model.neurons
        lines.append(
            (
                f"{name} on {GPUS[name]} GPU{'s' if GPUS[name] > 1 else ''}",
                f"{speed:,.0f}",
                f"{forward_s:.2f}",
                f"{ROW_BYTES * block_size * model.neurons / 1e9:.2f}",
                *(f"{size / forward_s / 1e6:,.0f}" for size in (moments, rows)),
                *(f"{seconds:.2f}" for seconds in (moments_s, rows_s)),
                f"{(moments_s + rows_s) / forward_s:.1f}",
                f"{memory / 1e9:.1f}",
            )
        )
    return f"**One engine at work**\n\n{table(header, lines)}"


def _driver(studies: Iterable[Study], constants: Constants) -> str:
    header = (
        "model × groups",
        "tasks sent",
        "texts held",
        "driver's CPU s",
        "list commits, s",
        "merge moments, s",
        "rows, s",
    )
    lines = []
    for study in studies:
        sizes = (constants.pickled_bytes * study.tokens, constants.held_bytes * study.tokens)
        seconds = (
            constants.send_s * study.blocks,
            constants.find_s * 2 * study.blocks,
            constants.merge_moments_s * study.moments_bytes,
            constants.merge_rows_s * study.rows_bytes,
        )
        lines.append((_name(study), *map(amount, sizes), *(f"{each:,.1f}" for each in seconds)))
    return f"**The driver**\n\n{table(header, lines)}"


def _speedup(blocks: int) -> str:
    sizes = block_sizes(blocks)
    lines = []
    for num_engines in (10, 20, 40, 80, 160):
        run = simulate([float(size) for size in sizes], World(num_engines, boot_s=0.0))
        lines.append((f"{num_engines}", f"{sum(sizes) / run.makespan_s:.1f}", f"{run.stretch:.3f}"))
    title = f"**{STUDIES[0]} groups, {blocks} blocks, on several engines (simulated, none fails)**"
    return f"{title}\n\n{table(('engines', 'times as fast as one', '÷ lower bound'), lines)}"


def _name(study: Study) -> str:
    return f"{study.model.name} × {study.num_groups:,}"


def amount(num_bytes: float) -> str:
    """In the largest unit of which there is at least one; steps of 1000."""
    for unit in ("B", "kB", "MB", "GB"):
        if num_bytes < 1000:
            return f"{num_bytes:.3g} {unit}"
        num_bytes /= 1000
    return f"{num_bytes:.3g} TB"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true")
    given = parser.parse_args(arguments)
    head, sizes = machine_lines(), block_sizes(10_000)
    text = f"{listed(head)}\n\n{tables(measure(), sum(sizes) / len(sizes))}\n"
    print(text)
    if given.write:
        page = _DOC.read_text(encoding="utf-8")
        _DOC.write_text(_TABLES.sub(lambda _: f"\n{text}\n", page), encoding="utf-8")


if __name__ == "__main__":
    main()
