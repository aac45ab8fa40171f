"""A study, as its YAML file says it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from harvest.config import (
    BenchmarkSection,
    CaptureSection,
    ClusterSection,
    ModelSection,
    RespondSection,
    Section,
)
from harvest.prompts.message import PromptKind
from harvest.types import EditPhase


class SelectSection(Section):
    method: Literal["probability"] = "probability"
    top_k: int = Field(2000, ge=0)
    # neurons that are always taken
    threshold: float | None = 0.1
    # and on while the difference reaches this; null: no further ones

    @model_validator(mode="after")
    def _selects_something(self) -> SelectSection:
        if self.top_k == 0 and self.threshold is None:
            raise ValueError("top_k 0 without a threshold selects nothing")
        return self


class AblateSection(Section):
    prompt: PromptKind = PromptKind.ROLE
    operations: tuple[Literal["zero"], ...] = ("zero",)
    phase: EditPhase = EditPhase.BOTH
    controls: int = Field(20, ge=0)
    # matched random draws for each set
    seed: int = Field(0, ge=0)

    @field_validator("operations")
    @classmethod
    def _named_once(cls, operations: tuple[str, ...]) -> tuple[str, ...]:
        if not operations or len(set(operations)) < len(operations):
            raise ValueError("name at least one operation, and each once")
        return operations


class StoreSection(Section):
    """Where units are kept; a path or a URL alone stands for its `path`."""

    path: str | None = None
    # or s3://BUCKET/PREFIX; none: OUT/store
    fsync: bool = False
    # true: what is committed in a folder survives a power cut too

    @model_validator(mode="before")
    @classmethod
    def _from_path(cls, given: Any) -> Any:
        return {"path": str(given)} if isinstance(given, str | Path) else given

    @field_validator("path")
    @classmethod
    def _is_place(cls, path: str | None) -> str | None:
        if path is not None and not path.strip():
            raise ValueError("name a folder or s3://BUCKET/PREFIX, or leave it out")
        return path


class Study(Section):
    """The whole study; a section that is left out has its defaults."""

    out: Path
    store: StoreSection = StoreSection()
    model: ModelSection
    benchmarks: tuple[BenchmarkSection, ...] = Field(min_length=1)
    respond: RespondSection = RespondSection()
    capture: CaptureSection = CaptureSection()
    select: tuple[SelectSection, ...] = Field((SelectSection(),), min_length=1, max_length=1)
    ablate: AblateSection = AblateSection()
    split: bool = True
    # identify on one half of the questions, evaluate on the other
    cluster: ClusterSection = ClusterSection()

    @model_validator(mode="after")
    def _shares_one_gpu(self) -> Study:
        num_ranks = self.model.tensor_parallel * self.model.pipeline_parallel
        if self.cluster.gpus_per_engine < 1 and num_ranks > 1:
            raise ValueError(
                f"cluster.gpus_per_engine {self.cluster.gpus_per_engine:g} is for engines on one GPU, and the model is "
                f"cut into {num_ranks} ranks"
            )
        return self

    @property
    def store_path(self) -> str:
        return self.store.path or str(self.out / "store")
