"""The figures of `/metrics`, in the text form of Prometheus."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_INPUTS = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Counts:
    """Of one server; its registry has nothing of other libraries."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "electra_dist_requests",
            "Requests for predictions, by their HTTP status.",
            ["status"],
            registry=self._registry,
        )
        self._request_seconds = Histogram(
            "electra_dist_request_seconds",
            "From the start of a request to its answer.",
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._batch_inputs = Histogram(
            "electra_dist_batch_inputs",
            "Inputs that the model answered at a time.",
            buckets=_INPUTS,
            registry=self._registry,
        )
        self._batch_seconds = Histogram(
            "electra_dist_batch_seconds",
            "Time of the model for a batch, with its tokenizer.",
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._waiting = Gauge(
            "electra_dist_waiting_inputs",
            "Inputs that wait for the model.",
            registry=self._registry,
        )

    def show_waiting(self, waiting: Callable[[], int]) -> None:
        """Ask `waiting` whenever the figures are read."""
        self._waiting.set_function(waiting)

    def note_request(self, status: int, seconds: float) -> None:
        """A request was answered."""
        self._requests.labels(str(status)).inc()
        self._request_seconds.observe(seconds)

    def note_batch(self, inputs: int, seconds: float) -> None:
        """The model answered a batch."""
        self._batch_inputs.observe(inputs)
        self._batch_seconds.observe(seconds)

    def text(self) -> bytes:
        """All of them."""
        return generate_latest(self._registry)
