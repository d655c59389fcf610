"""What the run directory alone tells of a run: step, losses, speed, checkpoints, lock.

Comes in: a run directory. Goes out: fields of `launcher.status.RunStatus`, by name. No queue is
asked.
"""

from __future__ import annotations

import contextlib
from dataclasses import asdict
from datetime import datetime
from typing import Any

from electra_dist import config as configuration
from electra_dist.config import Config
from electra_dist.errors import ConfigError, UserError
from electra_dist.runs import lock, metrics
from electra_dist.runs.checkpoints import health
from electra_dist.runs.checkpoints.memory import saving
from electra_dist.runs.directory import RunDir
from electra_dist.runs.heartbeat import Life
from electra_dist.runs.heldout.best import best_saved, recorded_early_stop
from electra_dist.runs.progress import read_vitals
from launcher.held_out import Best, HeldOut
from launcher.logged import Logged


def recorded(run: RunDir, logged: Logged) -> dict[str, Any]:
    """Step, losses, speed and newest checkpoint, from the run directory."""
    config = _config(run)
    steps = None
    if config is not None:
        steps = config.train.steps
    last = logged.last
    checkpoints = run.complete_checkpoints()
    step = last.get("step", checkpoints[-1] if checkpoints else None)
    pace = last.get(metrics.STEP_SECONDS.name)
    seconds_left = None
    if pace and steps is not None and step is not None:
        seconds_left = (steps - step) * pace
    return {
        "step": step,
        "steps": steps,
        "generator_loss": last.get(metrics.GENERATOR_LOSS.name),
        "discriminator_loss": last.get(metrics.DISCRIMINATOR_LOSS.name),
        "real_tokens_per_s": last.get(metrics.TOKENS_PER_SECOND.name),
        "seconds_left": seconds_left,
        "best_held_out": _best(run, logged.best),
        "last_checkpoint": checkpoints[-1] if checkpoints else None,
        **asdict(health(run)),
        **_chosen(run, config, checkpoints),
        "rollbacks": run.rollbacks(),
        "saving_fails": _saving_fails(run),
        "broken_rows": logged.broken,
        "held_by": _held_by(run),
        "findings": logged.findings,
    }


def _best(run: RunDir, lowest: HeldOut | None) -> Best | None:
    if lowest is None:
        return None
    tokenizer = ""
    with contextlib.suppress(UserError):  # the rest of the status is worth having
        about = run.read_facts().about
        if about is not None:
            tokenizer = about.tokenizer
    return lowest.best(tokenizer)


def _saving_fails(run: RunDir) -> str | None:
    remembered = saving(run)
    if remembered is None or remembered.problem is None:
        return None
    if remembered.failures > 1:
        tries = f", {remembered.failures} tries in a row"
    else:
        tries = ""
    return f"step {remembered.problem_step}: {remembered.problem}{tries}"


def _held_by(run: RunDir) -> str | None:
    """Who holds the lock; nobody when that process is known to be dead."""
    found = lock.holding(run)
    if found is None or found.alive is False:
        return None
    since, last = (
        f"{datetime.fromtimestamp(t).astimezone():%Y-%m-%d %H:%M:%S %z}"
        for t in (found.holder.since, found.last_sign)
    )
    if found.alive:
        sign = ""
    else:
        sign = f", last sign of life {last}"
    return f"{found.holder.name()}, which {found.holder.purpose}, since {since}{sign}"


def _chosen(run: RunDir, config: Config | None, checkpoints: list[int]) -> dict[str, Any]:
    """How the run has stopped early, and its best checkpoint; None for what is not known."""
    if config is None or not checkpoints:
        return {}
    try:
        early = recorded_early_stop(run, config, checkpoints[-1])
        return {
            "stopped_early": early.sentence if early else None,
            "best": best_saved(run, config),
        }
    # a metric of another version: the rest of the status is worth having
    except ConfigError:
        return {}


def _config(run: RunDir) -> Config | None:
    """The configuration of the newest launch, else that of the run; None where it is of another
    version.
    """
    if run.jobs.is_dir():
        launched = sorted(run.jobs.glob("[0-9]*.yaml"))
    else:
        launched = []
    for path in [*reversed(launched), run.config]:
        if path.is_file():
            try:
                return configuration.load(path)
            # written by another version: the rest of the status is worth having
            except ConfigError:
                return None
    return None


def activity(run: RunDir, seen: Life | None) -> dict[str, Any]:
    """What the ranks are doing, as the watchdog of the first one has noted it;
    nothing of an earlier process.
    """
    vitals = read_vitals(run)
    if vitals is None or seen is None or vitals.pid != seen.process.pid:
        return {}
    if vitals.detail:
        phase = f"{vitals.phase} ({vitals.detail})"
    else:
        phase = vitals.phase
    return {"phase": phase, "step_age": vitals.step_age, "sign_age": vitals.sign_age}
