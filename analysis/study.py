"""A study on disk: what it reads, what its answers and units depend on, and the road through its stages."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, replace
from functools import cached_property

from analysis import progress_file
from analysis.neurons.sites import read_sites
from analysis.progress_file import ProgressFile
from analysis.run_folder import RunFolder
from analysis.settings import Study
from cluster.policy import Policy
from harvest.benchmarks.registry import read_benchmark
from harvest.benchmarks.source import BenchmarkSource
from harvest.capture import Capturing
from harvest.engine.options import EngineOptions
from harvest.engine.refusals import refuse_routed_experts, refuse_unsupported
from harvest.errors import BenchmarkError, ConfigError
from harvest.fleet import Fleet
from harvest.generate import Generation
from harvest.models.checkpoint import read_checkpoint
from harvest.online import REQUESTS_PER_TASK
from harvest.prompts.message import PromptKind
from harvest.prompts.order import option_order
from harvest.prompts.render import Renderer
from harvest.stats.histogram import HistogramPlan, even_edges
from harvest.store.commit import Store
from harvest.store.key import MAX_BLOCK, digest
from harvest.types import Half, Item, OptionOrder, Prompt, Sampling, half_of


class StudyRun:
    """Making one reads and checks every input of the study, and writes nothing."""

    def __init__(self, study: Study) -> None:
        """Raises InputError for the first thing that is wrong with the model, a benchmark or a prompt."""
        self.study = study
        self.folder = RunFolder(study.out)
        self.progress = ProgressFile(self.folder / progress_file.NAME)
        self.store = Store(study.store_path, study.store.fsync)
        self.checkpoint = read_checkpoint(study.model.path)
        refuse_unsupported(study.model.path, {})
        if study.model.routed_experts == "refuse":
            refuse_routed_experts(study.model.path)
        if study.model.max_model_len > self.checkpoint.max_positions:
            raise ConfigError(
                f"model.max_model_len: {study.model.max_model_len} is more than the {self.checkpoint.max_positions} "
                f"positions of {study.model.path}; lower it"
            )
        if study.capture.phase == "response" and study.respond.max_tokens < 2:
            raise ConfigError(
                "respond.max_tokens: 1 leaves nothing to count, an answer's last token never is; raise it"
            )
        self.histogram = self._read_sites()
        self.items = self._read_items()
        self.renderer = Renderer(study.model.path, study.model.max_model_len, study.respond.max_tokens)
        # a prompt that cannot be rendered is found now, not after hours of work
        self.role_prompts = self._render_roles()
        self.trial_prompts = self._render_trials()

    def check_selection(self) -> None:
        """What would only come out after hours of work, for those who are about to select.

        Raises InputError if the capture will lack what `select` needs, or the model has fewer neurons than asked for.
        """
        study, size = self.study, self.checkpoint.num_layers * self.checkpoint.num_neurons
        for section in study.select:
            if section.top_k > size:
                raise ConfigError(
                    f"select.top_k: {section.top_k} is more than the {size} neurons of the model; lower it"
                )
        if study.split and study.capture.rows == "none":
            raise ConfigError("capture.rows: split needs per-question rows; set rows: full, or split: false")
        if study.split:
            self._check_halves()

    def _check_halves(self) -> None:
        questions: dict[tuple[str, str], set[str]] = {}
        for item in self.items:
            questions.setdefault((item.benchmark, item.value), set()).add(item.question_id)
        for (benchmark, value), ids in questions.items():
            halves = {half_of(question_id) for question_id in ids}
            if len(halves) == 1:
                raise BenchmarkError(
                    f"{benchmark}/{value}: all its questions ({len(ids)}) lie in the {halves.pop()} half; add some, "
                    "or set split: false"
                )

    def _read_sites(self) -> HistogramPlan | None:
        section = self.study.capture.histogram
        if section is None:
            return None
        edges = even_edges(section.edges.start, section.edges.stop, section.edges.num)
        return read_sites(section.neurons, edges, self.checkpoint)

    def _read_items(self) -> list[Item]:
        items: list[Item] = []
        self.sources: dict[str, list[str]] = {}
        # of each benchmark, as the study names them
        for entry in self.study.benchmarks:
            read = read_benchmark(BenchmarkSource(**entry.model_dump()))
            for benchmark in dict.fromkeys(item.benchmark for item in read):
                self.sources.setdefault(benchmark, []).append(entry.path)
            items += read
        name, times = Counter(item.item_id for item in items).most_common(1)[0]
        if times > 1:
            raise BenchmarkError(f"benchmarks: {times} items are called {name}; give one of their entries a `name`")
        return items

    def _render_roles(self) -> list[Prompt]:
        rule = self.study.respond.option_order
        return [self.renderer.render(item, PromptKind.ROLE, option_order(item, rule)) for item in self.items]

    def _render_trials(self) -> list[tuple[Item, Prompt]]:
        """Every item that the ablation evaluates, in both option orders; open questions have no options to support."""
        return [
            (item, self.renderer.render(item, self.study.ablate.prompt, order))
            for item in self.items
            if item.options is not None and self.evaluate in (Half.ALL, half_of(item.question_id))
            for order in OptionOrder
        ]

    @property
    def identify(self) -> Half:
        """The questions that neurons are found on."""
        return Half.IDENTIFY if self.study.split else Half.ALL

    @property
    def evaluate(self) -> Half:
        """The questions that neurons are judged on."""
        return Half.EVALUATE if self.study.split else Half.ALL

    @property
    def _model(self) -> str:
        """Names all of the checkpoint that activations depend on."""
        # LongRoPE scales its positions by the context that was asked for
        context = f"-{self.study.model.max_model_len}" if self.checkpoint.is_long_rope else ""
        return f"{self.checkpoint.fingerprint}{context}"

    @property
    def generation(self) -> Generation:
        """What the answers depend on, beside their prompts and edits."""
        respond = self.study.respond
        sampling = Sampling(respond.max_tokens, respond.repetition_penalty)
        # an answer ends where the tokenizer says, and is spelled by it
        model = f"{self._model}/{self.checkpoint.tokenizer}/{self.renderer.eos_token_id}"
        return Generation(model, self.study.model.dtype, sampling)

    @property
    def responding(self) -> Generation:
        """The same for `respond`, whose answers may be counted while they are made."""
        return replace(self.generation, mode=self.study.capture.mode)

    @property
    def capturing(self) -> Capturing:
        """What the units depend on, beside their texts."""
        section = self.study.capture
        asked = {
            "moments": True,
            "rows": section.rows == "full",
            "maxima": section.maxima,
            "histogram": section.histogram is not None,
        }
        kinds = tuple(kind for kind, wanted in asked.items() if wanted)
        return Capturing(self._model, self.study.model.dtype, section.phase, section.mode, kinds, self.histogram)

    def fleet(self, debug: bool) -> Fleet:
        """The engines of this study, none of them open yet."""
        model, cluster = self.study.model, self.study.cluster
        is_online = self.study.capture.mode == "online"
        options = EngineOptions(
            model.path.absolute(),
            dtype=model.dtype,
            max_model_len=model.max_model_len,
            tensor_parallel=model.tensor_parallel,
            pipeline_parallel=model.pipeline_parallel,
            routed_experts=model.routed_experts,
            max_num_seqs=cluster.max_num_seqs,
            num_slots=1 + (REQUESTS_PER_TASK if is_online else MAX_BLOCK),
            # replay prefills: it has next to no single tokens, and holding back doubles a slot's memory
            holds=16 if is_online else 0,
            max_num_batched_tokens=cluster.max_num_batched_tokens,
            compiled=cluster.compiled,
            fold=cluster.fold,
            cpu_threads=cluster.cpu_threads,
            fingerprint=self.checkpoint.fingerprint,
            tokenizer=self.checkpoint.tokenizer,
        )
        return Fleet(
            options,
            cluster.engines,
            cluster.address,
            debug,
            max_engines=cluster.max_engines,
            policy=Policy(cluster.max_attempts, deadline_s=cluster.deadline_s, drain_s=cluster.drain_s),
            on_progress=self.progress,
            gpus_per_engine=cluster.gpus_per_engine,
            bind_cores=cluster.bind_cores,
            dashboard_host=cluster.dashboard_host if cluster.dashboard else None,
        )

    @cached_property
    def role_prompts_digest(self) -> str:
        """One hash over what the model is asked in `respond`: it covers templates, option order and chat template."""
        return _digest_of(zip(self.items, self.role_prompts, strict=True))

    @cached_property
    def trial_prompts_digest(self) -> str:
        """The same for what it is asked in `ablate`."""
        return _digest_of(self.trial_prompts)


def _digest_of(prompts: Iterable[tuple[Item, Prompt]]) -> str:
    return digest([[asdict(item), str(prompt.option_order), list(prompt.token_ids)] for item, prompt in prompts])
