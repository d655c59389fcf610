"""The kinds of fault, and how each must end: one class a kind, drawn by name.

A *live* fault strikes a start of the run at a drawn moment; a *quiet* one strikes its files while
nobody trains. Each says what it did and which exit statuses are documented for it
(`electra_dist.errors.EXIT_STATUSES`). A run that was through before the fault struck ends with 0,
which is right for all of them.
"""

from __future__ import annotations

import errno
import os
import random
import shutil
import signal
import subprocess
import tarfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from torture_subject import Start, Subject, is_loader, kill, name_of, place_of

from electra_dist.errors import (
    EXIT_CTRL_C,
    EXIT_HANG,
    EXIT_STORAGE,
    EXIT_UNFINISHED,
    EXIT_USER_ERROR,
)
from electra_dist.runs.metrics_log import parse_row

KILLED = 128 + signal.SIGKILL


@dataclass(frozen=True)
class Struck:
    """What a fault did: in words, the statuses that may follow, and what was wrong with it already.

    `goes_on`: training is not ended by it; somebody asks for the end some steps later.
    """

    what: str
    statuses: tuple[int, ...]
    wrong: str = ""
    goes_on: bool = False


Live = Callable[[Subject, Start, random.Random], Struck]
Quiet = Callable[[Subject, random.Random], str]  # empty: there was nothing to damage yet


# --- live: processes ------------------------------------------------------------------------------


def _one_rank(start: Start, draw: random.Random) -> list[int]:
    """A rank, once there are any; none when the start has ended."""
    while not start.ended:
        ranks = start.ranks()
        if ranks:
            return [draw.choice(ranks)]
        time.sleep(0.02)
    return []


def kill_rank(subject: Subject, start: Start, draw: random.Random) -> Struck:
    """SIGKILL to one rank, as an out-of-memory killer does."""
    kill(_one_rank(start, draw))
    return Struck("SIGKILL to one rank", (KILLED,))


def kill_launcher(subject: Subject, start: Start, draw: random.Random) -> Struck:
    """SIGKILL to the process that started the ranks."""
    kill([start.process.pid])
    return Struck("SIGKILL to the launcher", (-signal.SIGKILL,))


def kill_all(subject: Subject, start: Start, draw: random.Random) -> Struck:
    """SIGKILL to everything: a node that goes down."""
    kill(start.tree())
    return Struck("SIGKILL to the whole tree", (-signal.SIGKILL,))


def one_signal(subject: Subject, start: Start, draw: random.Random) -> Struck:
    """A signal that asks a run to save and end, to the launcher."""
    number = draw.choice((signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP, signal.SIGINT))
    kill([start.process.pid], number)
    if number == signal.SIGINT:
        early = (EXIT_CTRL_C,)
    else:
        early = ()
    return Struck(f"{number.name} to the launcher", (EXIT_UNFINISHED, *early))


def change_ranks(subject: Subject, start: Start, draw: random.Random) -> Struck:
    """A run is interrupted, and goes on with another number of ranks;
    equal to rounding from there on.
    """
    kill([start.process.pid], signal.SIGTERM)
    others = [ranks for ranks in (1, 2, 4) if ranks != subject.ranks]
    subject.go_on_with(draw.choice(others))
    return Struck(f"goes on with {subject.ranks} ranks", (EXIT_UNFINISHED,))


def terminate_all(subject: Subject, start: Start, draw: random.Random) -> Struck:
    """SIGTERM to everything at once: a shutdown, a control group, a spot machine."""
    kill(start.tree(), signal.SIGTERM)
    return Struck("SIGTERM to the whole tree", (EXIT_UNFINISHED,))


def hang(subject: Subject, start: Start, draw: random.Random) -> Struck:
    """SIGSTOP to one rank: the others wait for it."""
    kill(_one_rank(start, draw), signal.SIGSTOP)
    return Struck("SIGSTOP to one rank", (EXIT_HANG,))


