"""What a service counts, for Prometheus: requests, times by stage, batches, dedup factors, unknown ids, workers."""

from collections.abc import Callable, Mapping
from typing import Any

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
)

from recd_dist.serve.scoring_process import AnsweredBatch
from recd_dist.serve.served_model import LoadedModel

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_CANDIDATES = (1, 10, 50, 100, 200, 500, 1000, 2000, 4000, 8000, 16000)
_REQUESTS = (1, 2, 4, 8, 16, 32, 64, 128)


class ServiceMetrics:
    """Counters, gauges and histograms of one service."""

    def __init__(self) -> None:
        # Else each is doubled by the time at which it was made.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self._registry = registry = CollectorRegistry()
        self._requests = Counter("recd_requests", "requests by HTTP status", ["protocol", "status"], registry=registry)
        self._seconds = Histogram(
            "recd_request_seconds", "total: from the whole request to its answer; queue: until a worker has it; "
            "compute: while it does", ["stage"], buckets=_SECONDS, registry=registry
        )  # fmt: skip
        self._stages = {stage: self._seconds.labels(stage) for stage in ("total", "queue", "compute")}
        self._batch_seconds = Histogram(
            "recd_batch_seconds", "of a worker: read: checks and transforms; score: lookups and the model", ["stage"],
            buckets=_SECONDS, registry=registry,
        )  # fmt: skip
        self._batch_stages = {stage: self._batch_seconds.labels(stage) for stage in ("read", "score")}
        self._batch_requests = Histogram(
            "recd_batch_requests", "requests that were scored at once", buckets=_REQUESTS, registry=registry
        )
        self._batch_candidates = Histogram(
            "recd_batch_candidates", "candidates that were scored at once", buckets=_CANDIDATES, registry=registry
        )
        self._candidates = Counter("recd_candidates", "candidates that were scored", registry=registry)
        self._group_samples = Counter(
            "recd_group_samples", "candidates that were scored, by group of features", ["group"], registry=registry
        )
        self._group_rows = Counter(
            "recd_group_rows", "unique rows of a group that were computed", ["group"], registry=registry
        )
        self._dedup = Gauge(
            "recd_dedup_factor",
            "candidates per unique row of a group, in the newest batch",
            ["group"],
            registry=registry,
        )
        self._unknown = Counter(
            "recd_unknown_ids", "ids that the model has not been trained on", ["feature"], registry=registry
        )
        self._deaths = Counter("recd_worker_restarts", "workers that ended and were replaced", registry=registry)
        self._reloads = Counter("recd_reloads", "models loaded while serving", ["result"], registry=registry)
        self._user_rows = Counter("recd_user_rows", "requests by key of a user row", ["result"], registry=registry)
        self._step = Gauge("recd_model_step", "step of training at which the model was exported", registry=registry)
        self._info = Gauge("recd_model_info", "the model", ["name", "step", "version"], registry=registry)
        self._queue = Gauge("recd_queue_requests", "requests that wait for a worker", registry=registry)
        self._ready = Gauge("recd_workers_ready", "workers that have the model", registry=registry)

    def watch(self, num_waiting: Callable[[], float], num_ready: Callable[[], float]) -> None:
        """Asks for what is counted elsewhere, whenever metrics are read."""
        self._queue.set_function(num_waiting)
        self._ready.set_function(num_ready)

    def count_request(self, protocol: str, status: int, total_s: float) -> None:
        """Counts a request with its answer."""
        self._requests.labels(protocol, str(status)).inc()
        self._stages["total"].observe(total_s)

    def count_stages(self, queue_s: float, compute_s: float) -> None:
        """Counts where the time of a scored request went."""
        self._stages["queue"].observe(queue_s)
        self._stages["compute"].observe(compute_s)

    def count_batch(self, batch: AnsweredBatch) -> None:
        """Counts a batch."""
        self._batch_requests.observe(batch.num_requests)
        self._batch_candidates.observe(batch.num_candidates)
        self._candidates.inc(batch.num_candidates)
        self._batch_stages["read"].observe(batch.read_s)
        self._batch_stages["score"].observe(batch.score_s)
        self._count_model(batch.counts or {})

    def _count_model(self, counts: Mapping[str, Any]) -> None:
        """Counts what the model has told: ``rows`` and ``samples`` by group, ``unknown`` ids by feature."""
        for group, rows in counts.get("rows", {}).items():
            samples = counts["samples"].get(group, 0)
            self._group_rows.labels(group).inc(rows)
            self._group_samples.labels(group).inc(samples)
            if rows:
                self._dedup.labels(group).set(samples / rows)
        for feature, num in counts.get("unknown", {}).items():
            self._unknown.labels(feature).inc(num)

    def count_death(self) -> None:
        """Counts a worker that has ended."""
        self._deaths.inc()

    def count_reload(self, is_taken: bool) -> None:
        """Counts a model that was to be loaded."""
        self._reloads.labels("taken" if is_taken else "refused").inc()

    def count_user_row(self, result: str) -> None:
        """Counts a look for a user row: ``hit``, ``miss`` or ``other_version``."""
        self._user_rows.labels(result).inc()

    def set_model(self, model: LoadedModel) -> None:
        """Notes which model scores."""
        self._step.set(model.step)
        self._info.clear()
        self._info.labels(model.name, str(model.step), model.version).set(1)

    def to_text(self) -> bytes:
        """All of it as Prometheus reads it."""
        return generate_latest(self._registry)
