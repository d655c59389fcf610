"""Whether a run hangs, and through whom: pure functions of what the ranks have said.

In: a `Beat` of every rank. Out: a `Hang`, with the ranks that are to blame, or None while anything
moves. A rank that waits for another is no hang, however long, as long as the other gives signs: the
time that counts is since the newest sign of any rank, and the limit is that of the phase in which
the hindmost ranks are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import Any, NamedTuple

from electra_dist.config import WatchdogConfig
from electra_dist.parallel.signs import Doing, Phase

#: A step may take so many times what it usually takes, and at least so many seconds.
_STEPS = 30
_LEAST_SECONDS = 300.0
#: Once a signal has asked the run to end, somebody waits for it.
_STEPS_ON_REQUEST = 10
_LEAST_ON_REQUEST = 30.0
_NAMED = 4
_LEAST_TIMEOUT = 1800.0


class Beat(NamedTuple):
    """What a rank says of itself; it travels as a list.

    age          seconds since its last sign, when it said so
    limit        seconds without a sign that it may take where it is
    urgent       the same once a signal has asked the run to end
    asked        whether one has asked this rank
    entered      phases that it has entered so far; who has the fewest is behind
    collectives  that it has begun so far; tells who is behind inside of a phase
    beat         grows, so that two beats are never equal
    """

    phase: Phase
    step: int
    entered: int
    signs: int
    age: float
    limit: float
    urgent: float
    asked: bool
    collectives: int
    detail: str
    beat: int


class Heard(NamedTuple):
    """A beat, and when it came, by the listener's monotonic clock."""

    beat: Beat
    at: float

    def age(self, now: float) -> float:
        """Seconds since the rank's last sign."""
        return self.beat.age + now - self.at


class Stand(NamedTuple):
    """Where a rank's training thread stands, and whether it waits for the other ranks there."""

    where: str
    waits: bool


@dataclass(frozen=True)
class Suspect:
    """A rank that the others wait for."""

    rank: int
    host: str
    phase: Phase
    step: int
    seconds: float
    silent: bool
    where: str
    detail: str


@dataclass(frozen=True)
class Hang:
    """What the watchdog found; `suspects` is empty when no rank is behind the others."""

    reason: str
    phase: Phase
    step: int
    seconds: float
    world_size: int
    suspects: tuple[Suspect, ...]

    def to_json(self) -> dict[str, Any]:
        """The fields of RUN/hang.json that the ranks know;
        `ranks` and `hosts` are those of the suspects.
        """
        return asdict(self) | {
            "ranks": [suspect.rank for suspect in self.suspects],
            "hosts": list(dict.fromkeys(suspect.host for suspect in self.suspects)),
        }


def unheard(config: WatchdogConfig) -> Beat:
    """What counts as the beat of a rank that has not sent one yet."""
    return Beat(
        phase="start",
        step=0,
        entered=0,
        signs=0,
        age=0.0,
        limit=config.start_seconds,
        urgent=config.start_seconds,
        asked=False,
        collectives=0,
        detail="",
        beat=0,
    )


# --- how long -------------------------------------------------------------------------------------


def limits(doing: Doing, config: WatchdogConfig, tracking_every: int) -> tuple[float, float]:
    """Seconds without a sign that a rank may take in what it is doing; and those once the run was
    asked to end.

    Until a step has been measured, a step may be the first one of this start, which compiles. The
    host of a GPU runs ahead of it and waits at the logged steps, at most `tracking_every` of them
    at once.
    """
    usual = doing.step_seconds
    ahead = max(1.0, tracking_every / 10)
    step_seconds = config.step_seconds or max(_STEPS * ahead * (usual or 0.0), _LEAST_SECONDS)
    usually = {
        "meeting": config.meet_seconds,
        "start": config.start_seconds,
        "data": config.data_seconds,
        "step": step_seconds,
        "validation": config.validation_seconds,
        "checkpoint": config.checkpoint_seconds,
        "end": config.checkpoint_seconds,
    }[doing.phase]
    if doing.phase not in ("data", "step", "validation"):
        return usually, usually
    if usual is None:
        return max(usually, config.start_seconds), max(usually, config.start_seconds)
    return usually, min(usually, max(_STEPS_ON_REQUEST * ahead * usual, _LEAST_ON_REQUEST))


def collective_timeout(config: WatchdogConfig) -> timedelta:
    """When torch gives a collective up by itself:
    the last resort, twice the longest time that the watchdog allows.
    """
    longest = max(
        config.start_seconds,
        config.step_seconds or 0.0,
        config.data_seconds,
        config.checkpoint_seconds,
        config.validation_seconds,
    )
    return timedelta(seconds=max(2 * longest, _LEAST_TIMEOUT))


