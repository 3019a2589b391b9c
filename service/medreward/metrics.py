"""Declares every metric once. The registry is handed in, so that two servers in one process do not mix."""

import math
from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from itertools import product
from typing import Final, Protocol

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, ProcessCollector
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from medreward import __version__
from medreward.errors import ITEM_CODES, Code
from medreward.types import DIMENSIONS, WATCHED, Flag, Lane, ModelRef, Six, Verdict

LATENCY: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
BATCH_ITEMS: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
SCORES: Final = tuple(i / 20 for i in range(1, 21))
UNCERTAINTIES: Final = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.5, 2.0, 3.0, 5.0)
CACHES: Final = ("images", "pixels", "image_features", "prefixes", "scores")
TRACE_KINDS: Final = ("spans", "events")
TRACE_OUTCOMES: Final = ("sent", "failed", "dropped")
SWAP_OUTCOMES: Final = ("taken_over", "refused", "rolled_back")
#: Why a whole request is refused though nothing is wrong with what it says. A quota is the caller's own limit.
REFUSALS: Final = (
    Code.OVERLOADED,
    Code.QUOTA_EXCEEDED,
    Code.NOT_READY,
    Code.DEADLINE,
    Code.WORKER_LOST,
    Code.OUT_OF_MEMORY,
    Code.UNAUTHENTICATED,
    Code.FORBIDDEN,
    Code.VERSION_CHANGED,
)

#: Role and process id of every process that belongs to the server.
Processes = Callable[[], Iterable[tuple[str, int]]]


class Watched(Protocol):
    """What watches whether answers drift."""

    def statistic(self, name: str) -> float: ...
    def has_alarm(self, name: str) -> bool: ...


class SixHistogram(Collector):
    """A histogram for each dimension. Each response has six numbers, which the library's own histogram counts too
    slowly.
    """

    def __init__(self, name: str, about: str, buckets: Sequence[float], registry: CollectorRegistry) -> None:
        self._name = name
        self._about = about
        self._buckets = buckets
        self._counts = [[0] * (len(buckets) + 1) for _ in DIMENSIONS]  # the last beyond all buckets
        self._sums = [0.0] * len(DIMENSIONS)
        registry.register(self)

    def observe(self, values: Six) -> None:
        """Counts the numbers of one response. A dimension that is None is not counted."""
        for d, value in enumerate(values):
            if value is not None:
                self._counts[d][bisect_left(self._buckets, value)] += 1
                self._sums[d] += value

    def collect(self) -> Iterable[HistogramMetricFamily]:
        """Yields the histogram as the registry shows it."""
        family = HistogramMetricFamily(self._name, self._about, labels=["dimension"])
        bounds = [*map(str, self._buckets), "+Inf"]
        for d, dimension in enumerate(DIMENSIONS):
            seen, cumulative = 0, []
            for bound, count in zip(bounds, self._counts[d], strict=True):
                seen += count
                cumulative.append((bound, float(seen)))
            family.add_metric([dimension], cumulative, self._sums[d])
        yield family


