"""Reading a study file: YAML that executes nothing, `--set` overrides, and harvest's own sections.

Every error is one sentence that starts with file:field.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from cluster.launch import is_address
from harvest.errors import ConfigError
from harvest.prompts.order import OrderRule
from harvest.stats.histogram import even_edges


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class ModelSection(Section):
    path: Path
    dtype: Literal["bfloat16", "float16", "float32"] = "bfloat16"
    max_model_len: int = Field(2048, ge=16)
    # tokens, prompt and answer together
    tensor_parallel: int = Field(1, ge=1)
    pipeline_parallel: int = Field(1, ge=1)
    routed_experts: Literal["refuse", "skip"] = "refuse"
    # skip: of a mixture of experts, only the dense layers and shared experts are probed


class BenchmarkSection(Section):
    path: str
    # a file, or builtin:NAME
    format: str | None = None
    value: str | None = None
    language: str | None = None
    name: str | None = None
    seed: int = 0
    # of the descriptions dealt to ValueInsight's questions


class RespondSection(Section):
    max_tokens: int = Field(500, ge=1)
    repetition_penalty: float = Field(1.1, gt=0)
    option_order: OrderRule = OrderRule.BALANCED


class EdgesSection(Section):
    """Evenly spaced edges, both ends included; the default is ValueLocate's 301 bins."""

    start: float = 0
    stop: float = 2.99
    num: int = Field(300, ge=2, le=10_000)

    @model_validator(mode="after")
    def _ascends(self) -> EdgesSection:
        even_edges(self.start, self.stop, self.num)
        return self


class HistogramSection(Section):
    neurons: Path
    # a neurons.parquet: all its (layer, neuron)
    edges: EdgesSection = EdgesSection()


class CaptureSection(Section):
    mode: Literal["replay", "online"] = "replay"
    # replay forwards prompt and answer again; online counts the tokens while they are generated
    phase: Literal["prompt", "response", "both"] = "response"
    rows: Literal["full", "none"] = "full"
    maxima: bool = False
    # each question's largest activation of every neuron, and its token
    histogram: HistogramSection | None = None


class ClusterSection(Section):
    engines: int = Field(1, ge=1)
    max_engines: int | None = Field(None, ge=1)
    # so many once machines join the cluster; none: as many as engines
    address: str | None = None
    # of a running Ray cluster; none: one of our own on this machine
    deadline_s: float = Field(7200, gt=0)
    # of one task, and of opening an engine; then the engine is replaced
    max_attempts: int = Field(3, ge=1)
    # at one task, before it is given up
    drain_s: float = Field(120, ge=0)
    # what running tasks get to end after Ctrl-C or SIGTERM
    gpus_per_engine: float = Field(1, gt=0, le=1)
    # a share of one GPU, where several engines of a small model are to run on it
    bind_cores: bool = True
    # engines on the CPU keep to cores of their own, while there are enough; what they compute does not depend on it
    dashboard: bool = False
    # of our own Ray: it needs ray[default]
    dashboard_host: str = "127.0.0.1"
    # who reaches it can look into everything and, if they have the token, run code
    max_num_seqs: int = Field(256, ge=1)
    # requests decoded at once by one engine
    max_num_batched_tokens: int = Field(8192, ge=16)
    # of one step of an engine; a longer text is cut
    cpu_threads: int = Field(1, ge=1)
    # of an engine on the CPU; part of what its last bits depend on, so it never follows the machine by itself
    compiled: bool = False
    # torch.compile, and CUDA graphs on a GPU, under which a histogram or an ablation is refused
    fold: Literal["auto", "native", "torch", "triton"] = "auto"
    # how activations are folded: C++ on a CPU, Triton on a GPU, or plain torch; auto takes the first that is there

    @field_validator("address")
    @classmethod
    def _can_be_joined(cls, address: str | None) -> str | None:
        if address is not None and not is_address(address):
            raise ValueError("give auto, or HOST:PORT of a running Ray cluster such as 10.0.0.1:6379")
        return address

    @model_validator(mode="after")
    def _fits_together(self) -> ClusterSection:
        if self.max_engines is not None and self.max_engines < self.engines:
            raise ValueError(f"max_engines {self.max_engines} is less than engines {self.engines}")
        if self.dashboard and self.address is not None:
            raise ValueError(f"the cluster at {self.address} has a dashboard of its own or none; leave dashboard out")
        return self