def is_hang(heard: Mapping[int, Heard], now: float, silent_seconds: float = 15.0) -> bool:
    """Whether no rank has given a sign for longer than the hindmost ranks may take.

    What was heard last of a rank that has been silent for `silent_seconds` may be out of date by a
    phase: it was stopped between two beats, perhaps the moment after a start that may take half an
    hour. Ranks that are still heard and are ahead of it wait for it where they are, so it gets no
    more time than they do.
    """
    if not heard:
        return False
    fewest = min(one.beat.entered for one in heard.values())
    hindmost = [one for one in heard.values() if one.beat.entered == fewest]
    asked = any(one.beat.asked for one in heard.values())  # who is asked to end asks all
    allowed = _longest(hindmost, asked)
    # 0: it never reached us, and may be well
    if all(one.beat.beat and now - one.at > silent_seconds for one in hindmost):
        ahead = [
            one
            for one in heard.values()
            if one.beat.entered > fewest and now - one.at <= silent_seconds
        ]
        if ahead:
            allowed = min(allowed, _longest(ahead, asked))
    return all(one.age(now) > allowed for one in heard.values())


def _longest(ranks: Sequence[Heard], asked: bool) -> float:
    return max(one.beat.urgent if asked else one.beat.limit for one in ranks)


# --- through whom ---------------------------------------------------------------------------------


def find_suspects(
    heard: Mapping[int, Heard], stands: Mapping[int, Stand], hosts: Sequence[str], now: float
) -> Hang:
    """The hang, once every rank has been asked where it stands;
    who has not answered is missing in `stands`.
    """
    to_blame = _to_blame(heard, stands)
    suspects = tuple(
        _suspect(rank, heard[rank], stands.get(rank), hosts[rank], now) for rank in to_blame
    )
    newest = min(heard.values(), key=lambda one: one.age(now))
    if suspects:
        first = suspects[0]
    else:
        first = None
    return Hang(
        reason=_reason(suspects, newest, len(hosts), now),
        phase=first.phase if first else newest.beat.phase,
        step=first.step if first else newest.beat.step,
        seconds=round(first.seconds if first else newest.age(now), 1),
        world_size=len(hosts),
        suspects=suspects,
    )


def _to_blame(heard: Mapping[int, Heard], stands: Mapping[int, Stand]) -> list[int]:
    """Who is silent; else who is behind in phases, then in collectives;
    else who does not wait for others.
    """
    ranks = sorted(heard)
    silent = [rank for rank in ranks if rank not in stands]
    if silent:
        return silent
    if len(ranks) == 1:
        return ranks
    for count in (lambda beat: beat.entered, lambda beat: beat.collectives):
        fewest = min(count(heard[rank].beat) for rank in ranks)
        behind = [rank for rank in ranks if count(heard[rank].beat) == fewest]
        if len(behind) < len(ranks):
            return behind
    busy = [rank for rank in ranks if not stands[rank].waits]
    if len(busy) < len(ranks):
        return busy
    return []


def _suspect(rank: int, heard: Heard, stand: Stand | None, host: str, now: float) -> Suspect:
    beat = heard.beat
    return Suspect(
        rank=rank,
        host=host,
        phase=beat.phase,
        step=beat.step,
        seconds=round(heard.age(now), 1),
        silent=stand is None,
        where=stand.where if stand else "",
        detail=beat.detail,
    )


def _reason(suspects: Sequence[Suspect], newest: Heard, world_size: int, now: float) -> str:
    if not suspects:
        where = f"phase {newest.beat.phase}, step {newest.beat.step}"
        return (
            f"all {world_size} ranks wait for each other for {newest.age(now):.0f} s ({where}), and"
            " none is behind the others: the network between them, or a device"
        )
    named = "; ".join(_words(suspect) for suspect in suspects[:_NAMED])
    if len(suspects) > _NAMED:
        more = f"; and {len(suspects) - _NAMED} more ranks"
    else:
        more = ""
    others = world_size - len(suspects)
    if len(suspects) == 1:
        them = "it"
    else:
        them = "them"
    if others > 1:
        waiting = f"; the other {others} ranks wait for {them}"
    else:
        waiting = ""
    if others == 1:
        waiting = f"; the other rank waits for {them}"
    return named + more + waiting


def _words(suspect: Suspect) -> str:
    who = f"rank {suspect.rank} on {suspect.host}"
    place = f"phase {suspect.phase}, step {suspect.step}"
    if suspect.silent:
        return f"{who} has shown no sign for {suspect.seconds:.0f} s (last seen in {place})"
    about = ", ".join(part for part in (suspect.detail, suspect.where) if part)
    return (
        f"{who} stands still for {suspect.seconds:.0f} s in {place}{f' ({about})' if about else ''}"
    )
