"""What the server counts, as Prometheus reads it."""

from __future__ import annotations

from collections.abc import Callable

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_SIZES = (1, 2, 4, 8, 16, 32, 64)


class Metrics:
    """Count requests, batches and seconds in a registry of its own."""

    def __init__(self, *, waiting: Callable[[], int], version: str):
        """Make the counters.

        Args:
            waiting: how many requests are being answered.
            version: of this library.

        Raises:
            ImportError: prometheus-client is not installed.
        """
        import prometheus_client as prometheus

        self._prometheus = prometheus
        self._registry = registry = prometheus.CollectorRegistry()
        prometheus.ProcessCollector(registry=registry)

        def named(kind, name: str, told: str, *labels: str, **options):
            return kind(f"ssd_centernet_{name}", told, labels, registry=registry, **options)

        histogram = prometheus.Histogram
        self._requests = named(
            prometheus.Counter, "requests", "Requests by path and status.", "path", "status"
        )
        self._seconds = named(
            histogram,
            "request_seconds",
            "Seconds from the head of a request to its answer.",
            "path",
            buckets=_SECONDS,
        )
        self._decode = named(
            histogram,
            "decode_seconds",
            "Seconds to decode and prepare a picture.",
            buckets=_SECONDS,
        )
        self._detect = named(
            histogram, "detect_seconds", "Seconds to detect on a batch.", buckets=_SECONDS
        )
        self._sizes = named(
            histogram, "batch_pictures", "Pictures that were detected on at once.", buckets=_SIZES
        )
        gauge = named(prometheus.Gauge, "waiting", "Requests that are being answered.")
        gauge.set_function(waiting)
        named(prometheus.Gauge, "info", "The version.", "version").labels(version).set(1)

    def answered(self, path: str, status: int, seconds: float) -> None:
        """Note the answer to a request; `path` is one of a few, whatever was asked for."""
        self._requests.labels(path, str(status)).inc()
        self._seconds.labels(path).observe(seconds)

    def decoded(self, seconds: float) -> None:
        """Note that a picture was decoded and prepared."""
        self._decode.observe(seconds)

    def detected(self, pictures: int, seconds: float) -> None:
        """Note that a batch was detected on."""
        self._sizes.observe(pictures)
        self._detect.observe(seconds)

    def text(self) -> tuple[bytes, str]:
        """Return the metrics and their media type."""
        return (
            self._prometheus.generate_latest(self._registry),
            self._prometheus.CONTENT_TYPE_LATEST,
        )
