"""A run's counts for Prometheus, through Ray: every node's metrics port shows them.

Ray puts `ray_` before each name, and `_total` after a counter's. The port is served where `ray[default]` is installed;
without it the numbers go nowhere.
"""

from __future__ import annotations

from collections.abc import Callable

from cluster.task import Counts

_COUNTERS: dict[str, tuple[str, Callable[[Counts], float]]] = {
    "tasks_done": ("tasks whose result was delivered", lambda counts: counts.done),
    "tokens_done": ("the delivered tasks' cost, in tokens", lambda counts: counts.cost_done),
    "retries": ("attempts that failed and were followed by another", lambda counts: counts.retries),
    "quarantined": ("tasks that were given up", lambda counts: counts.quarantined),
}


class Metrics:
    """Of one stage: the counters PREFIX_tasks_done, …tokens_done, …retries, …quarantined, the gauge …engines_alive."""

    def __init__(self, prefix: str, stage: str) -> None:
        """Ray must be connected."""
        from ray.util.metrics import Counter, Gauge

        self._tags = {"stage": stage}
        self._counters = {
            name: Counter(f"{prefix}_{name}", description=description, tag_keys=("stage",))
            for name, (description, _) in _COUNTERS.items()
        }
        self._engines = Gauge(f"{prefix}_engines_alive", description="actors ready for work", tag_keys=("stage",))
        self._told = dict.fromkeys(_COUNTERS, 0.0)
        self._num_alive = -1

    def update(self, counts: Counts) -> None:
        """Tells Ray what is new; cheap enough to be called after every event."""
        for name, (_, read) in _COUNTERS.items():
            value = read(counts)
            if value > self._told[name]:
                self._counters[name].inc(value - self._told[name], self._tags)
                self._told[name] = value
        self._set_alive(counts.actors)

    def end(self) -> None:
        """The stage's run is over: the next stage's engines are the same ones, and must not count twice."""
        self._set_alive(0)

    def _set_alive(self, num_alive: int) -> None:
        if num_alive != self._num_alive:
            self._num_alive = num_alive
            self._engines.set(num_alive, self._tags)