def pause(subject: Subject, start: Start, draw: random.Random) -> Struck:
    """SIGSTOP to one rank for a second: no hang."""
    chosen = _one_rank(start, draw)
    kill(chosen, signal.SIGSTOP)
    time.sleep(1)
    kill(chosen, signal.SIGCONT)
    return Struck("one rank stopped for a second", (EXIT_UNFINISHED,), goes_on=True)


def second_writer(subject: Subject, start: Start, draw: random.Random) -> Struck:
    """A second start of the same run."""
    status = subject.second()
    if status == EXIT_USER_ERROR or start.ended:
        wrong = ""
    else:
        wrong = f"the second ended with {status}"
    return Struck("a second writer", (EXIT_UNFINISHED,), wrong, goes_on=True)


def tracking_dies(subject: Subject, start: Start, draw: random.Random) -> Struck:
    """SIGKILL, SIGTERM or SIGSTOP to everything that serves W&B."""
    ranks = start.ranks()
    number = draw.choice((signal.SIGKILL, signal.SIGTERM, signal.SIGSTOP))
    struck = [pid for pid in start.tree()[1:] if pid not in ranks and not is_loader(pid)]
    names = " and ".join(filter(None, map(name_of, struck))) or "no process, none was there"
    kill(struck, number)
    return Struck(f"{number.name} to {names}", (EXIT_UNFINISHED,), goes_on=True)


# --- live: storage --------------------------------------------------------------------------------


def fill_disk(subject: Subject, start: Start, draw: random.Random) -> Struck:
    """The file system of the run fills up for some seconds, then somebody asks for the end;
    room is made after it.
    """
    filler = subject.folder / "runs" / "filler"
    with filler.open("wb", buffering=0) as file:
        for chunk in (1 << 20, 1 << 12, 1):
            while _writes(file, b"\0" * chunk):
                pass
    until = time.monotonic() + draw.uniform(1, 4)
    while time.monotonic() < until and not start.ended:
        time.sleep(0.05)
    kill([start.process.pid], signal.SIGTERM)
    status = start.wait()
    filler.unlink()
    if status is not None:
        wrong = ""
    else:
        wrong = "it did not end"
    return Struck("a full disk", (EXIT_STORAGE, EXIT_UNFINISHED), wrong)


def _writes(file: BinaryIO, content: bytes) -> bool:
    try:
        return file.write(content) == len(content)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        return False


def damage_shards(subject: Subject, start: Start, draw: random.Random) -> Struck:
    """One bit of every block of the shards flips while training goes on; the shards are put back
    afterwards.

    A start that reads no further block until its end finishes.
    """
    kept = {}
    for tar in subject.shards.glob("train-*.tar"):
        kept[tar] = tar.read_bytes()
        damaged = bytearray(kept[tar])
        with tarfile.open(tar) as archive:
            members = [member for member in archive if member.name.endswith("lengths.npy")]
        for member in members:
            # in the first length, after the header of the array
            damaged[member.offset_data + 128] ^= 1 << draw.randrange(8)
        with tar.open("r+b") as file:
            file.write(damaged)
    start.wait()
    for tar, content in kept.items():
        with tar.open("r+b") as file:
            file.write(content)
    return Struck("a flipped bit in each block of the shards", (EXIT_USER_ERROR,))


# --- quiet: files ---------------------------------------------------------------------------------


