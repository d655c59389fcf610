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
import sys
import threading
import time
import traceback
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from electra_dist.config import WatchdogConfig
from electra_dist.console import close_live_line
from electra_dist.errors import (
    EXIT_CRASH,
    EXIT_CTRL_C,
    EXIT_HANG,
    EXIT_UNFINISHED,
    PeerFailedError,
    UserError,
)
from electra_dist.parallel import ending, signs
from electra_dist.parallel.channel import HUB, Channel, Spoke
from electra_dist.parallel.meeting import Meeting, host_name
from electra_dist.parallel.world import World
from electra_dist.runs import lock
from electra_dist.runs.directory import RunDir
from electra_dist.runs.hooks import Hook
from electra_dist.runs.progress import VITALS_SECONDS
from electra_dist.train.watch.bounded import LAST_WORDS_SECONDS, in_time, print_line
from electra_dist.train.watch.ending import End, LastWords
from electra_dist.train.watch.failures import exit_status, is_about_others
from electra_dist.train.watch.hang import Beat, Heard, Stand, limits, unheard
from electra_dist.train.watch.interrupts import Interrupts
from electra_dist.train.watch.search import Found, HangSearch, all_signs
from electra_dist.train.watch.stacks import about, collectives, stacks_file, stand_of, write_stacks
from electra_dist.train.watch.vitals import Scribe

#: Between two beats; in a large world it is longer,
#: so that rank 0 hears a few hundred a second at most.
_TICK_SECONDS = 1.0
_BEATS_A_SECOND = 256
#: From a lost connection to the conclusion that the process at its other end is gone.
_LOST_SECONDS = 3.0
#: Until a rank says that it has never reached rank 0's watchdog.
_NO_CHANNEL_SECONDS = 60.0
#: For the training thread to end by itself, once another rank has failed.
_PEER_SECONDS = 5.0
#: The same after a failure of its own.
_OWN_SECONDS = 60.0
#: For the thread to send what the training thread has to tell.
_TELL_SECONDS = 2.0
#: A thread that has not run for so long was stopped with its whole process.
_STOPPED_SECONDS = 10.0
#: The second line, in C: rearmed so often, fires so long after the limit.
_ALARM_EVERY = 10.0
_ALARM_MARGIN = 60.0


