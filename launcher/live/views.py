"""A run as one frame of the terminal: state, curves, speed, findings, last lines.

Comes in: a `RunView`. Goes out: lines that are as wide as asked, made of ASCII alone where the
terminal has nothing else. What is not known, in a run of an earlier version for example, is left
out.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich.cells import cell_len, set_cell_size
from rich.text import Text

from electra_dist.console import human_bytes, human_count, human_duration, human_seconds
from electra_dist.health import Finding
from electra_dist.runs import metrics
from electra_dist.runs.metrics import Metric
from launcher.live.curve import Point, Scale, chart, sparkline
from launcher.live.gathering import RunView

STATE_STYLES = {
    "running": "green",
    "ending": "green",
    "finished": "green",
    "waiting": "yellow",
    "unfinished": "yellow",
    "stopped": "yellow",
    "cancelled": "yellow",
    "failed": "red",
    "damaged": "red",
    "gone": "red",
}
_SEVERITY_STYLES = {"note": "cyan", "warning": "yellow", "critical": "bold red"}
_CHART_WIDTH = 26
_CHART_HEIGHT = 5
#: Characters of the numbers left of a chart, and of the name left of a line.
_AXIS = 7
_NAME = 9
#: Findings that are shown, and lines of the log where the frame has no height.
_FINDINGS = 4
LOG_LINES = 5
#: Of the newest points of the speed, their mean is compared with the run's median.
_NEWEST = 5
#: Fraction of the time in which saving stops training that is worth a word.
_STALL = 0.005

_TIMES = (
    ("data", metrics.DATA_WAIT_SECONDS),
    ("G forward", metrics.GENERATOR_FORWARD_SECONDS),
    ("G backward", metrics.GENERATOR_BACKWARD_SECONDS),
    ("D forward", metrics.DISCRIMINATOR_FORWARD_SECONDS),
    ("D backward", metrics.DISCRIMINATOR_BACKWARD_SECONDS),
    ("communication", metrics.COMMUNICATION_SECONDS),
    ("optimizer", metrics.OPTIMIZER_SECONDS),
)


@dataclass(frozen=True)
class Screen:
    """What a frame is drawn for; no `height` where it may be as long as it likes."""

    width: int
    height: int | None
    unicode: bool

    def line(self, text: str, style: str = "") -> Text:
        """One line of the frame: cut to the width, without what a terminal would obey."""
        shown = "".join(sign if sign.isprintable() else " " for sign in text)
        if not self.unicode:
            shown = shown.encode("ascii", "replace").decode("ascii")
        if cell_len(shown) > self.width:
            shown = set_cell_size(shown, self.width)
        return Text(shown, style, no_wrap=True)

    def named(self, name: str, text: str, style: str = "") -> Text:
        """A line with a name at its left."""
        return self.line(f"{name:<{_NAME}}{text}", style)

    def wrapped(self, name: str, text: str, style: str = "") -> list[Text]:
        """The same for a text of several lines."""
        rows = _broken(text, self.width - _NAME)
        return [self.named(name if not at else "", row, style) for at, row in enumerate(rows)]

    def bar(self, share: float, width: int) -> str:
        """`[###---]`"""
        full = round(min(max(share, 0.0), 1.0) * width)
        if self.unicode:
            return "█" * full + "░" * (width - full)
        return "#" * full + "-" * (width - full)


def _broken(text: str, width: int) -> list[str]:
    """`text` in rows of at most `width` characters, broken between words."""
    rows = [""]
    for word in text.split():
        longer = f"{rows[-1]} {word}".strip()
        if len(longer) > width and rows[-1]:
            rows.append(word)
        else:
            rows[-1] = longer
    return rows


def run_frame(view: RunView, screen: Screen, clock: str) -> list[Text]:
    """The frame of one run; `clock` is the time that it shows."""
    lines = [
        *_head(view, screen, clock),
        *_charts(view, screen),
        *_held_out(view, screen),
        *_speed(view, screen),
        *_split(view, screen),
        *_memory(view, screen),
        *_checkpoint(view, screen),
        *_findings(view.logged.findings or (), screen),
    ]
    if screen.height is None:
        room = LOG_LINES
    else:
        room = max(0, screen.height - len(lines))
    lines += [screen.line(line, "dim") for line in view.log[max(0, len(view.log) - room) :]]
    return lines[: screen.height]


# --- what it does ---------------------------------------------------------------------------------


def _head(view: RunView, screen: Screen, clock: str) -> Iterator[Text]:
    found = view.status
    parts: list[str] = [found.state]
    if found.job_id:
        parts.append(f"job {found.job_id}")
    if found.nodes:
        parts.append(f"on {found.nodes}")
    if found.restarts:
        parts.append(f"{found.restarts} restarts")
    state = ", ".join(parts)
    room = screen.width - len(state) - len(clock) - 4
    if len(found.run) > room:
        name = "..." + found.run[-max(room - 3, 8) :]  # the end of a path tells runs apart
    else:
        name = found.run
    left = f"{name}  {state}"
    style = f"bold {STATE_STYLES.get(found.state, '')}".strip()
    yield screen.line(f"{left:<{screen.width - len(clock)}}{clock}", style)
    if found.step is not None and found.steps:
        yield _progress(found.step, found.steps, view, screen)
    elif view.behind:
        yield screen.line(f"reading the metrics, {human_bytes(view.behind)} left")
    else:
        yield screen.line("no logged step yet")
    if found.why and found.state == "running":
        yield from screen.wrapped("by", found.why)
    elif found.why:
        yield from screen.wrapped("why", found.why)
    yield from _doing(view, screen)


def _progress(step: int, steps: int, view: RunView, screen: Screen) -> Text:
    words = f" {step / steps:.1%}  step {step:,} of {steps:,}"
    if view.status.seconds_left is not None and step < steps:
        words += f", {human_duration(view.status.seconds_left)} left"
    bar = screen.bar(step / steps, max(10, screen.width - len(words)))
    return screen.line(bar + words)


def _doing(view: RunView, screen: Screen) -> Iterator[Text]:
    found = view.status
    parts = []
    if found.phase:
        parts.append(found.phase)
    if found.step_age is not None:
        parts.append(f"last step {human_seconds(found.step_age)} ago")
    if found.time_left:
        parts.append(f"time slot left {found.time_left}")
    if found.starts_at:
        parts.append(f"starts {found.starts_at}")
    if view.behind and found.step is not None:
        parts.append(f"{human_bytes(view.behind)} of metrics still to be read")
    if parts:
        yield screen.named("doing", ", ".join(parts))


# --- curves ---------------------------------------------------------------------------------------


def _charts(view: RunView, screen: Screen) -> Iterator[Text]:
    """As many charts as have room next to each other."""
    shown = list(_chosen(view))[: max(1, screen.width // _CHART_WIDTH)]
    if not shown:
        return
    width = screen.width // len(shown) - 1
    width = min(width, max(_CHART_WIDTH, screen.width // 3 - 1))
    blocks = [_chart(metric, view.curves[metric.name], width, screen) for metric in shown]
    yield screen.line("")
    for parts in zip(*blocks, strict=True):
        yield screen.line(" ".join(f"{part:<{width}}" for part in parts).rstrip())


def _chosen(view: RunView) -> Iterator[Metric]:
    """Both losses and the score of the discriminator; for another objective, its losses."""
    known = (metrics.GENERATOR_LOSS, metrics.DISCRIMINATOR_LOSS, metrics.AUC)
    yield from (metric for metric in known if metric.name in view.curves)
    names = {metric.name for metric in known} | {metrics.TOKENS_PER_SECOND.name}
    for name in view.curves:
        if name not in names:
            yield Metric(name, "", "")


def _chart(metric: Metric, points: Sequence[Point], width: int, screen: Screen) -> list[str]:
    """A title, the curve with its scale, its first and its last step."""
    scale = Scale.of(points)
    plot = chart(points, width - _AXIS - 1, _CHART_HEIGHT, unicode=screen.unicode)
    labels = [""] * _CHART_HEIGHT
    labels[0] = _short(scale.high)
    labels[-1] = _short(scale.low)
    first = human_count(points[0].step)
    last = human_count(points[-1].step)
    return [
        f"{metric.name} {metric.text(points[-1].value)}"[:width],
        *(f"{label:>{_AXIS}} {row}" for label, row in zip(labels, plot, strict=True)),
        f"{'step':>{_AXIS}} {first}{last:>{max(width - _AXIS - 1 - len(first), 0)}}",
    ]


def _short(value: float) -> str:
    """In at most seven characters."""
    return f"{value:.4g}"[:_AXIS]


def _held_out(view: RunView, screen: Screen) -> Iterator[Text]:
    held_out = view.logged.held_out
    if held_out is None:
        return
    named = (
        ("G", metrics.GENERATOR_LOSS),
        ("acc", metrics.GENERATOR_ACCURACY),
        ("D", metrics.DISCRIMINATOR_LOSS),
        ("AUC", metrics.AUC),
    )
    parts = [
        f"{short} {metric.text(held_out.values[metric.name])}"
        for short, metric in named
        if metric.name in held_out.values
    ]
    text = f"{', '.join(parts)} at step {held_out.step:,}"
    best = view.status.best_held_out
    if best is not None and best.step < held_out.step:
        text += f"; best {best.loss:.4g} at {best.step:,}"
    yield from screen.wrapped("held out", text)


# --- speed ----------------------------------------------------------------------------------------


def _speed(view: RunView, screen: Screen) -> Iterator[Text]:
    points = view.curves.get(metrics.TOKENS_PER_SECOND.name, ())
    if not points:
        return
    values = [point.value for point in points]
    now = statistics.fmean(values[-_NEWEST:])
    usual = statistics.median(values)
    text = f"{human_count(view.logged.last.get(metrics.TOKENS_PER_SECOND.name, values[-1]))} tok/s"
    if len(values) > _NEWEST and usual:
        text += f", {now / usual - 1:+.0%} of its median"
    if metrics.MFU.name in view.logged.last:
        text += f", MFU {metrics.MFU.text(view.logged.last[metrics.MFU.name])}"
    room = screen.width - _NAME - len(text) - 2
    if room > 0:
        text += "  " + sparkline(points[1:] or points, min(room, 40), unicode=screen.unicode)
    yield screen.named("speed", text)


def _split(view: RunView, screen: Screen) -> Iterator[Text]:
    """Where the time of a step goes, where the run measures it."""
    seconds = view.logged.last.get(metrics.STEP_SECONDS.name)
    if not seconds:
        return
    parts = [
        f"{name} {view.logged.last[metric.name] / seconds:.0%}"
        for name, metric in _TIMES
        if metric.name in view.logged.last
    ]
    stall = view.logged.last.get(metrics.CHECKPOINT_STALL.name)
    if stall is not None and stall >= _STALL:
        parts.append(f"saving {stall:.0%}")
    yield from screen.wrapped(
        "step", " ".join([f"{seconds:.3g} s:", ", ".join(parts)]).rstrip(": ")
    )


def _memory(view: RunView, screen: Screen) -> Iterator[Text]:
    parts = []
    peak = view.logged.last.get(metrics.PEAK_BYTES.name)
    if peak:
        parts.append(f"peak {human_bytes(peak)}")
    padding = view.logged.last.get(metrics.PADDING.name)
    if padding is not None:
        parts.append(f"padding {padding:.1%}")
    spread = view.logged.last.get(metrics.RANK_SPREAD.name)
    slowest = view.logged.last.get(metrics.SLOWEST_RANK.name)
    if spread is not None and slowest is not None:
        parts.append(f"slowest rank {slowest:.0f} at {spread:.2f} x the median")
    if parts:
        yield screen.named("memory" if peak else "ranks", ", ".join(parts))


def _checkpoint(view: RunView, screen: Screen) -> Iterator[Text]:
    found = view.status
    if found.saving_fails:
        yield from screen.wrapped("saving", f"fails: {found.saving_fails}", "red")
    elif found.last_checkpoint is not None:
        text = f"checkpoint of step {found.last_checkpoint:,}"
        if found.rollbacks:
            text += f", {len(found.rollbacks)} rollbacks"
        yield screen.named("saved", text)
    if found.broken_rows:
        yield screen.named("damaged", f"{found.broken_rows:,} lines of metrics.jsonl are no rows")


# --- findings -------------------------------------------------------------------------------------


def _findings(findings: Sequence[Finding], screen: Screen) -> Iterator[Text]:
    """The newest first."""
    shown = findings[::-1][:_FINDINGS]
    for finding in shown:
        style = _SEVERITY_STYLES[finding.severity]
        text = f"{finding.sentence} (since step {finding.step:,})"
        yield from screen.wrapped(finding.severity, text, style)
        yield from screen.wrapped("", finding.advice)
    if len(findings) > len(shown):
        yield screen.named("", f"and {len(findings) - len(shown)} more")
