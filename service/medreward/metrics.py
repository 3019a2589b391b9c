"""Every metric, declared once; the registry is handed in, so that two servers in one process do not mix."""

from bisect import bisect_left
from collections.abc import Iterable, Mapping
from functools import partial

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.registry import Collector

from medreward import __version__
from medreward.types import DIMENSIONS, Lane, ModelRef, Six

LATENCY = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
BATCH_ITEMS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)


class ScoreHistogram(Collector):
    """`medreward_score{dimension}`. Six observations a response are too many for the library's one-by-one counting."""

    buckets = tuple(i / 20 for i in range(1, 21))

    def __init__(self) -> None:
        self.counts = [[0] * len(self.buckets) for _ in DIMENSIONS]
        self.sums = [0.0] * len(DIMENSIONS)

    def observe(self, scores: Six) -> None:
        for d, score in enumerate(scores):
            if score is not None:
                self.counts[d][bisect_left(self.buckets, score)] += 1
                self.sums[d] += score

    def collect(self) -> Iterable[HistogramMetricFamily]:
        family = HistogramMetricFamily("medreward_score", "Scores given", labels=["dimension"])
        for d, dimension in enumerate(DIMENSIONS):
            seen, cumulative = 0, []
            for bound, count in zip(self.buckets, self.counts[d], strict=True):
                seen += count
                cumulative.append((str(bound), float(seen)))
            family.add_metric([dimension], [*cumulative, ("+Inf", float(seen))], self.sums[d])
        yield family


class Metrics:
    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
        self.requests = Counter("medreward_requests", "Requests answered", ["route", "lane", "code"], registry=registry)
        self.request_duration = Histogram(
            "medreward_request_duration_seconds",
            "Time to answer",
            ["route", "lane"],
            buckets=LATENCY,
            registry=registry,
        )
        self.items = Counter(
            "medreward_items", "Responses by outcome: ok or an error code", ["outcome"], registry=registry
        )
        self.score = ScoreHistogram()
        registry.register(self.score)
        self.nonfinite_scores = Counter("medreward_nonfinite_scores", "Responses with NaN or Inf", registry=registry)
        self.batch_items = Histogram(
            "medreward_batch_items", "Responses in a batch", buckets=BATCH_ITEMS, registry=registry
        )
        self.queue_cost = Gauge("medreward_queue_cost", "Cost admitted and not yet done", ["lane"], registry=registry)
        self.queue_pixels = Gauge(
            "medreward_queue_pixels", "Pixels of images admitted and not yet decoded", ["lane"], registry=registry
        )
        self.queue_wait = Histogram(
            "medreward_queue_wait_seconds",
            "Time from queued to dispatched",
            ["lane"],
            buckets=LATENCY,
            registry=registry,
        )
        self.inference_duration = Histogram(
            "medreward_inference_duration_seconds", "Time of a batch on the device", buckets=LATENCY, registry=registry
        )
        self.image_encodes = Counter(
            "medreward_image_encodes", "Images run through the vision tower", registry=registry
        )
        self.prefix_runs = Counter("medreward_prefix_runs", "Prompts run through the model", registry=registry)
        self.worker_restarts = Counter("medreward_worker_restarts", "Workers replaced", ["reason"], registry=registry)
        self.cache_requests = Counter("medreward_cache_requests", "Look-ups in a cache", ["cache"], registry=registry)
        self.cache_hits = Counter("medreward_cache_hits", "Look-ups that found it", ["cache"], registry=registry)
        self.build = Info("medreward_build", "What is running", registry=registry)

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
