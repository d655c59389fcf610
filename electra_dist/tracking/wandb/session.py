"""One session of a W&B run: opened, fed with rows, finished. Needs wandb; runs in the mirror's
process only.

The W&B service (wandb-core) is a child of this process. It may die, hang, or never answer: what
raises here ends the mirror, and `process.Deadline` bounds what does not.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from electra_dist import config as configuration
from electra_dist.errors import EXIT_UNFINISHED
from electra_dist.health import Finding, Severity
from electra_dist.runs.directory import RunDir
from electra_dist.runs.metrics import STEP, all_metrics
from electra_dist.runs.metrics_log import Row
from electra_dist.tracking.wandb.artifacts import Reference
from electra_dist.tracking.wandb.children import descendants, lives
from electra_dist.tracking.wandb.environment import Mode
from electra_dist.tracking.wandb.follower import values_of
from electra_dist.tracking.wandb.samples import COLUMNS, TABLE
from electra_dist.tracking.wandb.told import told, without_places
from electra_dist.tracking.wandb.wandb_files import history, refused

#: W&B's own bound for reaching its server when a session is opened;
#: WANDB_INIT_TIMEOUT sets another one.
INIT_SECONDS = 20.0
#: What W&B calls the severities of findings.
_LEVELS: dict[Severity, str] = {"note": "INFO", "warning": "WARN", "critical": "ERROR"}
#: What W&B says, at most.
_WORDS = 300
#: HTTP status of the server -> what it means.
_STATUSES = {
    401: "the key is not valid there, try `wandb login --relogin`",
    402: "the quota of the account is used up",
    403: "this login may not write there",
    404: "no such project, user or team",
    429: "the server takes no more requests now",
}
#: Tag of a W&B run whose course was left.
SUPERSEDED = "superseded"


class SessionError(Exception):
    """The W&B service is gone, or what it should have written is not there; one sentence."""


class UnreachableError(SessionError):
    """W&B cannot be used online: no key, no network, or a server that refuses."""


class PlaceError(Exception):
    """W&B cannot be told where something lies; one sentence."""


class Session:
    """A W&B run that was opened; `there` is the number of rows that the server has of it."""

    def __init__(
        self,
        run: RunDir,
        mode: Mode,
        run_id: str,
        trainer: int | None,
        environment: Mapping[str, str],
    ) -> None:
        """Open the W&B run `run_id`: a new one, or on the server the one that is there.

        `environment` may bound the time for that (WANDB_INIT_TIMEOUT).
        """
        import wandb

        self._online = mode == "online"
        self._root = run.wandb
        arguments = _arguments(run, mode, run_id)
        settings = _settings(trainer, environment)
        try:
            self._run = wandb.init(**arguments, settings=settings)
        except Exception as error:  # of many classes: no key, a wrong one, no network, no space
            if self._online:
                raise UnreachableError(f"cannot be used online ({in_words(error)})") from error
            raise SessionError(in_words(error)) from error
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
        self._define_metrics()

    def _define_metrics(self) -> None:
        """The axis of all metrics, and which values of each the summary keeps."""
        self._run.define_metric(STEP.name, summary="max")
        self._run.define_metric("*", step_metric=STEP.name)
        for metric in all_metrics():
            if metric.best == "last":
                continue
            names = [metric.name]
            if metric.held_out:
                names.append(metric.name_held_out)
            for name in names:
                kept = f"{metric.best},last"
                self._run.define_metric(name, step_metric=STEP.name, summary=kept)

    def _summary_step(self) -> int:
        """The last step that the server has; -1 where it has none."""
        if not self.there:
            return -1
        step = self._run.summary.get(STEP.name)
        if isinstance(step, Mapping):
            step = step.get("max")
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

    def send_table(self, step: int, rows: Sequence[Sequence[Any]]) -> None:
        """Hand a table of passages to the service.

        As a file of the run alone: W&B would make an artifact of each table as well, whose copy
        lies in the home of whoever trains.
        """
        import wandb

        table = wandb.Table(columns=list(COLUMNS), data=[list(row) for row in rows])
        table.bind_to_run(self._run, TABLE, self._sent)
        self._run.log({STEP.name: step, TABLE: table.to_json(self._run)})
        self._sent += 1

    def refer(self, reference: Reference) -> None:
        """Tell W&B where something lies; raises `PlaceError` where W&B cannot name it."""
        import wandb

        artifact = wandb.Artifact(reference.name, reference.kind, metadata=reference.facts)
        try:
            artifact.add_reference(reference.place, name=reference.entry, checksum=False)
        except (ValueError, OSError, wandb.Error) as error:
            raise PlaceError(f"{reference.place}: {in_words(error)}") from error
        self._run.log_artifact(artifact, aliases=[*reference.aliases, "latest"])

    def check(self) -> None:
        """Raise `SessionError` when the service is gone; `UnreachableError` when the server refuses
        its rows.
        """
        if self._service and not any(lives(process) for process in self._service):
            raise SessionError("its service ended by itself")
        self._check_arrival()

    def _check_arrival(self) -> None:
        if self._online:
            reason = refused(self.folder)
            if reason is not None:
                raise UnreachableError(f"the server refuses rows ({in_words(reason)})")

    def supersede(self, step: int) -> None:
        """Mark the W&B run: of a course that was left, with `step` as the last that both share."""
        self._run.name = f"{self._run.name} (left after step {step})"
        self._run.tags = (*(self._run.tags or ()), SUPERSEDED)

    def finish(self, status: int) -> None:
        """End the W&B run: a success with status 0, interrupted with `EXIT_UNFINISHED`, else
        failed.

        Raises `SessionError` where a row of an offline session is not in its file.
        """
        import wandb

        if status == EXIT_UNFINISHED:
            self._run.mark_preempting()
        self._run.finish(exit_code=status)
        wandb.teardown()  # its service closes the files and ends
        if self._online:
            self._check_arrival()
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
    tracking = config.tracking
    notes = tracking.notes
    group = tracking.group
    return {
        "id": run_id,
        "resume": "allow",
        "mode": mode,
        "project": tracking.project,
        "entity": tracking.entity,
        "name": run.path.absolute().name,
        "group": group and without_places(group),
        "job_type": tracking.job_type,
        "notes": notes and without_places(notes),
        "tags": list(tracking.tags),
        "dir": str(run.path.absolute()),
        "config": told(config, run.read_facts()),
    }


def private_settings(init_seconds: float = INIT_SECONDS, **about_machine: Any) -> Any:
    """Settings under which W&B prints nothing, and is told neither paths nor host, user or code.

    Without `about_machine` it measures no process.
    """
    import wandb

    return wandb.Settings(
        silent=True,
        console="off",
        save_code=False,
        disable_git=True,
        host="",
        x_disable_meta=True,  # paths, host and user; `told` has what matters
        init_timeout=init_seconds,
        **(about_machine or {"x_disable_stats": True}),
    )


def _settings(trainer: int | None, environment: Mapping[str, str]) -> Any:
    seconds = float(environment.get("WANDB_INIT_TIMEOUT") or INIT_SECONDS)
    if trainer:
        return private_settings(seconds, x_stats_pid=trainer)
    return private_settings(seconds)


def in_words(said: BaseException | str) -> str:
    """What W&B or its server said, in one line, with what the status of the server means."""
    lines = [line.strip() for line in str(said).splitlines() if line.strip()]
    if not lines:
        return type(said).__name__
    text = "; ".join(lines[:2]).rstrip(".")[:_WORDS]
    for status, meaning in _STATUSES.items():
        if re.search(rf"\b{status}\b", text):
            return f"{meaning}: {text}"
    return text
