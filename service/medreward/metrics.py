"""Every metric, declared once; the registry is handed in, so that two servers in one process do not mix."""

import math
from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, ProcessCollector
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from medreward import __version__
from medreward.errors import ITEM_CODES, Code
from medreward.types import DIMENSIONS, Flag, Lane, ModelRef, Six

LATENCY: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
BATCH_ITEMS: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
SCORES: Final = tuple(i / 20 for i in range(1, 21))
UNCERTAINTIES: Final = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.5, 2.0, 3.0, 5.0)
CACHES: Final = ("images", "pixels", "image_features", "prefixes", "scores")
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


class SixHistogram(Collector):
    """A histogram by dimension. Six observations a response are too many for the library's one-by-one counting."""

    def __init__(self, name: str, about: str, buckets: Sequence[float], registry: CollectorRegistry) -> None:
        self._name = name
        self._about = about
        self._buckets = buckets
        self._counts = [[0] * (len(buckets) + 1) for _ in DIMENSIONS]  # the last beyond all buckets
        self._sums = [0.0] * len(DIMENSIONS)
        registry.register(self)

    def observe(self, values: Six) -> None:
        for d, value in enumerate(values):
            if value is not None:
                self._counts[d][bisect_left(self._buckets, value)] += 1
                self._sums[d] += value

    def collect(self) -> Iterable[HistogramMetricFamily]:
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
    """`medreward_process_*{role,pid}` of the front and its children, by the library's own reading of /proc."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._processes: Processes = list  # none before there is an engine
        registry.register(self)

    def watch(self, processes: Processes) -> None:
        """They are asked for when the metrics are scraped."""
        self._processes = processes

    def collect(self) -> Iterable[Metric]:
        families: dict[str, Metric] = {}
        for role, pid in self._processes():
            for read in ProcessCollector("medreward", partial(int, pid), registry=None).collect():
                family = families.setdefault(read.name, Metric(read.name, read.documentation, read.type))
                for sample in read.samples:
                    family.add_sample(sample.name, {"role": role, "pid": str(pid)}, sample.value)
        return families.values()


class Bounded:
    """A gauge of what is taken of something, and beside it `…_limit`, to divide by."""

    def __init__(self, name: str, about: str, registry: CollectorRegistry) -> None:
        self._taken = Gauge(name, about, registry=registry)
        self._limit = Gauge(f"{name}_limit", f"Most that {name} may be", registry=registry)

    def watch(self, taken: Callable[[], float], limit: float) -> None:
        """`taken` is asked when the gauge is scraped."""
        self._taken.set_function(taken)
        self._limit.set(limit)


class Metrics:
    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
        counter, gauge = partial(Counter, registry=registry), partial(Gauge, registry=registry)
        seconds = partial(Histogram, buckets=LATENCY, registry=registry)

        # requests
        self.requests = counter("medreward_requests", "Requests answered", ["route", "lane", "code"])
        self.request_duration = seconds("medreward_request_duration_seconds", "Time to answer", ["route", "lane"])
        self.refused = counter("medreward_refused", "Requests refused as a whole, by error code", ["route", "reason"])
        self.requests_in_flight = gauge("medreward_requests_in_flight", "Requests accepted and not yet answered")
        self.grpc_calls = Bounded(
            "medreward_grpc_calls", "gRPC calls under way; at the limit gRPC itself refuses", registry
        )
        self.request_bytes = Bounded("medreward_request_bytes", "Bytes of all requests in memory", registry)

        # responses to score
        self.items = counter("medreward_items", "Responses by outcome: ok or an error code", ["outcome"])
        self.flags = counter("medreward_flags", "Responses by flag; one may have several", ["flag"])
        self.filled = counter("medreward_filled", "Unscored responses answered with what on_error names", ["route"])
        self.score = SixHistogram("medreward_score", "Scores given", SCORES, registry)
        self.uncertainty = SixHistogram("medreward_uncertainty", "Uncertainties given", UNCERTAINTIES, registry)
        self.nonfinite_scores = counter("medreward_nonfinite_scores", "Responses with NaN or Inf")

        # the queue and the device
        self.queue_cost = gauge("medreward_queue_cost", "Cost admitted and not yet done", ["lane"])
        self.queue_cost_limit = gauge("medreward_queue_cost_limit", "Most cost of both lanes; bulk may take 90% of it")
        self.queue_pixels = gauge("medreward_queue_pixels", "Pixels of images admitted and not yet decoded", ["lane"])
        self.queue_pixels_limit = gauge(
            "medreward_queue_pixels_limit", "Most pixels of both lanes; bulk may take 90% of it"
        )
        self.queue_wait = seconds("medreward_queue_wait_seconds", "Time from queued to dispatched", ["lane"])
        self.decode_duration = seconds("medreward_decode_duration_seconds", "Time of an image in a decoder")
        self.inference_duration = seconds("medreward_inference_duration_seconds", "Time of a batch on the device")
        self.batch_items = Histogram(
            "medreward_batch_items", "Responses in a batch", buckets=BATCH_ITEMS, registry=registry
        )
        self.image_encodes = counter("medreward_image_encodes", "Images run through the vision tower")
        self.prefix_runs = counter("medreward_prefix_runs", "Prompts run through the model")

        # what is kept
        self.cache_requests = counter("medreward_cache_requests", "Look-ups in a cache", ["cache"])
        self.cache_hits = counter("medreward_cache_hits", "Look-ups that found it", ["cache"])
        self.image_store_bytes = Bounded("medreward_image_store_bytes", "Bytes of images stored by hash", registry)
        self.score_cache_bytes = Bounded("medreward_score_cache_bytes", "Bytes of scores that are kept", registry)
        self.pixel_cache_bytes = Bounded("medreward_pixel_cache_bytes", "Bytes of decoded images", registry)

        # the server itself
        self.ready = gauge("medreward_ready", "1 if requests are taken, 0 while loading, draining or without a worker")
        self.worker_restarts = counter("medreward_worker_restarts", "Workers replaced", ["reason"])
        self.certificate_expiry = gauge(
            "medreward_certificate_expiry_seconds", "Time until the TLS certificate expires; +Inf without one"
        )
        self.certificate_expiry.set(math.inf)
        self.build = Info("medreward_build", "What is running", registry=registry)
        self.processes = ProcessMetrics(registry)
        ProcessCollector(registry=registry)  # of this process, under the names that every dashboard knows

        self._start_at_nothing()

    def _start_at_nothing(self) -> None:
        """A series that appears with its first event has no increase at that event."""
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

    def expect(self, routes: Iterable[str], success: str, lanes: Iterable[Lane] = (Lane.BULK,)) -> None:
        """These routes exist: their counters start at 0. `success` is the code of an answer as it should be."""
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

    def watch_queue(self, cost: Mapping[Lane, int], pixels: Mapping[Lane, int]) -> None:
        """The gauges read the mappings when they are scraped."""
        for gauge, taken in (self.queue_cost, cost), (self.queue_pixels, pixels):
            for lane in Lane:
                gauge.labels(lane).set_function(partial(taken.__getitem__, lane))

    def count_cache(self, cache: str, hits: int, misses: int) -> None:
        self.cache_requests.labels(cache).inc(hits + misses)
        self.cache_hits.labels(cache).inc(hits)

    def describe(self, model: ModelRef) -> None:
        self.build.info(
            {
                "version": __version__,
                "model": model.name,
                "model_version": model.version,
                "fingerprint": model.fingerprint,
                "runtime": model.runtime,
            }
        )