def damage_checkpoint(subject: Subject, draw: random.Random) -> str:
    """Something happens to the newest checkpoint, while an older one is whole."""
    steps = subject.run.complete_checkpoints()
    if len(steps) < 2:
        return ""
    folder = subject.run.checkpoint(steps[-1])
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    chosen = draw.choice(files)
    how = draw.choice(("flip", "cut", "remove", "fifo", "empty"))
    if how == "flip":
        content = bytearray(chosen.read_bytes())
        if content:
            content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
        chosen.write_bytes(content)
    elif how == "cut":
        os.truncate(chosen, chosen.stat().st_size // 2)
    elif how == "empty":
        os.truncate(chosen, 0)
    else:
        chosen.unlink()
        if how == "fifo":
            os.mkfifo(chosen)
    return f"newest checkpoint: {how} {chosen.relative_to(folder)}"


def leftovers(subject: Subject, draw: random.Random) -> str:
    """What a killed save leaves: hidden folders, half a file."""
    if not subject.run.checkpoints.is_dir():
        return ""
    folder = (
        subject.run.checkpoints
        / f".step-{draw.randrange(99):08d}.{draw.randrange(9999):04d}.partial"
    )
    (folder / "generator").mkdir(parents=True)
    (folder / "generator" / "rank-00000.safetensors").write_bytes(b"\x40\0\0\0\0\0\0\0{")
    return "leftovers of a killed save"


def damage_facts(subject: Subject, draw: random.Random) -> str:
    """run.json or config.yaml is lost, empty, cut or something else; a checkpoint carries both."""
    if not subject.run.complete_checkpoints():
        return ""
    path = draw.choice((subject.run.facts, subject.run.config))
    how = draw.choice(("lost", "empty", "cut", "[]"))
    if how == "lost":
        path.unlink(missing_ok=True)
    elif how == "[]":
        path.write_text("[]\n")
    else:
        os.truncate(path, 0 if how == "empty" else path.stat().st_size // 3)
    return f"{path.name}: {how}"


def damage_metrics(subject: Subject, draw: random.Random) -> str:
    """One row in the middle of metrics.jsonl becomes zeros, as after the crash of a node;
    or half a row at its end.
    """
    path = subject.run.metrics
    if path.is_file():
        lines = path.read_bytes().splitlines(keepends=True)
    else:
        lines = []
    if len(lines) < 3:
        return ""
    if draw.random() < 0.5:
        path.write_bytes(b"".join(lines) + lines[-1][: len(lines[-1]) // 2])
        return "metrics.jsonl: half a row at the end"
    chosen = draw.randrange(1, len(lines) - 1)
    row = parse_row(lines[chosen])
    lines[chosen] = b"\0" * (len(lines[chosen]) - 1) + b"\n"
    path.write_bytes(b"".join(lines))
    if row is not None:
        subject.damaged.add(place_of(row))
    return "metrics.jsonl: a row of zeros"


def damage_process(subject: Subject, draw: random.Random) -> str:
    """process.json, the sign of life, is damaged."""
    subject.run.process.write_bytes(draw.choice((b"", b"{", b"[]", b"\0" * 100)))
    return "process.json damaged"


LIVE: dict[str, Live] = {
    "kill of a rank": kill_rank,
    "kill of the launcher": kill_launcher,
    "kill of everything": kill_all,
    "signal": one_signal,
    "other number of ranks": change_ranks,
    "SIGTERM to everything": terminate_all,
    "hang": hang,
    "short stop": pause,
    "second writer": second_writer,
    "W&B dies": tracking_dies,
    "full disk": fill_disk,
    "damaged shards": damage_shards,
}
QUIET: dict[str, Quiet] = {
    "damaged checkpoint": damage_checkpoint,
    "leftovers of a save": leftovers,
    "damaged run.json or config.yaml": damage_facts,
    "damaged metrics.jsonl": damage_metrics,
    "damaged process.json": damage_process,
}
#: Live faults that need other ranks, which notice.
NEED_RANKS = frozenset(("hang",))
#: Live faults that need training to be under way.
NEED_STEPS = frozenset(
    ("hang", "short stop", "second writer", "W&B dies", "full disk", "damaged shards")
)


def mount(folder: Path, megabytes: int) -> bool:
    """A small file system of its own at `folder`; False where that is not allowed."""
    folder.mkdir(parents=True, exist_ok=True)
    words = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder)]
    return shutil.which("mount") is not None and _succeeds(words)


def unmount(folder: Path) -> None:
    """Take it away again."""
    _succeeds(["umount", "-l", str(folder)])


def _succeeds(words: list[str]) -> bool:
    return subprocess.run(words, capture_output=True, check=False).returncode == 0
