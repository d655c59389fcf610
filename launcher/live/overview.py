"""Several runs as one frame of the terminal: a line for each, the best of them marked.

Comes in: `RunView`s. Goes out: lines that are as wide as asked. Where there are more runs than
lines, those that train or wait are shown first.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.text import Text

from electra_dist.console import human_count, human_seconds
from electra_dist.runs import metrics
from launcher.held_out import best_run
from launcher.live.gathering import RunView
from launcher.live.views import STATE_STYLES, Screen

_HEADINGS = ("state", "step", "G loss", "D loss", "AUC", "held out", "tok/s", "left")
_WIDTHS = (10, 8, 6, 6, 5, 8, 5, 7)
_ORDER = ("running", "ending", "waiting", "failed", "damaged", "unfinished", "idle")
_BEST = "*"


def best_of(views: Sequence[RunView]) -> str | None:
    """The run with the lowest held-out loss."""
    return best_run((view.status.run, view.status.best_held_out) for view in views)


def overview_frame(views: Sequence[RunView], screen: Screen, clock: str) -> list[Text]:
    """The frame of several runs; `clock` is the time that it shows."""
    best = best_of(views)
    names = _names(views)
    room = screen.width - sum(_WIDTHS) - len(_WIDTHS) - 1
    lines = list(_head(views, screen, clock, best, names))
    lines.append(screen.line(f"{'run':<{room}} {_cells(_HEADINGS)}", "bold"))
    rows = {
        view.status.run: _rows(view, names[view.status.run], room, screen, view.status.run == best)
        for view in views
    }
    shown = _that_fit(views, rows, screen, len(lines))
    for run, drawn in rows.items():
        if run in shown:
            lines += drawn
    left = len(views) - len(shown)
    if left:
        lines.append(screen.line(f"and {left} more"))
    return lines[: screen.height]


def _that_fit(
    views: Sequence[RunView], rows: dict[str, list[Text]], screen: Screen, used: int
) -> set[str]:
    """The runs whose lines have room below `used` others."""
    needed = sum(map(len, rows.values()))
    if screen.height is None or needed <= screen.height - used:
        return set(rows)
    room = screen.height - used - 1
    chosen = set()
    for view in sorted(views, key=lambda view: _rank(view.status.state)):
        run = view.status.run
        if len(rows[run]) <= room:
            room -= len(rows[run])
            chosen.add(run)
    return chosen


def _rank(state: str) -> int:
    if state in _ORDER:
        return _ORDER.index(state)
    return len(_ORDER)


def _names(views: Sequence[RunView]) -> dict[str, str]:
    """What tells the runs apart: their paths from the folder that all of them lie in."""
    paths = [view.status.run for view in views]
    shared = os.path.commonpath([str(Path(path).parent) for path in map(os.path.abspath, paths)])
    return {path: os.path.relpath(path, shared) for path in paths}


def _head(
    views: Sequence[RunView], screen: Screen, clock: str, best: str | None, names: dict[str, str]
) -> Iterator[Text]:
    states = Counter(view.status.state for view in views)
    counts = ", ".join(f"{number} {state}" for state, number in states.most_common())
    left = f"{len(views)} runs: {counts}"
    yield screen.line(f"{left:<{screen.width - len(clock)}}{clock}", "bold")
    total = sum(view.status.steps or 0 for view in views)
    done = sum(min(view.status.step or 0, view.status.steps or 0) for view in views)
    if total:
        words = f" {done / total:.1%}  {done:,} of {total:,} steps"
        yield screen.line(screen.bar(done / total, screen.width - len(words)) + words)
    for view in views:
        found = view.status.best_held_out
        if view.status.run == best and found is not None:
            yield screen.line(
                f"{_BEST} best: {names[best]}, held-out {found.metric} {found.loss:.4g} at step"
                f" {found.step:,}"
            )
    yield screen.line("")


def _rows(view: RunView, name: str, room: int, screen: Screen, is_best: bool) -> list[Text]:
    """The line of a run, and why it is in trouble."""
    found = view.status
    if is_best:
        name = f"{_BEST} {name}"
    if len(name) > room:
        name = name[: room - 8] + "..." + name[-5:]  # the end often tells runs of a sweep apart
    style = STATE_STYLES.get(found.state, "")
    rows = [screen.line(f"{name:<{room}} {_cells(_values(view))}", style)]
    if found.state in ("damaged", "gone", "failed") and found.why:
        rows.append(screen.line(f"    {found.why.removeprefix(found.run + '/')}", style))
    rows += [
        screen.line(f"    {finding.severity}: {finding.sentence}", "yellow")
        for finding in (view.logged.findings or ())[-1:]
    ]
    return rows


def _cells(values: Sequence[str]) -> str:
    cells = (f"{value:<{width}}" for value, width in zip(values, _WIDTHS, strict=True))
    return " ".join(cells).rstrip()


def _values(view: RunView) -> tuple[str, ...]:
    found = view.status
    step = ""
    if found.step is not None and found.steps:
        step = f"{found.step / found.steps:.1%}"
    elif found.step is not None:
        step = human_count(found.step)
    numbers = [
        metric.text(view.logged.last[metric.name])[:width]
        if metric.name in view.logged.last
        else ""
        for metric, width in (
            (metrics.GENERATOR_LOSS, 6),
            (metrics.DISCRIMINATOR_LOSS, 6),
            (metrics.AUC, 5),
        )
    ]
    held_out = ""
    if view.logged.held_out is not None:
        held_out = f"{view.logged.held_out.loss:.4f}"
    speed = ""
    if found.real_tokens_per_s is not None:
        speed = human_count(found.real_tokens_per_s)
    left = ""
    if found.seconds_left is not None and found.state == "running":
        left = human_seconds(found.seconds_left)
    return (found.state, step, *numbers, held_out, speed, left)
