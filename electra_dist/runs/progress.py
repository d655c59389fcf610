"""How far a run is right now: `RUN/progress.json`, which rank 0's watchdog writes; and
`RUN/hang.json`, when it hung.

In, on the training side: what the process is doing (`signs`), and a hang that was found. Out, on
the side of `status`, `launch local` and the job script: a `Vitals`, its ages those of now. Needs no
torch.

hang.json: `time` (UTC), `unix_time`, `launch`, `ranks` and `hosts` of the suspects, `phase`,
`step`, `seconds`, `reason` (one sentence), `stacks` (the files with the stacks of all ranks),
`suspects` (one object each). It is written once in a launch, and stays until the next hang: compare
its time with the start that you mean.
"""

from __future__ import annotations

import os
import time
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Any

from electra_dist.errors import UserError
from electra_dist.files.reading import MIB, read_json
from electra_dist.files.writing import write_json
from electra_dist.parallel.signs import Doing
from electra_dist.runs.directory import RunDir

#: In the environment of rank 0: the descriptor of a pipe to whoever draws its live line.
LINE_VARIABLE = "ELECTRA_DIST_LINE"
#: How often progress.json is written.
VITALS_SECONDS = 15.0


@dataclass(frozen=True)
class Vitals:
    """What rank 0 knew of the run when it wrote the file, aged to now.

    pid             of rank 0
    phase, detail   what it is doing
    step            optimizer steps done
    signs           grows while anything moves on any rank
    step_age        seconds since the last step ended; None before the first one
    sign_age        seconds since the newest sign of any rank
    limit           seconds without a sign that the run may take there; then the watchdog ends it,
                    unless turned off
    """

    pid: int
    phase: str
    detail: str
    step: int
    signs: int
    step_age: float | None
    sign_age: float
    limit: float


def write_vitals(run: RunDir, doing: Doing, signs: int, sign_age: float, limit: float) -> None:
    """Raises `OSError` when the file cannot be written."""
    now = time.monotonic()
    if doing.last_step is None:
        step_age = None
    else:
        step_age = round(now - doing.last_step, 1)
    vitals = Vitals(
        os.getpid(),
        doing.phase,
        doing.detail,
        doing.step,
        signs,
        step_age,
        round(sign_age, 1),
        limit,
    )
    write_json(run.progress, asdict(vitals))


def read_vitals(run: RunDir) -> Vitals | None:
    """The content of progress.json, or None when there is none, or one that is not ours."""
    try:
        vitals = Vitals(**read_json(run.progress, MIB))
        since = max(0.0, time.time() - run.progress.stat().st_mtime)
        if vitals.step_age is None:
            step_age = None
        else:
            step_age = vitals.step_age + since
        return replace(vitals, step_age=step_age, sign_age=vitals.sign_age + since)
    except (OSError, ValueError, TypeError, UserError):
        return None


def write_hang(run: RunDir, hang: dict[str, Any], launch: str, stacks: str) -> bool:
    """Write hang.json, unless another rank of this launch has;
    whether it was us. Raises `OSError`.
    """
    before = read_hang(run)
    if before is not None and before.get("launch") == launch:
        return False
    now = time.time()
    about = {
        "time": datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "unix_time": round(now, 1),
    }
    write_json(run.hang, about | {"launch": launch} | hang | {"stacks": stacks})
    return True


def read_hang(run: RunDir) -> dict[str, Any] | None:
    """The content of hang.json, or None."""
    try:
        content = read_json(run.hang, MIB)
    except (OSError, ValueError, UserError):
        return None
    if isinstance(content, dict):
        return content
    return None
