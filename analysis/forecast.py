"""What a stage would cost: what is cached, what engines would have to do, and about how long. Runs and writes nothing.

Tokens are exact wherever the answers are there; an answer that is not is taken to be as long as the cached ones are on
average, or as `respond.max_tokens` allows. Time comes from what commits of the same model say of their passes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from analysis.ablate import plan_trials
from analysis.pace import pace
from analysis.responses import read_responses
from analysis.stages import conditions_of, is_finished, role_asked, role_requests
from analysis.study import StudyRun
from harvest.capture import KINDS_OF_ROWS, Answered, cut_blocks, missing_tasks, plan_blocks, text_of
from harvest.generate import Answers, Generation
from harvest.online import Asked, unanswered_blocks
from harvest.types import Completion, Request

STAGES = ("respond", "capture", "ablate")
# those that need engines
KNOWN = "known"


@dataclass(frozen=True, slots=True)
class Passes:
    """Calls of engines of one sort."""

    mode: str
    # as commits record it: "generate", "online" or "replay"
    kinds: tuple[str, ...]
    # that would be committed from them
    number: int
    # answers, or blocks
    prefill: int
    # tokens
    generate: int
    # tokens
    tokens_from: str
    # KNOWN, or what the length of answers that are not there is taken from


@dataclass(frozen=True, slots=True)
class Forecast:
    """Of one stage."""

    stage: str
    kinds: Mapping[str, Mapping[str, int]]
    # of each kind of unit (and of "answers") the numbers `cached` and `missing`
    passes: tuple[Passes, ...]
    # empty: no engine would start
    note: str = ""
    # what cannot be known yet, and why
    seconds: float | None = None
    # of passes, without the engines' start; None: not known
    estimate: str = ""
    # where the seconds come from, or why there are none

    @property
    def prefill(self) -> int:
        """Tokens."""
        return sum(one.prefill for one in self.passes)

    @property
    def generate(self) -> int:
        """Tokens."""
        return sum(one.generate for one in self.passes)

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "prefill": self.prefill, "generate": self.generate}


@dataclass(frozen=True, slots=True)
class _Length:
    """How long an answer that is not there is taken to be."""

    tokens: float
    source: str

    def of(self, number: int) -> int:
        return round(self.tokens * number)


def forecast(run: StudyRun, stages: Iterable[str]) -> list[Forecast]:
    """What each of the stages that need engines would do now, in the order of the road; the others are left out."""
    answers = Answers(run.store)
    cached = _role_answers(run, answers)
    made = {"respond": _respond, "capture": _capture}
    wanted = [stage for stage in STAGES if stage in stages]
    found = [made[stage](run, cached) if stage in made else _ablate(run, answers) for stage in wanted]
    return [_timed(run, one) for one in found]


def _role_answers(run: StudyRun, answers: Answers) -> dict[str, Completion]:
    """The answers that `respond` would not have to make, by key."""
    keys = [run.responding.key(request) for request in role_requests(run)]
    if is_finished("respond", run):
        done = read_responses(run.folder / "responses.parquet")
        return dict(zip(keys, (one.completion for one in done), strict=True))
    return answers.read(key for key in keys if key in answers)


def _respond(run: StudyRun, cached: Mapping[str, Completion]) -> Forecast:
    keyed = {run.responding.key(request): request for request in role_requests(run)}
    missing = {key: request for key, request in keyed.items() if key not in cached}
    length, passes = _length(run, cached), []
    if run.study.capture.mode == "online":
        blocks = unanswered_blocks(role_asked(run), missing, run.responding)
        at_once = [Request(asked.prompt.token_ids) for block in blocks for asked in block]
        kinds = tuple(kind for kind in run.capturing.kinds if kind in KINDS_OF_ROWS)
        passes.append(_answering("online", (*kinds, "answers"), at_once, length))
        for request in at_once:
            missing.pop(run.responding.key(request), None)
    passes.append(_answering("generate", ("answers",), list(missing.values()), length))
    there = sum(key in cached for key in keyed)
    return _stage("respond", {"answers": {"cached": there, "missing": len(keyed) - there}}, passes)


def _answering(mode: str, kinds: tuple[str, ...], requests: Sequence[Request], length: _Length) -> Passes:
    prefill = sum(len(request.prompt_token_ids) for request in requests)
    return Passes(mode, kinds, len(requests), prefill, length.of(len(requests)), length.source)


def _length(run: StudyRun, cached: Mapping[str, Completion]) -> _Length:
    if not cached:
        return _Length(run.study.respond.max_tokens, "respond.max_tokens, an upper bound")
    mean = sum(len(one.token_ids) for one in cached.values()) / len(cached)
    return _Length(mean, f"the mean length of {len(cached)} cached answers, {mean:.1f} tokens")


def _capture(run: StudyRun, cached: Mapping[str, Completion]) -> Forecast:
    """Blocks whose answers are all there are known to the token; the others have no names yet, and would surely run."""
    whole: list[list[Answered]] = []
    partly: list[tuple[Asked, ...]] = []
    for block in cut_blocks(role_asked(run)):
        completions = [cached.get(_key(asked, run.responding)) for asked in block]
        there = [one for one in completions if one is not None]
        if len(there) < len(block):
            partly.append(block)
            continue
        whole.append([Answered(one.prompt, done, one.description_id) for one, done in zip(block, there, strict=True)])
    blocks = [planned for block in whole for planned in plan_blocks(block, run.capturing)]
    tasks = missing_tasks(blocks, run.store)
    missing = Counter(kind for task in tasks for kind in task.kinds)
    missing.update(kind for kind in run.capturing.kinds for _ in partly)
    kinds = {
        kind: {"cached": len(blocks) + len(partly) - missing[kind], "missing": missing[kind]}
        for kind in run.capturing.kinds
    }
    passes = []
    for of_pass, unknown in ((KINDS_OF_ROWS, _replayed_later(run, partly, cached)), (("histogram",), partly)):
        known = [task for task in tasks if set(task.kinds) <= set(of_pass)]
        lacking = tuple(kind for kind in of_pass if any(kind in task.kinds for task in known))
        prefill = sum(task.block.forwarded for task in known)
        passes.append(Passes("replay", lacking, len(known), prefill, 0, KNOWN))
        asked = tuple(kind for kind in run.capturing.kinds if kind in of_pass)
        if asked:
            passes.append(_replaying(run, asked, unknown, cached))
    return _stage("capture", kinds, passes)


def _replayed_later(
    run: StudyRun, partly: Sequence[tuple[Asked, ...]], cached: Mapping[str, Completion]
) -> Sequence[tuple[Asked, ...]]:
    """The blocks without all of their answers whose rows are not counted while those are made."""
    if run.study.capture.mode != "online":
        return partly
    missing = {_key(asked, run.responding) for block in partly for asked in block} - cached.keys()
    counted = {block[0].prompt.item_id for block in unanswered_blocks(role_asked(run), missing, run.responding)}
    return [block for block in partly if block[0].prompt.item_id not in counted]


def _replaying(
    run: StudyRun, kinds: tuple[str, ...], blocks: Sequence[tuple[Asked, ...]], cached: Mapping[str, Completion]
) -> Passes:
    length, prefill, num_unknown = _length(run, cached), 0, 0
    for block in blocks:
        for asked in block:
            done = cached.get(_key(asked, run.responding))
            if done is not None:
                text = text_of(Answered(asked.prompt, done), run.study.capture.phase)
                prefill += len(text.token_ids) if text.planned else 0
            else:
                # an answer's last token is not forwarded
                prefill += len(asked.prompt.token_ids) - 1
                num_unknown += 1
    return Passes("replay", kinds, len(blocks), prefill + length.of(num_unknown), 0, length.source)


def _key(asked: Asked, generation: Generation) -> str:
    return generation.key(Request(asked.prompt.token_ids))


def _ablate(run: StudyRun, answers: Answers) -> Forecast:
    section = run.study.ablate
    if is_finished("select", run):
        requests = [trial.request for trial in plan_trials(run.trial_prompts, conditions_of(run))]
        keyed = {run.generation.key(request): request for request in requests}
        missing = [request for key, request in keyed.items() if key not in answers]
        there = answers.read(key for key in keyed if key in answers)
        kinds = {"answers": {"cached": len(there), "missing": len(missing)}}
        return _stage("ablate", kinds, [_answering("generate", ("answers",), missing, _length(run, there))])
    each = 1 + len(section.operations) * (1 + section.controls)
    asked = [Request(prompt.token_ids) for _, prompt in run.trial_prompts for _ in range(each)]
    length = _Length(run.study.respond.max_tokens, "respond.max_tokens, an upper bound")
    note = "an upper bound, of which some may be cached: the conditions come from the neurons that select finds"
    return _stage("ablate", {}, [_answering("generate", ("answers",), asked, length)], note)


def _stage(stage: str, kinds: Mapping[str, Mapping[str, int]], passes: Iterable[Passes], note: str = "") -> Forecast:
    return Forecast(stage, kinds, tuple(one for one in passes if one.number), note)


def _timed(run: StudyRun, one: Forecast) -> Forecast:
    """The forecast with its time, if every sort of pass was made before."""
    seconds, paces = 0.0, []
    for sort in one.passes:
        kind, engines = _paced_by(sort), run.study.cluster.engines
        known = pace(run, kind, sort.mode)
        if known is None:
            why = f"no estimate: no commit of this model says how fast {sort.mode} passes for {kind} are"
            return replace(one, seconds=None, estimate=why)
        seconds += (sort.generate or sort.prefill) / known.tokens_per_s / engines
        paces.append(
            f"{known.tokens_per_s:.0f} tokens/s per engine in {known.passes} {sort.mode} passes for {kind}, "
            f"{engines} engines"
        )
    # two sorts that differ only in what is known of them have one pace
    return replace(one, seconds=seconds, estimate="; ".join(dict.fromkeys(paces)) or "nothing to run")


def _paced_by(sort: Passes) -> str:
    """A kind that every pass of that sort leaves."""
    if sort.mode != "replay":
        return "answers"
    return "histogram" if "histogram" in sort.kinds else "moments"


def sentences(found: Sequence[Forecast]) -> list[str]:
    """The forecasts for people."""
    said = []
    for one in found:
        kinds = [f"{kind} {number['cached']} cached, {number['missing']} missing" for kind, number in one.kinds.items()]
        said.append(f"{one.stage}: {'; '.join(kinds) or 'not known what is cached'}")
        if one.note:
            said.append(f"  {one.note}")
        for sort in one.passes:
            what = "blocks" if sort.mode == "replay" else "answers"
            said.append(
                f"  {sort.mode} {sort.number} {what} ({', '.join(sort.kinds)}): {sort.prefill} tokens to prefill, "
                f"{sort.generate} to generate ({sort.tokens_from})"
            )
        about = f"about {one.seconds:.0f} s: " if one.passes and one.seconds is not None else ""
        said.append(f"  {about}{one.estimate}")
    return said