class _StrictLoader(yaml.SafeLoader):
    """Safe YAML in which a key is a text that stands once, and nothing stands for something else.

    A few lines of aliases of aliases would grow to gigabytes where they are merged or shown in an error.
    """

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise yaml.composer.ComposerError(None, None, "an alias stands for a value; write the value out", mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(None, None, "a key is not a text", key.start_mark)
            if key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"key {key.value!r} stands twice", key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


Study = TypeVar("Study", bound=BaseModel)


def load(file: Path, overrides: Sequence[str], schema: type[Study]) -> Study:
    """The study in `file` with `a.b=c` overrides applied, checked against `schema`.

    Raises ConfigError.
    """
    settings = _read_yaml(file)
    for override in overrides:
        _apply(settings, override)
    try:
        return schema.model_validate(settings)
    except ValidationError as error:
        # a list whose only element is at fault is called too short as well
        first, *others = [fault for fault in error.errors() if fault["type"] != "too_short" or not fault["input"]]
        field = ".".join(str(part) for part in first["loc"]) or "(top)"
        more = f" (and {len(others)} more)" if others else ""
        raise ConfigError(f"{file}:{field}: {_sentence(first, schema)}{more}") from error


def _sentence(fault: Mapping[str, Any], schema: type[BaseModel]) -> str:
    if fault["type"] == "extra_forbidden":
        known = f"; known there are {', '.join(schema.model_fields)}" if len(fault["loc"]) == 1 else ""
        return f"unknown key{known}; remove it or correct its spelling"
    if fault["type"] == "missing":
        return "is required; add it"
    return f"{fault['msg'][0].lower()}{fault['msg'][1:]}, not {fault['input']!r}"


def _read_yaml(file: Path) -> dict[str, Any]:
    try:
        settings = yaml.load(file.read_text(encoding="utf-8"), Loader=_StrictLoader)  # noqa: S506 a SafeLoader
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read ({error.strerror}); give the path of a study file") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{file}: is not UTF-8 text (byte {error.start}); save it as UTF-8") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        # ValueError: a date that no calendar has, a number of thousands of digits
        mark = getattr(error, "problem_mark", None)
        line = f":line {mark.line + 1}" if mark else ""
        raise ConfigError(
            f"{file}{line}: is not plain YAML ({getattr(error, 'problem', None) or 'cannot be parsed'}); correct it"
        ) from error
    if not isinstance(settings, dict):
        raise ConfigError(f"{file}: holds no settings; see configs/studies for examples")
    return settings


def _apply(settings: dict[str, Any], override: str) -> None:
    """Set one value in place; numbers in the path index lists."""
    path, equals, text = override.partition("=")
    if not equals or not path:
        raise ConfigError(f"--set {override}: has not the form a.b=c")
    try:
        value = yaml.load(text, Loader=_StrictLoader)  # noqa: S506 a SafeLoader
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(f"--set {override}: {text!r} is not a YAML value; quote it") from error
    *parents, last = path.split(".")
    place: Any = settings
    for part in parents:
        place = place.setdefault(part, {}) if isinstance(place, dict) else _element(place, part, override)
    if isinstance(place, dict):
        place[last] = value
    else:
        _element(place, last, override)
        place[int(last)] = value


def _element(place: Any, part: str, override: str) -> Any:
    if not isinstance(place, list) or not part.isdecimal() or int(part) >= len(place):
        raise ConfigError(f"--set {override}: there is no {part!r} in the study; correct the path")
    return place[int(part)]
