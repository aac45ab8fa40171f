"""How fast engines were: what commits of the same model say of the passes that they come from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from analysis.study import StudyRun


@dataclass(frozen=True, slots=True)
class Pace:
    """What passes of one sort have done until now, each on one engine."""

    tokens: int
    # generated where the passes generate, else prefilled
    wall_s: float
    passes: int

    @property
    def tokens_per_s(self) -> float:
        return self.tokens / self.wall_s


def pace(run: StudyRun, kind: str, mode: str) -> Pace | None:
    """Of the passes of a mode that units of a kind come from; None if no commit of this model and dtype records one."""
    counted = "prefilled" if mode == "replay" else "generated"
    passes: dict[str, Any] = {}
    for commit in run.store.commits(kind):
        said: Any = commit.provenance
        is_same = said.get("model_fingerprint") == run.checkpoint.fingerprint and said.get("mode") == mode
        # commits of earlier versions say nothing of their passes; units of one pass say the same
        if is_same and "pass" in said and said["engine"].get("dtype") == run.study.model.dtype:
            passes[said["pass"]] = said
    tokens = sum(said["tokens"][counted] for said in passes.values())
    wall_s = sum(said["wall_s"] for said in passes.values())
    return Pace(tokens, wall_s, len(passes)) if tokens and wall_s else None
