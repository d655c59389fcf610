"""The watchdog: a thread on every rank that ends a run which hangs, and tells the ranks when one of
them has failed.

In: what this process is doing (`signs`), and the same of the other ranks, over a channel of its
own. Out: nothing while all goes well. When no rank gives a sign for longer than its phase may take
(`hang`), rank 0 asks all where they stand, every rank that hears it writes its stacks into
RUN/logs, and all end with `EXIT_HANG`; RUN/hang.json says through whom. When rank 0 itself is
silent, the others notice that. When a rank fails alone, the others end within seconds and name it.

The thread never waits: not for another rank, not for the file system. It needs the interpreter's
lock; a rank that cannot give it (stopped, stuck in C) is silent to the others, and leaves its
stacks in its own log.
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import re
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from electra_dist.config import Config
from electra_dist.errors import (
    EXIT_CRASH,
    EXIT_CTRL_C,
    EXIT_HANG,
    EXIT_UNFINISHED,
    PeerFailedError,
    UserError,
)
from electra_dist.parallel import signs
from electra_dist.parallel.channel import HUB, Channel, Spoke
from electra_dist.parallel.meeting import Meeting, host_name
from electra_dist.parallel.world import World
from electra_dist.runs import heartbeat, lock
from electra_dist.runs.directory import RunDir
from electra_dist.runs.hooks import Hook
from electra_dist.runs.progress import VITALS_SECONDS, write_hang, write_vitals
from electra_dist.train.watch.hang import Beat, Hang, Heard, Stand, is_hang, judge, limits
from electra_dist.train.watch.stacks import collectives, stand_of, write_stacks

#: Between two beats; in a large world it is longer,
#: so that rank 0 hears a few hundred a second at most.
_TICK_SECONDS = 1.0
_BEATS_A_SECOND = 256
#: For the answers of ranks that are asked where they stand.
_ANSWER_SECONDS = 10.0
#: From a lost connection to the conclusion that the process at its other end is gone.
_LOST_SECONDS = 3.0
#: Until a rank says that it has never reached rank 0's watchdog.
_NO_CHANNEL_SECONDS = 60.0
#: Without a beat for so long and five ticks, a rank is silent:
#: stopped, or holding the interpreter's lock.
_SILENT_SECONDS = 10.0
#: What the others give rank 0 to find a hang, before they conclude that rank 0 itself is silent.
_HUB_SECONDS = 15.0
#: For the training thread to end by itself, once another rank has failed.
_PEER_SECONDS = 5.0
#: The same after a failure of its own, or a second Ctrl-C.
_OWN_SECONDS = 60.0
_CTRL_C_SECONDS = 5.0
#: For the thread to send what the training thread has to tell.
_TELL_SECONDS = 2.0
#: From a signal during the start, when nothing is trained yet, to the end.
_START_SECONDS = 10.0
#: For the last files and lines: the file system may be what hangs.
_LAST_WORDS_SECONDS = 10.0
#: A thread that has not run for so long was stopped with its whole process.
_STOPPED_SECONDS = 10.0
#: The second line, in C: rearmed so often, fires so long after the limit.
_ALARM_EVERY = 10.0
_ALARM_MARGIN = 60.0
_COMMUNICATION = re.compile(
    r"connection (closed|reset)|broken pipe|gloo|nccl|socket|timed out|\bpeer\b", re.IGNORECASE
)
_ENDINGS: dict[str, Literal["hung", "failed", "interrupted"]] = {
    "hang": "hung",
    "failed": "failed",
    "gone": "failed",
    "interrupted": "interrupted",
}
_DEADLY = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP)


@dataclass(frozen=True)
class End:
    """Why all ranks are to end now, in one sentence, and with which exit status;
    `rank` is whom it is about.
    """

    kind: Literal["hang", "failed", "gone", "interrupted"]
    status: int
    message: str
    rank: int
    hang: dict[str, Any] | None = None
    stamp: str = ""


class Watchdog:
    """Context manager around training, on every rank.

    Enter and leave it in the training thread. `meeting` is None where there is only one rank.
    """

    def __init__(self, config: Config, world: World, meeting: Meeting | None) -> None:
        self._settings = config.watchdog
        self._every = config.tracking.every
        self._run = RunDir(config.run.path)
        self._hook = Hook(config)
        self._rank = world.rank
        self._size = world.world_size
        if meeting:
            self._hosts = meeting.hosts
        else:
            self._hosts = (host_name(),)
        self._channel = _channel(world, meeting)
        if meeting:
            self._launch = meeting.hub_at.secret[:12]
        else:
            self._launch = f"{os.getpid()}-{time.time():.0f}"
        self._tick = max(_TICK_SECONDS, self._size / _BEATS_A_SECOND)
        self._over = threading.Event()
        self._told = threading.Event()
        self._ended: End | None = None
        self._end_known = threading.Event()
        self._outbox: list[End] = []
        self._heard: dict[int, Heard] = {}
        self._left: set[int] = set()  # ranks that have said goodbye
        self._stands: dict[int, Stand] = {}
        self._look: tuple[float, str, int] | None = None  # deadline, stamp, signs of all ranks
        self._asked_at: float | None = None
        self._warned = False
        self._interrupts: list[float] = []
        self._beats = 0
        self._next_beat = self._next_alarm = self._next_vitals = 0.0
        self._scribe: threading.Thread | None = None
        self._wakeup_before: int | None = None
        self._thread = threading.Thread(
            target=self._watch, name="electra-dist-watchdog", daemon=True
        )

    # --- around training --------------------------------------------------------------------------

    def __enter__(self) -> Watchdog:
        self._trainer = threading.get_ident()
        if threading.current_thread() is threading.main_thread():
            self._wakeup_before = signal.set_wakeup_fd(
                self._channel.wake_descriptor, warn_on_full_buffer=False
            )
        with contextlib.suppress(
            Exception
        ):  # a stream without a descriptor, in a notebook or a test
            faulthandler.enable()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._wakeup_before is not None:
            signal.set_wakeup_fd(self._wakeup_before)
        self._over.set()
        self._channel.wake()
        self._thread.join(_LAST_WORDS_SECONDS)

    def failed(self, error: BaseException) -> None:
        """Training ends by `error`: print it, tell the other ranks; nothing has been waited for
        yet.

        What all ranks raise together needs neither. Raises `PeerFailedError` where another rank has
        failed before, and this error only shows that it is gone.
        """
        if isinstance(error, PeerFailedError) or (
            isinstance(error, UserError) and error.everywhere
        ):
            return
        if _is_about_others(error) and self._size > 1:
            self._end_known.wait(_LOST_SECONDS + 2 * self._tick)
        end = self._ended
        if end is not None and (end.rank == self._rank or isinstance(error, KeyboardInterrupt)):
            return
        if end is not None:
            raise PeerFailedError(
                f"{end.message}; this rank ends because of it", end.status
            ) from error
        status = EXIT_CRASH
        if isinstance(error, UserError):
            status = error.exit_status
        elif isinstance(error, KeyboardInterrupt):
            status = EXIT_CTRL_C
        else:
            print_once(error)
        what = f"{type(error).__name__}: {error}".split("\n")[0][:500]
        who = f"rank {self._rank} on {self._hosts[self._rank]}"
        self._told.clear()
        self._outbox.append(End("failed", status, f"{who} failed: {what}", self._rank))
        self._channel.wake()
        self._told.wait(_TELL_SECONDS)

    # --- the thread -------------------------------------------------------------------------------

    def _watch(self) -> None:
        try:
            now = time.monotonic()
            self._heard = {
                rank: Heard(
                    Beat(
                        "start", 0, 0, 0, 0.0, *2 * (self._settings.start_seconds,), False, 0, "", 0
                    ),
                    now,
                )
                for rank in range(self._size)
            }
            while not self._over.is_set():
                self._listen(min(self._tick, max(self._next_beat - time.monotonic(), 0.0)))
                now = time.monotonic()
                self._hear_signals(now)
                self._turn(now)
            if self._ended is None:
                self._channel.send(["bye"])
            self._channel.close()
        except Exception:
            print(
                "warning: the watchdog has stopped, training goes on without it:", file=sys.stderr
            )
            traceback.print_exc()
        finally:
            with contextlib.suppress(Exception):
                faulthandler.cancel_dump_traceback_later()

    def _listen(self, seconds: float) -> None:
        before = time.monotonic()
        for rank, message in self._channel.poll(seconds):
            self._hear(rank, message)
        if time.monotonic() - before > seconds + _STOPPED_SECONDS:
            signs.sign()  # the whole process was stopped: what it has to do begins anew

    def _turn(self, now: float) -> None:
        """What is due: tell, beat, look around, note."""
        while self._outbox:
            self._declare(self._outbox.pop(0))
        if now >= self._next_beat:
            self._next_beat = now + self._tick
            self._beat(now)
        self._look_around(now)
        if now >= self._next_alarm:
            self._next_alarm = now + _ALARM_EVERY
            self._set_alarm()
        if self._rank == 0 and now >= self._next_vitals:
            self._next_vitals = now + VITALS_SECONDS
            self._note_vitals(now)

    def _beat(self, now: float) -> None:
        doing = signs.doing()
        self._beats += 1
        usual, urgent = limits(doing, self._settings, self._every)
        beat = Beat(
            phase=doing.phase,
            step=doing.step,
            entered=doing.entered,
            signs=doing.signs,
            age=now - doing.last_sign,
            limit=usual,
            urgent=urgent,
            asked=self._asked_at is not None,
            collectives=collectives(),
            detail=doing.detail[:200],
            beat=self._beats,
        )
        self._heard[self._rank] = Heard(beat, now)
        self._channel.send(["beat", *beat])

    def _hear(self, rank: int, message: Any) -> None:
        kind, *content = message
        if kind == "beat":
            self._heard[rank] = Heard(Beat(*content), time.monotonic())
        elif kind == "look":
            self._answer(*content)
        elif kind == "stand":
            self._stands[rank] = Stand(*content)
        elif kind == "end":
            self._declare(End(**content[0]))
        elif kind == "bye":
            self._left.add(rank)
            self._heard.pop(rank, None)

    def _hear_signals(self, now: float) -> None:
        """Signals, at once and even while the training thread is stuck in C,
        where Python's handlers do not run.
        """
        numbers = self._channel.woken
        self._channel.woken = b""
        for number in numbers:
            if number in _DEADLY and self._asked_at is None:
                self._asked_at = self._next_beat = self._next_vitals = now
            if number == signal.SIGINT:
                self._interrupts.append(now)

    # --- judging ----------------------------------------------------------------------------------

    def _look_around(self, now: float) -> None:
        """Whether anything is wrong; rank 0 looks at all ranks, the others at rank 0."""
        if len(self._interrupts) > 1 and now - self._interrupts[1] > _CTRL_C_SECONDS:
            os._exit(EXIT_CTRL_C)
        if self._is_late_in_the_start(now):
            message = (
                f"interrupted during the start of rank {self._rank}, before a step; nothing is lost"
            )
            self._declare(End("interrupted", EXIT_UNFINISHED, message, self._rank))
        self._look_for_gone(now)
        if not self._settings.enabled:
            return
        if self._rank == 0:
            self._look_for_hang(now)
        elif HUB not in self._left:
            self._look_at_hub(now)

    def _is_late_in_the_start(self, now: float) -> bool:
        if self._asked_at is None or now - self._asked_at < _START_SECONDS:
            return False
        doing = signs.doing()
        return doing.last_step is None and doing.phase not in ("checkpoint", "end")

    def _look_for_gone(self, now: float) -> None:
        for rank, since in list(self._channel.lost.items()):
            if rank in self._left or now - since < _LOST_SECONDS:
                continue
            if not self._heard[rank].beat.beat:
                self._warn_of_no_channel(now - since)
            else:
                who = f"rank {rank} on {self._hosts[rank]}"
                self._declare(
                    End(
                        "gone",
                        EXIT_CRASH,
                        f"{who} is gone (killed, out of memory, its node down?)",
                        rank,
                    )
                )
                return

    def _warn_of_no_channel(self, seconds: float) -> None:
        if seconds > _NO_CHANNEL_SECONDS and not self._warned:
            self._warned = True
            _print(
                f"warning: rank {self._rank} does not reach rank 0's watchdog (a firewall between"
                " the nodes?); it cannot tell a hang from waiting, and torch's own time-out ends"
                " one"
            )

    def _look_for_hang(self, now: float) -> None:
        if self._look is None:
            if is_hang(self._heard, now, _SILENT_SECONDS + 5 * self._tick):
                stamp = time.strftime("%Y%m%d-%H%M%S")
                self._look = (now + _ANSWER_SECONDS, stamp, self._all_signs())
                self._stands.clear()
                self._channel.send(["look", stamp])
                self._answer(stamp)
            return
        deadline, stamp, all_signs = self._look
        if self._all_signs() != all_signs:
            self._look = None  # it moves again
        elif now >= deadline or len(self._stands) == len(self._heard):
            self._conclude(judge(self._heard, self._stands, self._hosts, now), stamp)

    def _all_signs(self) -> int:
        return sum(heard.beat.signs for heard in self._heard.values())

    def _look_at_hub(self, now: float) -> None:
        """Rank 0 looks at all others; when it is the silent one, each of them notices by itself."""
        hub = self._heard[HUB]
        own = self._heard[self._rank]
        late = now - hub.at > _HUB_SECONDS + 5 * self._tick
        pair = {HUB: Heard(hub.beat, hub.at + _HUB_SECONDS), self._rank: own}
        if late and is_hang(pair, now, _SILENT_SECONDS + 5 * self._tick):
            stamp = time.strftime("%Y%m%d-%H%M%S")
            self._in_time(lambda: write_stacks(self._stacks(stamp, self._rank), self._about()))
            all_heard = {HUB: hub, self._rank: own}
            found = judge(all_heard, {self._rank: stand_of(self._trainer)}, self._hosts, now)
            self._conclude(found, stamp)

    def _conclude(self, hang: Hang, stamp: str) -> None:
        if hang.suspects:
            rank = hang.suspects[0].rank
        else:
            rank = self._rank
        self._declare(End("hang", EXIT_HANG, hang.reason, rank, hang.to_json(), stamp), finder=True)

    def _answer(self, stamp: str) -> None:
        """Write this rank's stacks, and say where it stands."""
        self._beat(time.monotonic())
        stand = stand_of(self._trainer)
        self._stands[self._rank] = stand
        self._channel.send(["stand", *stand])
        self._in_time(lambda: write_stacks(self._stacks(stamp, self._rank), self._about()))

    def _stacks(self, stamp: str, rank: int | str) -> Path:
        return self._run.logs / f"hang-{stamp}-rank-{rank}.txt"

    def _about(self) -> str:
        doing = signs.doing()
        return (
            f"rank {self._rank} on {self._hosts[self._rank]}, process {os.getpid()}, phase"
            f" {doing.phase}, step {doing.step}{f', {doing.detail}' if doing.detail else ''},"
            f" {collectives()} collectives begun\n"
            "\n"
        )

    # --- the end ----------------------------------------------------------------------------------

    def _declare(self, end: End, finder: bool = False) -> None:
        """All ranks are to end:
        pass it on, give the training thread the time that it is due, and leave.
        """
        if self._ended is not None:
            return
        self._ended = end
        self._channel.send(["end", asdict(end)])
        self._end_known.set()
        self._told.set()
        if end.kind != "hang":
            if end.rank == self._rank and end.kind == "failed":
                patience = _OWN_SECONDS
            else:
                patience = _PEER_SECONDS
            deadline = time.monotonic() + patience
            while not self._over.is_set() and time.monotonic() < deadline:
                self._channel.poll(0.2)
            if self._over.is_set():
                return
        self._in_time(lambda: self._last_words(end, finder))
        self._in_time(lock.give_back)
        os._exit(end.status)

    def _last_words(self, end: End, finder: bool) -> None:
        """Lines and files, in a thread that nobody waits for too long."""
        if end.kind == "hang":
            stacks = self._stacks(end.stamp, "*")
            _print(f"hang: {end.message}. Stacks of all ranks: {stacks}")
        elif end.rank != self._rank or end.kind != "failed":
            _print(f"rank {self._rank}: {end.message}; this rank ends because of it")
        if finder and end.hang is not None:
            write_hang(self._run, end.hang, self._launch, str(self._stacks(end.stamp, "*")))
        if finder or self._rank == 0:
            ending = _ENDINGS[end.kind]
            if self._rank != 0 or not lock.is_lost(self._run):
                heartbeat.note_ending(self._run, ending, end.message)
            self._hook.tell(ending, end.message, signs.doing().step)
            self._hook.wait()

    def _in_time(self, work: Callable[[], object]) -> None:
        """Do it in a thread, and go on when it takes too long:
        the file system may be what hangs.
        """
        thread = threading.Thread(target=_quietly, args=(work,), daemon=True)
        thread.start()
        thread.join(_LAST_WORDS_SECONDS)

    # --- notes ------------------------------------------------------------------------------------

    def _note_vitals(self, now: float) -> None:
        """progress.json, in a thread of its own;
        it is left out while the last one still hangs in the file system.
        """
        if self._scribe is not None and self._scribe.is_alive():
            return
        doing = signs.doing()
        newest = min(heard.age(now) for heard in self._heard.values())
        usual, urgent = limits(doing, self._settings, self._every)
        if self._asked_at is None:
            limit = usual
        else:
            limit = urgent
        all_signs = self._all_signs()

        def write() -> None:
            if self._run.facts.exists():  # before that it is not ours to write into
                write_vitals(self._run, doing, all_signs, newest, limit)

        self._scribe = threading.Thread(
            target=_quietly, args=(write,), name="electra-dist-vitals", daemon=True
        )
        self._scribe.start()

    def _set_alarm(self) -> None:
        """Should this thread not run again in time,
        C prints the stacks into the log without asking the interpreter.
        """
        seconds = limits(signs.doing(), self._settings, self._every)[0] + _ALARM_MARGIN
        with contextlib.suppress(Exception):  # a stream without a descriptor
            faulthandler.dump_traceback_later(seconds)


def print_once(error: BaseException) -> None:
    """The traceback of an error, now; a second call for the same one prints nothing."""
    if not getattr(error, "_electra_dist_printed", False):
        traceback.print_exception(error)
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.flush()
        error._electra_dist_printed = True  # type: ignore[attr-defined]


def _channel(world: World, meeting: Meeting | None) -> Channel:
    if meeting is None:
        return Channel()
    if meeting.hub is not None:
        return meeting.hub
    return Spoke(world.rank, meeting.hub_at)


def _is_about_others(error: BaseException) -> bool:
    """Whether the loss of another rank looks like this here."""
    return isinstance(error, RuntimeError) and bool(_COMMUNICATION.search(str(error)))


def _print(text: str) -> None:
    with contextlib.suppress(OSError, ValueError):
        print(text, file=sys.stderr, flush=True)


def _quietly(work: Callable[[], object]) -> None:
    try:
        work()
    except Exception as error:
        _print(f"warning: the watchdog could not write: {error}")


def _forget_wakeup() -> None:
    """A forked child must not tell its parent of signals that are its own."""
    with contextlib.suppress(ValueError):
        signal.set_wakeup_fd(-1)


os.register_at_fork(after_in_child=_forget_wakeup)