class ProcessMetrics(Collector):
    """Metrics `medreward_process_*{role,pid}` of the front and its children. The library itself reads them in /proc."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._processes: Processes = list  # none before there is an engine
        registry.register(self)

    def watch(self, processes: Processes) -> None:
        """Takes what is asked for the processes whenever the metrics are scraped."""
        self._processes = processes

    def collect(self) -> Iterable[Metric]:
        """Returns the metrics of the processes that run now."""
        families: dict[str, Metric] = {}
        for role, pid in self._processes():
            for read in ProcessCollector("medreward", partial(int, pid), registry=None).collect():
                family = families.setdefault(read.name, Metric(read.name, read.documentation, read.type))
                for sample in read.samples:
                    family.add_sample(sample.name, {"role": role, "pid": str(pid)}, sample.value)
        return families.values()


class Bounded:
    """A gauge of how much of something is taken, and a second one, `…_limit`, of how much there is."""

    def __init__(self, name: str, about: str, registry: CollectorRegistry) -> None:
        self._taken = Gauge(name, about, registry=registry)
        self._limit = Gauge(f"{name}_limit", f"The largest value that {name} may have", registry=registry)

    def watch(self, taken: Callable[[], float], limit: float) -> None:
        """Sets the limit, and what is asked for the value whenever the gauge is scraped."""
        self._taken.set_function(taken)
        self._limit.set(limit)


class Metrics:
    """The metrics of one server."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
        counter, gauge = partial(Counter, registry=registry), partial(Gauge, registry=registry)
        seconds = partial(Histogram, buckets=LATENCY, registry=registry)

        # requests
        self.requests = counter(
            "medreward_requests", "How many requests were answered, refused ones among them", ["route", "lane", "code"]
        )
        self.request_duration = seconds(
            "medreward_request_duration_seconds", "How long requests took to be answered", ["route", "lane"]
        )
        self.refused = counter(
            "medreward_refused", "How many requests were refused as a whole, by error code", ["route", "reason"]
        )
        self.requests_in_flight = gauge(
            "medreward_requests_in_flight", "How many requests are accepted and not yet answered"
        )
        self.grpc_calls = Bounded(
            "medreward_grpc_calls", "How many gRPC calls are under way; at the limit gRPC itself refuses more", registry
        )
        self.request_bytes = Bounded(
            "medreward_request_bytes", "How many bytes the requests in memory have together", registry
        )

        # responses to score
        self.items = counter("medreward_items", "How many responses had this outcome: ok or an error code", ["outcome"])
        self.flags = counter("medreward_flags", "How many responses had this flag; one may have several", ["flag"])
        self.filled = counter(
            "medreward_filled", "How many unscored responses were answered with what on_error names", ["route"]
        )
        self.score = SixHistogram("medreward_score", "The scores that were given", SCORES, registry)
        self.uncertainty = SixHistogram(
            "medreward_uncertainty", "The uncertainties that were given", UNCERTAINTIES, registry
        )
        self.nonfinite_scores = counter(
            "medreward_nonfinite_scores", "How many responses got NaN or Inf from the model, and so no score"
        )

        # screening
        self.verdicts = counter("medreward_verdicts", "How many verdicts were given", ["policy", "verdict"])
        self.audit_lost = counter(
            "medreward_audit_lost", "How many decisions were answered though the audit log could not be written"
        )
        self.audit_refused = counter(
            "medreward_audit_refused", "How many decisions and overrides were refused for that reason"
        )
        self.audit_seq = gauge("medreward_audit_seq", "The number of the last entry in the audit log; 0 without one")
        self.audit_write_duration = seconds(
            "medreward_audit_write_duration_seconds", "How long the audit log took for a write and its fsync"
        )

        self.drift_statistic = gauge(
            "medreward_drift_statistic",
            "How strong the evidence is that answers are no longer like those before: 0 none, from 1 on an alarm",
            ["dimension"],
        )
        self.drift_alarm = gauge(
            "medreward_drift_alarm", "1 after an alarm, until it is reset: POST /admin/drift/reset", ["dimension"]
        )
        self.shadow_agreement = counter(
            "medreward_shadow_agreement",
            "How many answers were decided twice, by the verdict that was served and that of the shadow",
            ["outcome"],
        )
        self.shadow_dropped = counter(
            "medreward_shadow_dropped", "How many requests the shadow did not decide, and why", ["reason"]
        )

        # the queue and the device
        self.queue_cost = gauge(
            "medreward_queue_cost", "How much cost, in tokens, is admitted and not yet done", ["lane"]
        )
        self.queue_cost_limit = gauge(
            "medreward_queue_cost_limit", "How much cost both lanes may have; bulk may take 90% of it"
        )
        self.queue_pixels = gauge(
            "medreward_queue_pixels", "How many pixels the images have that are admitted and not yet decoded", ["lane"]
        )
        self.queue_pixels_limit = gauge(
            "medreward_queue_pixels_limit", "How many pixels both lanes may have; bulk may take 90% of it"
        )
        self.queue_wait = seconds(
            "medreward_queue_wait_seconds", "How long triples waited in the queue before a device got them", ["lane"]
        )
        self.decode_duration = seconds("medreward_decode_duration_seconds", "How long a decoder took over an image")
        self.inference_duration = seconds("medreward_inference_duration_seconds", "How long a device took over a batch")
        self.batch_items = Histogram(
            "medreward_batch_items", "How many responses a batch had", buckets=BATCH_ITEMS, registry=registry
        )
        self.image_encodes = counter("medreward_image_encodes", "How many images ran through the vision tower")
        self.prefix_runs = counter("medreward_prefix_runs", "How many prompts ran through the model")

        # what is kept
        self.cache_requests = counter(
            "medreward_cache_requests", "How many times something was looked up in a cache", ["cache"]
        )
        self.cache_hits = counter("medreward_cache_hits", "How many of these times the cache had it", ["cache"])
        self.image_store_bytes = Bounded(
            "medreward_image_store_bytes", "How many bytes the images have that are stored by hash", registry
        )
        self.score_cache_bytes = Bounded("medreward_score_cache_bytes", "How many bytes the kept scores take", registry)
        self.pixel_cache_bytes = Bounded(
            "medreward_pixel_cache_bytes", "How many bytes the decoded images take", registry
        )

        # models
        self.model_swaps = counter(
            "medreward_model_swaps",
            "How many swaps of the model ended so: taken_over, refused or rolled_back",
            ["outcome"],
        )
        for outcome in SWAP_OUTCOMES:
            self.model_swaps.labels(outcome)
        self.asleep = gauge("medreward_asleep", "The level at which the server sleeps; 0 while it is awake")

        # the server itself
        self.ready = gauge(
            "medreward_ready", "1 while requests are taken; 0 while the server loads, drains or has no worker"
        )
        self.worker_restarts = counter("medreward_worker_restarts", "How many times a worker was replaced", ["reason"])
        self.certificate_expiry = gauge(
            "medreward_certificate_expiry_seconds",
            "How many seconds are left until the TLS certificate expires; +Inf without one",
        )
        self.certificate_expiry.set(math.inf)
        self.trace_records = counter(
            "medreward_trace_records",
            "How many spans and events were sent to the collector, failed to be sent, or found no room to wait for it",
            ["kind", "outcome"],
        )
        self.build = Info(
            "medreward_build",
            "The version, the model and the runtime that are running; its value is always 1",
            registry=registry,
        )
        self.processes = ProcessMetrics(registry)
        ProcessCollector(registry=registry)  # of this process, under the names that every dashboard knows

        self._start_at_nothing()

    def _start_at_nothing(self) -> None:
        """Starts all series at 0, because a series that appears with its first event shows no increase at that
        event.
        """
        for outcome in ("ok", *ITEM_CODES):
            self.items.labels(outcome)
        for flag in Flag:
            self.flags.labels(flag)
        for lane in Lane:
            for by_lane in (self.queue_wait, self.queue_cost, self.queue_pixels):
                by_lane.labels(lane)
        for cache in CACHES:
            self.count_cache(cache, hits=0, misses=0)
        for reason in ("crash", "hang"):
            self.worker_restarts.labels(reason)
        for served, second in product(Verdict, repeat=2):
            self.shadow_agreement.labels(f"{served}_{second}")
        for reason in ("busy", "image", "failed"):
            self.shadow_dropped.labels(reason)
        for name in WATCHED:
            self.drift_statistic.labels(name)
            self.drift_alarm.labels(name)
        for kind in TRACE_KINDS:
            for outcome in TRACE_OUTCOMES:
                self.trace_records.labels(kind, outcome)

    def expect(self, routes: Iterable[str], success: str, lanes: Iterable[Lane] = (Lane.BULK,)) -> None:
        """Starts the counters of these routes at 0. `success` is the code of an answer that is no refusal."""
        for route in routes:
            for reason in REFUSALS:
                self.refused.labels(route, reason)
            for lane in lanes:
                self.requests.labels(route, lane, success)
                self.request_duration.labels(route, lane)

    def expect_fills(self, routes: Iterable[str]) -> None:
        """These routes may fill unscored answers: their counters start at 0."""
        for route in routes:
            self.filled.labels(route)

    def expect_verdicts(self, policies: Iterable[str]) -> None:
        """These policies may give any verdict: their counters start at 0."""
        for policy in policies:
            for verdict in Verdict:
                self.verdicts.labels(policy, verdict)

    def watch_drift(self, drift: Watched) -> None:
        """Lets the gauges read the watches of a drift whenever they are scraped."""
        for name in WATCHED:
            self.drift_statistic.labels(name).set_function(partial(drift.statistic, name))
            self.drift_alarm.labels(name).set_function(partial(drift.has_alarm, name))

    def watch_queue(self, cost: Mapping[Lane, int], pixels: Mapping[Lane, int]) -> None:
        """Lets the gauges read these mappings whenever they are scraped."""
        for gauge, taken in (self.queue_cost, cost), (self.queue_pixels, pixels):
            for lane in Lane:
                gauge.labels(lane).set_function(partial(taken.__getitem__, lane))

    def count_cache(self, cache: str, hits: int, misses: int) -> None:
        """Counts what was looked up in a cache, and what of it the cache had."""
        self.cache_requests.labels(cache).inc(hits + misses)
        self.cache_hits.labels(cache).inc(hits)

    def describe(self, model: ModelRef) -> None:
        """Sets what `medreward_build_info` says is running."""
        self.build.info(
            {
                "version": __version__,
                "model": model.name,
                "model_version": model.version,
                "fingerprint": model.fingerprint,
                "runtime": str(model.runtime),
            }
        )