class Watchdog:
    """Context manager around training, on every rank.

    Enter and leave it in the training thread. `meeting` is None where there is only one rank.
    """

    def __init__(
        self,
        settings: WatchdogConfig,
        run: RunDir,
        hook: Hook,
        world: World,
        meeting: Meeting | None,
        logged_every: int = 1,
        environment: Mapping[str, str] = os.environ,
    ) -> None:
        """`hook` is told of an end that only the watchdog knows; `logged_every` is the number of
        steps between two rows of the metrics.
        """
        self._environment = environment
        self._settings = settings
        self._every = logged_every
        self._run = run
        self._rank = world.rank
        self._size = world.world_size
        if meeting:
            self._hosts = meeting.hosts
            launch = meeting.hub_at.secret[:12]
        else:
            self._hosts = (host_name(),)
            launch = f"{os.getpid()}-{time.time():.0f}"
        self._channel = _channel(world, meeting)
        self._tick = max(_TICK_SECONDS, self._size / _BEATS_A_SECOND)
        self._last_words = LastWords(self._run, hook, self._rank, launch)
        self._search = HangSearch(self._hosts, self._tick)
        self._scribe = Scribe(self._run)
        self._over = threading.Event()
        self._told = threading.Event()
        self._ended: End | None = None
        self._end_known = threading.Event()
        self._outbox: list[End] = []
        self._heard: dict[int, Heard] = {}
        self._left: set[int] = set()  # ranks that have said goodbye
        self._interrupts = Interrupts()
        self._warned = False
        self._beats = 0
        self._next_beat = 0.0
        self._next_alarm = 0.0
        self._next_vitals = 0.0
        self._thread = threading.Thread(
            target=self._watch, name="electra-dist-watchdog", daemon=True
        )

    # --- around training --------------------------------------------------------------------------

    def __enter__(self) -> Watchdog:
        self._trainer = threading.get_ident()
        self._interrupts.open(self._channel.wake_descriptor)
        with contextlib.suppress(Exception):  # a stream without a descriptor: a notebook, a test
            faulthandler.enable()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._interrupts.close()
        self._over.set()
        self._channel.wake()
        self._thread.join(LAST_WORDS_SECONDS)

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
        if is_about_others(error) and self._size > 1:
            self._end_known.wait(_LOST_SECONDS + 2 * self._tick)
        end = self._ended
        if end is not None and (end.rank == self._rank or isinstance(error, KeyboardInterrupt)):
            return
        if end is not None:
            raise PeerFailedError(
                f"{end.message}; this rank ends because of it", end.status
            ) from error
        if not isinstance(error, (UserError, KeyboardInterrupt)):
            ending.print_once(error)
        status = exit_status(error)
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
            self._heard = {rank: Heard(unheard(self._settings), now) for rank in range(self._size)}
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
            asked=self._interrupts.asked_at is not None,
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
            self._search.stands[rank] = Stand(*content)
        elif kind == "end":
            self._declare(End(**content[0]))
        elif kind == "bye":
            self._left.add(rank)
            self._heard.pop(rank, None)

    def _hear_signals(self, now: float) -> None:
        numbers = self._channel.woken
        self._channel.woken = b""
        if self._interrupts.hear(numbers, now):
            self._next_beat = now
            self._next_vitals = now

    # --- judging ----------------------------------------------------------------------------------

    def _look_around(self, now: float) -> None:
        """Whether anything is wrong; rank 0 looks at all ranks, the others at rank 0."""
        if self._interrupts.has_second_ctrl_c(now):
            close_live_line()
            os._exit(EXIT_CTRL_C)
        if self._interrupts.is_late_in_the_start(now):
            message = (
                f"interrupted during the start of rank {self._rank}, before a step; nothing is lost"
            )
            self._declare(End("interrupted", EXIT_UNFINISHED, message, self._rank))
        self._look_for_gone(now)
        if not self._settings.enabled:
            return
        found = None
        if self._rank == 0:
            found = self._search.among_all(self._heard, now, self._ask)
        elif HUB not in self._left:
            found = self._search.of_the_hub(self._heard, now, self._rank, self._own_stand)
        if found is not None:
            self._conclude(found)

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
            print_line(
                f"warning: rank {self._rank} does not reach rank 0's watchdog (a firewall between"
                " the nodes?); it cannot tell a hang from waiting, and torch's own time-out ends"
                " one"
            )

    def _ask(self, stamp: str) -> None:
        """Have all ranks say where they stand."""
        self._channel.send(["look", stamp])
        self._answer(stamp)

    def _answer(self, stamp: str) -> None:
        """Say where this rank stands, and write its stacks."""
        self._beat(time.monotonic())
        stand = stand_of(self._trainer)
        self._search.stands[self._rank] = stand
        self._channel.send(["stand", *stand])
        self._write_stacks(stamp)

    def _own_stand(self, stamp: str) -> Stand:
        """Write this rank's stacks; where it stands."""
        self._write_stacks(stamp)
        return stand_of(self._trainer)

    def _write_stacks(self, stamp: str) -> None:
        path = stacks_file(self._run, stamp, self._rank)
        text = about(self._rank, self._hosts[self._rank])
        in_time(lambda: write_stacks(path, text, self._environment))

    def _conclude(self, found: Found) -> None:
        hang = found.hang
        if hang.suspects:
            rank = hang.suspects[0].rank
        else:
            rank = self._rank
        end = End("hang", EXIT_HANG, hang.reason, rank, hang.to_json(), found.stamp)
        self._declare(end, finder=True)

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
        in_time(lambda: self._last_words.tell(end, finder))
        in_time(lock.give_back)
        close_live_line()
        os._exit(end.status)

    # --- notes ------------------------------------------------------------------------------------

    def _note_vitals(self, now: float) -> None:
        """progress.json; it is left out while the last one still hangs in the file system."""
        if self._scribe.is_writing:
            return
        doing = signs.doing()
        newest = min(heard.age(now) for heard in self._heard.values())
        usual, urgent = limits(doing, self._settings, self._every)
        if self._interrupts.asked_at is None:
            limit = usual
        else:
            limit = urgent
        self._scribe.note(doing, all_signs(self._heard), newest, limit)

    def _set_alarm(self) -> None:
        """Should this thread not run again in time,
        C prints the stacks into the log without asking the interpreter.
        """
        seconds = limits(signs.doing(), self._settings, self._every)[0] + _ALARM_MARGIN
        with contextlib.suppress(Exception):  # a stream without a descriptor
            faulthandler.dump_traceback_later(seconds)


def _channel(world: World, meeting: Meeting | None) -> Channel:
    if meeting is None:
        return Channel()
    if meeting.hub is not None:
        return meeting.hub
    return Spoke(world.rank, meeting.hub_at)
