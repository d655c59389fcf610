"""One session of a W&B run: opened, fed with rows, finished. Needs wandb; runs in the mirror's
process only.

The W&B service (wandb-core) is a child of this process. It may die, hang, or never answer: what
raises here ends the mirror, and `process.Deadline` bounds what does not.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from electra_dist import config as configuration
from electra_dist.health import Finding, Severity
from electra_dist.runs.directory import RunDir
from electra_dist.runs.metrics import all_metrics
from electra_dist.runs.metrics_log import Row
from electra_dist.tracking.wandb.children import descendants, lives
from electra_dist.tracking.wandb.environment import Mode
from electra_dist.tracking.wandb.follower import values_of
from electra_dist.tracking.wandb.wandb_files import history

#: W&B's own bound for reaching its server when a session is opened;
#: WANDB_INIT_TIMEOUT sets another one.
INIT_SECONDS = 20.0
#: What W&B calls the severities of findings.
_LEVELS: dict[Severity, str] = {"note": "INFO", "warning": "WARN", "critical": "ERROR"}


class SessionError(Exception):
    """The W&B service is gone, or what it should have written is not there; one sentence."""


class UnreachableError(SessionError):
    """W&B cannot be used online: no key, no network, or a server that refuses."""


class Session:
    """A W&B run that was opened; `there` is the number of rows that the server has of it."""

    def __init__(
        self,
        run: RunDir,
        mode: Mode,
        trainer: int | None,
        environment: Mapping[str, str],
    ) -> None:
        """Open the W&B run of run.json: a new one, or on the server the one that is there.

        `environment` may bound the time for that (WANDB_INIT_TIMEOUT).
        """
        import wandb

        self._online = mode == "online"
        self._root = run.wandb
        run_id = run.read_facts().wandb_id
        try:
            self._run = wandb.init(
                **_arguments(run, mode, run_id), settings=_settings(trainer, environment)
            )
        except Exception as error:  # of many classes: no key, a wrong one, no network, no space
            if self._online:
                raise UnreachableError(f"cannot be used online ({_first_line(error)})") from error
            raise SessionError(_first_line(error)) from error
        self.folder = Path(self._run.settings.sync_dir).absolute()
        if not self.folder.is_relative_to(self._root.absolute()):
            raise SessionError(f"{self._root} cannot be written; W&B took {self.folder} instead")
        if self._online:
            self.there = int(self._run.starting_step)
        else:
            self.there = 0
        self.last_step = self._summary_step()
        if self._online:
            self.url = self._run.url
        else:
            self.url = None
        self._sent = 0
        self._service = descendants(os.getpid())
        self._run.define_metric("step")
        self._run.define_metric("*", step_metric="step")
        for metric in all_metrics():
            if metric.best != "last":
                self._run.define_metric(metric.name, step_metric="step", summary=metric.best)
            if metric.best != "last" and metric.held_out:
                name = metric.name_held_out
                self._run.define_metric(name, step_metric="step", summary=metric.best)

    def _summary_step(self) -> int:
        if self.there:
            step = self._run.summary.get("step")
        else:
            step = None
        if isinstance(step, int | float):
            return int(step)
        return -1

    def send(self, row: Row) -> None:
        """Hand a row to the service; raises where it is gone."""
        self._run.log(values_of(row))
        self._sent += 1

    def alert(self, finding: Finding) -> None:
        """Hand over a finding that began: W&B tells the user, as the settings there say."""
        self._run.alert(finding.rule, finding.line, _LEVELS[finding.severity], wait_duration=0)

    def check(self) -> None:
        """Raise `SessionError` when the service is gone."""
        if self._service and not any(lives(process) for process in self._service):
            raise SessionError("its service ended by itself")

    def finish(self, status: int) -> None:
        """End the W&B run;
        raises `SessionError` where a row of an offline session is not in its file.
        """
        import wandb

        self._run.finish(exit_code=status)
        wandb.teardown()  # its service closes the files and ends
        if self._online:
            return
        file = next(iter(self.folder.glob("*.wandb")), None)
        if file:
            written = sum(1 for _ in history(file))
        else:
            written = 0
        if written != self._sent:
            raise SessionError(f"{self.folder} has {written} of {self._sent} rows")


def _arguments(run: RunDir, mode: Mode, run_id: str) -> dict[str, Any]:
    config = configuration.load(run.config)
    facts = config.model_dump(mode="json") | {"dataset": run.read_facts().dataset_fingerprint}
    return {
        "id": run_id,
        "resume": "allow",
        "mode": mode,
        "project": config.tracking.project,
        "entity": config.tracking.entity,
        "name": run.path.absolute().name,
        "tags": list(config.tracking.tags),
        "dir": str(run.path.absolute()),
        "config": facts,
    }


def _settings(trainer: int | None, environment: Mapping[str, str]) -> Any:
    import wandb

    if trainer:
        about_machine = {"x_stats_pid": trainer}
    else:
        about_machine = {"x_disable_stats": True}
    return wandb.Settings(
        silent=True,
        console="off",
        save_code=False,
        disable_git=True,
        init_timeout=float(environment.get("WANDB_INIT_TIMEOUT") or INIT_SECONDS),
        **about_machine,
    )


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if lines:
        return lines[0].rstrip(".")
    return type(error).__name__
