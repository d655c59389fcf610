"""Never lose a run: real runs under faults drawn at random, each compared with a run that nobody
disturbed.

    python benchmarks/torture.py --short                           one fault of each important kind,
                                                                   under 3 minutes
    python benchmarks/torture.py --faults 100 --seed 1 --json torture.json

A run of 240 steps (two networks, ZeRO-3, real text) is started as users start it, with
`electra-dist launch local`, and struck again and again: processes killed, stopped and signalled,
files damaged, the disk filled, a second writer, W&B killed, another number of ranks. It is started
again until it is finished. Then its metrics must have every step once, with the losses of the
undisturbed run to the bit (to rounding after a change of the number of ranks), its last weights
must be equal, and every start must have ended with a documented exit status. A run that diverges,
because of a planted learning rate, must equal one that was told to pass over those rows.

The table has a row a kind of fault:

    tries      faults struck
    survived   the status was right, and the run was equal at its end
    lost       the run was not equal at its end (counted for each fault that struck it), or never
               ended
    status     an exit status that is not documented for this fault
    recovery   median seconds from the fault to the next step that was not logged before it: until
               it is
               noticed, the end of that start and the whole next start included

Exit status 1 when anything was lost or undocumented. Needs no GPU; a full disk needs the right to
mount (root).
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from torture_faults import LIVE, NEED_RANKS, NEED_STEPS, QUIET, mount, unmount
from torture_subject import Start, Subject, kill, write_shards

from electra_dist.console import human_seconds
from electra_dist.errors import EXIT_OK
from electra_dist.runs.rollbacks import Rollback

#: Of every run, and of those of `--short`.
STEPS = 240
SHORT_STEPS = 120
#: Of the file system that a run lies on; its checkpoints take half of it.
DISK_MEGABYTES = 48
DIVERGENCE = "divergence"
#: Faults after which a run is left to finish.
PER_RUN = 7
#: What `--short` strikes: two runs, then a divergence.
SHORT = (
    (
        "SIGTERM to everything",
        "damaged checkpoint",
        "kill of a rank",
        "damaged metrics.jsonl",
        "second writer",
    ),
    ("W&B dies", "full disk", "damaged run.json or config.yaml", "hang"),
)


@dataclass
class Fault:
    """One fault as it went; `statuses` are the documented ones, `differences` those of its run.

    `recovery` are the seconds to the next new step.
    """

    kind: str
    run: int
    what: str = ""
    status: int | None = None
    statuses: tuple[int, ...] = ()
    wrong: str = ""
    recovery: float | None = None
    differences: list[str] = field(default_factory=list)

    @property
    def status_is_right(self) -> bool:
        return not self.wrong

    @property
    def survived(self) -> bool:
        return self.status_is_right and not self.differences


class Torture:
    """All runs of one call."""

    def __init__(self, folder: Path, shards: Path, steps: int, seed: int, total: int) -> None:
        self.folder = folder
        self.shards = shards
        self.steps = steps
        self.total = total
        self.draw = random.Random(seed)
        self.faults: list[Fault] = []
        self.began = time.monotonic()
        self.disk = True
        self._references: dict[int, Subject] = {}

    def reference(self, ranks: int) -> Subject:
        """The undisturbed run on as many ranks."""
        if ranks not in self._references:
            subject = Subject(self.folder / f"undisturbed-{ranks}", self.shards, ranks, self.steps)
            status = subject.start().wait()
            if status != EXIT_OK:
                raise SystemExit(f"the undisturbed run ended with {status}; see {subject.log}")
            self._references[ranks] = subject
        return self._references[ranks]

    # --- one run ----------------------------------------------------------------------------------

    def torture(self, number: int, ranks: int, kinds: Sequence[str]) -> list[str]:
        """Strike one run with `kinds`, in order, let it finish, compare;
        those that it was through too early for.
        """
        wanted = self.reference(ranks)
        place = self.folder / f"run-{number}"
        mounted = mount(place / "runs", DISK_MEGABYTES)
        self.disk = self.disk and mounted
        subject = Subject(place, self.shards, ranks, self.steps)
        possible = [kind for kind in kinds if mounted or kind != "full disk"]
        try:
            return self._torture(subject, number, possible, wanted)
        finally:
            subject.end()
            if mounted:
                unmount(place / "runs")
            shutil.rmtree(place, ignore_errors=True)

    def _torture(
        self, subject: Subject, number: int, kinds: Sequence[str], wanted: Subject
    ) -> list[str]:
        struck: list[Fault] = []
        open_faults: list[tuple[Fault, float, int]] = []
        left = list(kinds)
        while left and not (left[0] in NEED_RANKS and subject.ranks == 1):
            fault = Fault(left[0], number)
            if not self._strike_one(fault, subject, open_faults):
                break
            del left[0]
            struck.append(fault)
            self.faults.append(fault)
            self._say(fault)
        differences = self._finish(subject, open_faults, wanted)
        for fault in struck:
            fault.differences = differences
        if differences:
            kept = subject.keep()
            some = "; ".join(differences[:5])
            print(f"  run {number} is not what it should be: {some}; see {kept}", flush=True)
        return left

    def _strike_one(
        self, fault: Fault, subject: Subject, open_faults: list[tuple[Fault, float, int]]
    ) -> bool:
        """Strike the run while it trains, or its files while it does not;
        false when it was through before.
        """
        if fault.kind in LIVE:
            return self._strike(fault, subject, open_faults)
        fault.statuses = (EXIT_OK,)
        fault.status = EXIT_OK
        while not fault.what:
            at = time.monotonic()
            fault.what = QUIET[fault.kind](subject, self.draw)
            if not fault.what:  # let it train on until there is
                further = Fault("signal", fault.run)
                if not self._strike(further, subject, open_faults):
                    return False
                if further.wrong:
                    self.faults += [further]
                else:
                    self.faults += []
        open_faults.append((fault, at, subject.logged()))
        return True

    def _strike(
        self, fault: Fault, subject: Subject, open_faults: list[tuple[Fault, float, int]]
    ) -> bool:
        """Start the run, strike it, see it end; false when it was through before."""
        if subject.logged() >= self.steps:
            return False
        start = subject.start()
        self._recover(subject, start, open_faults)
        self._moment(fault.kind, subject, start)
        before = subject.logged()
        if before >= self.steps:
            start.wait()
            return False
        at = time.monotonic()
        struck = LIVE[fault.kind](subject, start, self.draw)
        if struck.goes_on:
            open_faults.append((fault, at, before))
            self._recover(subject, start, open_faults)
            kill([start.process.pid], signal.SIGTERM)
        fault.status = start.wait()
        if not struck.goes_on:
            open_faults.append((fault, at, subject.logged()))
        fault.what = f"{struck.what} at step {before}"
        fault.statuses = struck.statuses
        fault.wrong = struck.wrong
        if fault.status not in (*struck.statuses, EXIT_OK) and not fault.wrong:
            fault.wrong = (
                f"exit status {fault.status} instead of {' or '.join(map(str, struck.statuses))}"
            )
        return True

    def _moment(self, kind: str, subject: Subject, start: Start) -> None:
        """Wait until it is time to strike: some steps from now, or somewhere in the start-up."""
        if kind not in NEED_STEPS and self.draw.random() < 0.25:
            time.sleep(self.draw.uniform(0, 7))
            return
        first = subject.logged()
        goal = first + self.draw.randrange(1, 25)
        subject.wait_for(start, lambda: subject.logged() > first or subject.logged() >= self.steps)
        subject.wait_for(start, lambda: subject.logged() >= min(goal, self.steps - 1), 20)

    def _recover(
        self, subject: Subject, start: Start, open_faults: list[tuple[Fault, float, int]]
    ) -> None:
        """Wait for a step that was not logged before the faults that are still open,
        and note how long it took.
        """
        for fault, at, before in open_faults:
            if subject.wait_for(start, lambda before=before: subject.logged() > before):  # type: ignore[misc]
                fault.recovery = time.monotonic() - at
        open_faults.clear()

    def _finish(
        self, subject: Subject, open_faults: list[tuple[Fault, float, int]], wanted: Subject
    ) -> list[str]:
        start = subject.start()
        self._recover(subject, start, open_faults)
        status = start.wait()
        if status != EXIT_OK:
            return [f"the last start ended with {status} instead of {EXIT_OK}"]
        try:
            return subject.differences(wanted)
        except Exception as error:
            return [f"what is left cannot be read: {type(error).__name__}: {error}"]

    # --- divergence -------------------------------------------------------------------------------

    def diverge(self, number: int, ranks: int) -> None:
        """A run that diverges equals one that was told to pass
        over the rows that the guard named.
        """
        fault = Fault(DIVERGENCE, number, statuses=(EXIT_OK,))
        first = self.draw.randrange(25, self.steps // 2)
        subject = Subject(self.folder / f"run-{number}", self.shards, ranks, self.steps)
        began = time.monotonic()
        fault.status = subject.start_poisoned([first]).wait()
        fault.what = f"learning rate times 10,000 at step {first}"
        if fault.status != EXIT_OK:
            fault.wrong = f"exit status {fault.status} instead of {EXIT_OK}"
        rollbacks = subject.run.read_facts().rollbacks
        if not rollbacks:
            fault.differences = ["it was not rolled back"]
        else:
            fault.recovery = time.monotonic() - began
            fault.differences = self._told(number, ranks, rollbacks, subject)
        self.faults.append(fault)
        self._say(fault)

    def _told(
        self, number: int, ranks: int, rollbacks: tuple[Rollback, ...], subject: Subject
    ) -> list[str]:
        rows = [list(rollback.rows) for rollback in rollbacks]
        told = Subject(self.folder / f"told-{number}", self.shards, ranks, self.steps)
        status = told.start(f"data.skip_steps={json.dumps(rows)}").wait()
        if status != EXIT_OK:
            return [f"the run that was told to pass over {rows} ended with {status}"]
        return subject.differences(told)

    # --- the books --------------------------------------------------------------------------------

    def _say(self, fault: Fault) -> None:
        done = len(self.faults)
        passed = time.monotonic() - self.began
        left = human_seconds(passed / done * max(0, self.total - done))
        ending = fault.wrong or f"status {fault.status}"
        print(
            f"{done:>4}/{self.total} {fault.kind}: {fault.what}: {ending}  ({left} left)",
            flush=True,
        )


def plan(faults: int, draw: random.Random) -> list[list[str]]:
    """Kinds for each run: every kind about as often as any other, in a drawn order."""
    kinds = [*LIVE, *QUIET, DIVERGENCE]
    drawn = [kinds[number % len(kinds)] for number in range(faults)]
    draw.shuffle(drawn)
    divergences = [[kind] for kind in drawn if kind == DIVERGENCE]
    others = [kind for kind in drawn if kind != DIVERGENCE]
    return [
        others[first : first + PER_RUN] for first in range(0, len(others), PER_RUN)
    ] + divergences


def table(faults: Sequence[Fault]) -> list[dict[str, Any]]:
    """One row a kind."""
    rows = []
    for kind in dict.fromkeys(sorted(fault.kind for fault in faults)):
        struck = [fault for fault in faults if fault.kind == kind]
        times = [fault.recovery for fault in struck if fault.recovery is not None]
        rows.append(
            {
                "fault": kind,
                "tries": len(struck),
                "survived": sum(fault.survived for fault in struck),
                "lost": sum(bool(fault.differences) for fault in struck),
                "wrong_status": sum(not fault.status_is_right for fault in struck),
                "median_recovery_seconds": round(statistics.median(times), 1) if times else None,
            }
        )
    return rows


def show(rows: Sequence[dict[str, Any]]) -> None:
    shown = Table("fault", "tries", "survived", "lost", "status", "recovery s")
    for row in rows:
        shown.add_row(*("-" if value is None else str(value) for value in row.values()))
    Console(width=100).print(shown)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--short", action="store_true", help="one fault of each important kind")
    parser.add_argument("--faults", type=int, default=100, metavar="N", help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path, metavar="FILE", help="every fault, and the table")
    parser.add_argument(
        "--folder", type=Path, help="work here, and leave it (default: a temporary folder)"
    )
    arguments = parser.parse_args()
    folder = arguments.folder or Path(tempfile.mkdtemp(prefix="torture-"))
    folder.mkdir(parents=True, exist_ok=True)
    draw = random.Random(arguments.seed)
    if arguments.short:
        runs = [*map(list, SHORT), [DIVERGENCE]]
    else:
        runs = plan(arguments.faults, draw)
    if arguments.short:
        steps = SHORT_STEPS
    else:
        steps = STEPS
    torture = Torture(folder, write_shards(folder), steps, arguments.seed, sum(map(len, runs)))
    number = 0
    while runs:
        kinds = runs.pop(0)
        if arguments.short:
            ranks = 2
        else:
            ranks = draw.choice((1, 2, 2))
        if kinds[0] in NEED_RANKS:
            ranks = 2
        if kinds == [DIVERGENCE]:
            torture.diverge(number, 1 if arguments.short else ranks)
        elif left := torture.torture(number, ranks, kinds):
            runs.insert(0, left)
        number += 1
    rows = table(torture.faults)
    show(rows)
    if not torture.disk:
        print("full disks were left out: no file system may be mounted here")
    bad = [fault for fault in torture.faults if not fault.survived]
    print(
        f"{len(torture.faults)} faults on {number} runs in"
        f" {human_seconds(time.monotonic() - torture.began)}: {len(torture.faults) - len(bad)}"
        f" survived, {len(bad)} not"
    )
    if arguments.json:
        content = {
            "seed": arguments.seed,
            "table": rows,
            "faults": [asdict(fault) for fault in torture.faults],
        }
        arguments.json.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    if not bad and arguments.folder is None:
        shutil.rmtree(folder, ignore_errors=True)
    if bad:
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
