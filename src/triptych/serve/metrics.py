"""What Prometheus reads under /metrics; no label holds anything of a text."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)


class Metrics:
    """Counters of one server."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        registry = self.registry
        labels = ("method", "route", "status")
        self.requests = Counter(
            "triptych_requests", "Requests by route and status", labels, registry=registry
        )
        self.seconds = Histogram(
            "triptych_request_seconds",
            "From the request's arrival to its answer",
            ("route",),
            buckets=_SECONDS,
            registry=registry,
        )
        self.in_flight = Gauge("triptych_requests_in_flight", "Requests that wait or run", registry=registry)
        self.body_bytes = Gauge(
            "triptych_body_bytes_held", "Bytes of bodies of requests in flight", registry=registry
        )
        self.texts = Counter("triptych_texts", "Texts that were encoded", registry=registry)
        self.tokens = Counter("triptych_tokens", "Tokens that were encoded", registry=registry)
        self.passes = Counter("triptych_passes", "Forward passes", registry=registry)
        self.joined = Histogram(
            "triptych_requests_per_pass",
            "Requests of one pass",
            buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256),
            registry=registry,
        )
        self.pass_tokens = Histogram(
            "triptych_tokens_per_pass",
            "Tokens of one pass",
            buckets=[2**n for n in range(4, 18)],
            registry=registry,
        )
        self.pass_seconds = Histogram(
            "triptych_pass_seconds", "Computing time of one pass", buckets=_SECONDS, registry=registry
        )
        self.queued_tokens = Gauge(
            "triptych_queued_tokens", "Tokens that wait for a device", registry=registry
        )
        self.cancelled = Counter("triptych_cancelled", "Requests whose client went away", registry=registry)

    def render(self) -> bytes:
        """The text format."""
        return generate_latest(self.registry)
