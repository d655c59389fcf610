"""What the metrics cost a step: windows of training with everything on, next to everything off.

    python benchmarks/metrics_cost.py configs/small-owt.yaml --json metrics.json
    python benchmarks/metrics_cost.py configs/small-owt.yaml train.global_rows=8 train.micro_rows=8

A window is as many steps as lie between two rows of metrics (`tracking.every`), and the row. Off is
without the clock of the step's parts, the count for the top-5 accuracy, the update-to-weight
ratios, and what the ranks exchange for a row; losses, scores and norms stay. One process, random
tokens. Both kinds of a round follow each other, in turn the one and the other first; what is given
is the ratio of the two, the median over the rounds with both quartiles. On a CPU the time is that
of the processor, which other work on the machine changes little; on a GPU that of the clock.

On a CPU the speed may drift more than the metrics cost. So a last window times the parts themselves
there: the share of each in the processor time of the window.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch
from attempts import write_json

from electra_dist import config as configuration
from electra_dist.batch import Step
from electra_dist.config import Config
from electra_dist.measure.synthetic import synthetic_steps
from electra_dist.model import head
from electra_dist.model.networks import build_networks
from electra_dist.parallel.group import close_group, open_group
from electra_dist.parallel.hardware import device_of_command
from electra_dist.parallel.world import World
from electra_dist.train.logbook import Logbook
from electra_dist.train.state import RunState
from electra_dist.train.step import train_step
from electra_dist.zero.engines import Engines, build_engines

#: That of ELECTRA's own tokenizer.
VOCABULARY = 30_522
KINDS = ("on", "off")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("config", type=Path)
    parser.add_argument("overrides", nargs="*", help="key=value")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


class Training:
    """Trains windows of steps, with the metrics on or off; `timed` is on, and `parts` has the
    processor time of each part afterwards.
    """

    def __init__(self, config: Config, engines: Engines, steps: Iterator[Step]) -> None:
        self._config = config
        self._engines = engines
        self._steps = steps
        self._device = engines.world.device
        self._state = RunState(self._device, ())
        self.parts: dict[str, float] = {}
        data: Any = SimpleNamespace(vocab_size=VOCABULARY, sources=())
        self._logbook = Logbook(config, data, engines, engines.world, None, None)

    def seconds(self, kind: str) -> float:
        """Of one window, made ready before."""
        steps = [next(self._steps) for _ in range(self._config.tracking.every)]
        with ExitStack() as stack:
            if kind == "off":
                stack.enter_context(without_metrics(self._engines, self._logbook))
            if kind == "timed":
                self.parts = stack.enter_context(timed_metrics(self._engines, self._logbook))
            start = self._now()
            for step in steps:
                totals = train_step(self._engines, step, self._config, 1.0)
                self._state.window.add(totals, step.micro_batches)
            self._logbook.row(self._state, 1.0, lambda: 0.0)
            return self._now() - start

    def _now(self) -> float:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
            return time.perf_counter()
        return time.process_time()


@contextmanager
def without_metrics(engines: Engines, logbook: Logbook) -> Iterator[None]:
    """Within it, none of what is measured here is computed."""
    zeros = mock.Mock(side_effect=lambda _, __, known, ___: torch.zeros_like(known))
    no_logits = mock.Mock(side_effect=lambda hidden, *_: hidden.new_zeros(hidden.shape[0]).float())
    with (
        mock.patch.object(engines.clock, "enter"),
        mock.patch.object(head, "count_larger", zeros),
        mock.patch.object(head, "target_logits", no_logits),
        mock.patch.object(logbook, "_update_ratios", return_value={}),
        mock.patch.object(logbook, "_parts_of_a_step", return_value={}),
    ):
        yield


@contextmanager
def timed_metrics(engines: Engines, logbook: Logbook) -> Iterator[dict[str, float]]:
    """Within it, each part of what is measured here adds up its processor time, by its name."""
    seconds: dict[str, float] = {}
    places = (
        ("clock of the parts", engines.clock, "enter"),
        ("top-5 count", head, "count_larger"),
        ("logits of the targets", head, "target_logits"),
        ("update-to-weight ratios", logbook, "_update_ratios"),
        ("exchange for a row", logbook, "_parts_of_a_step"),
    )

    def timed(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            start = time.process_time()
            try:
                return function(*arguments)
            finally:
                seconds[name] = seconds.get(name, 0.0) + time.process_time() - start

        return call

    with ExitStack() as stack:
        for name, owner, attribute in places:
            replaced = timed(name, getattr(owner, attribute))
            stack.enter_context(mock.patch.object(owner, attribute, replaced))
        yield seconds


def quartiles(values: list[float]) -> dict[str, float]:
    first, median, third = statistics.quantiles(values, n=4, method="inclusive")
    return {"first": first, "median": median, "third": third}


def measure(training: Training, steps: int, rounds: int) -> dict[str, Any]:
    """Prints each round as it comes."""
    training.seconds("on")  # not counted: the state of the optimizers is made in its first step
    ratios: list[float] = []
    windows: list[dict[str, float]] = []
    for number in range(rounds):
        order = KINDS if number % 2 == 0 else KINDS[::-1]
        window = {kind: training.seconds(kind) / steps for kind in order}
        windows.append(window)
        ratios.append(window["on"] / window["off"])
        print(
            f"round {number + 1}: on {window['on']:.3f} s per step, off {window['off']:.3f} s,"
            f" ratio {ratios[-1]:.4f}",
            flush=True,
        )
    return {"ratio": quartiles(ratios), "seconds_per_step": windows}


def measure_parts(training: Training) -> dict[str, float]:
    """The share of one window's processor time that each part takes, and all together."""
    total = training.seconds("timed")
    shares = {name: seconds / total for name, seconds in training.parts.items()}
    shares["together"] = sum(shares.values())
    for name, share in shares.items():
        print(f"{name}: {share:.2%} of the processor time of a step")
    return shares


def main() -> int:
    arguments = parse()
    config = configuration.load(arguments.config, arguments.overrides)
    device = device_of_command(config.train.device)
    world = World(device=device)
    open_group(world)
    networks = build_networks(config, VOCABULARY, device, config.train.seed)
    engines = build_engines(config, *networks, world)
    training = Training(config, engines, synthetic_steps(config, VOCABULARY))
    found = measure(training, config.tracking.every, arguments.rounds)
    ratio = found["ratio"]
    print(
        f"on / off: {ratio['median']:.4f} (quartiles {ratio['first']:.4f} to {ratio['third']:.4f})"
    )
    if device.type == "cpu":
        found["parts"] = measure_parts(training)
    write_json(arguments.json, {"device": str(device), "torch": torch.__version__} | found)
    close_group()
    return 0


if __name__ == "__main__":
    sys.exit(main())
