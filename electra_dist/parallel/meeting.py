"""Where the ranks of a launch find each other, within minutes and with words about who is missing.

In: a `World`. Out: a `Meeting`, which the process group and the watchdog are opened with. Rank 0
hosts torch's store (under torchrun its agent does); every rank says there that it has come. The
main thread only waits, so that a signal is heard meanwhile.
"""

from __future__ import annotations

import contextlib
import os
import resource
import secrets
import socket
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Protocol

from torch._C._distributed_c10d import PrefixStore, Store, TCPStore

from electra_dist.errors import UserError
from electra_dist.parallel.channel import Address, Hub
from electra_dist.parallel.processes import LAUNCH_VARIABLE

_FIRST_LINE_SECONDS = 5.0
_LINE_SECONDS = 30.0
_POLL_SECONDS = 0.2
#: From a signal to the end of the wait.
_STOP_SECONDS = 10.0
#: Ranks of a world that ask once in that time; larger worlds ask less often.
_OFTEN = 500
#: Of one try to reach the port.
_CONNECT_SECONDS = 3.0
_NAMED_RANKS = 8
_MANY_FILES = 1 << 16


class Place(Protocol):
    """What is used of a `World` here."""

    @property
    def rank(self) -> int: ...
    @property
    def world_size(self) -> int: ...
    @property
    def launcher(self) -> str: ...
    @property
    def master_address(self) -> str | None: ...
    @property
    def master_port(self) -> int | None: ...


class MeetingInterruptedError(Exception):
    """A signal has asked the run to end before its ranks had met."""


@dataclass(frozen=True)
class Meeting:
    """What the ranks have in common once they have met.

    store   torch's, under a prefix of this launch
    hub     rank 0's end of the watchdog's channel; None on the others
    hub_at  where the others find it
    hosts   of the ranks, in rank order
    """

    store: Store
    hub: Hub | None
    hub_at: Address
    hosts: tuple[str, ...]


def host_name(environment: Mapping[str, str] = os.environ) -> str:
    """This node as Slurm calls it, else as it calls itself."""
    return environment.get("SLURMD_NODENAME") or socket.gethostname()


def launch_name(environment: Mapping[str, str]) -> str:
    """The same on all ranks of a launch, and another one for another launch, as far as the
    environment tells.

    So ranks of two launches that got the same port do not take each other for their own.
    """
    names = (
        LAUNCH_VARIABLE,
        "TORCHELASTIC_RUN_ID",
        "TORCHELASTIC_RESTART_COUNT",
        "SLURM_JOB_ID",
        "SLURM_STEP_ID",
    )
    return "/".join(environment.get(name, "") for name in (*names, "SLURM_RESTART_COUNT"))


def raise_open_files() -> int:
    """Raise the soft limit of open files as far as the hard one allows, and give back what it is
    then.

    Above 500 ranks the sockets of the process groups alone pass the usual 1,024.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for wanted in (hard, _MANY_FILES):
        if soft == resource.RLIM_INFINITY or (wanted != resource.RLIM_INFINITY and soft >= wanted):
            continue
        with contextlib.suppress(ValueError, OSError):  # "unlimited" is more than some kernels give
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
            break
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def meet(
    world: Place,
    seconds: float,
    say: Callable[[str], None],
    stop: Callable[[], bool] = lambda: False,
    environment: Mapping[str, str] = os.environ,
) -> Meeting:
    """Wait until all ranks are there.

    `say` gets a line about who is waited for, after some seconds and then now and then; `stop` is
    asked meanwhile. `environment` names the launch, and tells whether torchrun has a store open.
    Raises `UserError` when not all have come within `seconds`, or the port is taken;
    `MeetingInterruptedError` when `stop` says so.
    """
    gathering = _Gathering(world, time.monotonic() + seconds, environment)
    thread = threading.Thread(target=gathering.run, name="electra-dist-meeting", daemon=True)
    thread.start()
    next_line = time.monotonic() + _FIRST_LINE_SECONDS
    give_up = float("inf")
    while thread.is_alive():
        thread.join(_POLL_SECONDS)
        now = time.monotonic()
        if stop():  # the others may have heard it too: those who meet end together
            give_up = min(give_up, now + _STOP_SECONDS)
        if now >= give_up:
            raise MeetingInterruptedError
        if now >= next_line and thread.is_alive():
            next_line = now + _LINE_SECONDS
            if world.rank == 0 or not gathering.found:
                say(_waiting_line(world, gathering))
        if now >= gathering.deadline + _CONNECT_SECONDS:  # the thread is stuck in torch
            raise _not_all(world, gathering, seconds)
    if gathering.error is not None:
        raise gathering.error
    if gathering.result is None:
        raise _not_all(world, gathering, seconds)
    return gathering.result


def _waiting_line(world: Place, gathering: _Gathering) -> str:
    place = f"{world.master_address}:{world.master_port}"
    if not gathering.found:
        line = f"rank {world.rank}: waiting for rank 0 at {place}"
    else:
        line = f"waiting for {world.world_size} ranks at {place} ({gathering.count} here)"
    return line + _about_slurm(world, gathering.environment)


def _about_slurm(world: Place, environment: Mapping[str, str]) -> str:
    """A shell inside of a Slurm step with more tasks takes a command for one of them."""
    if world.launcher != "slurm":
        return ""
    step = f"{environment.get('SLURM_JOB_ID')}.{environment.get('SLURM_STEP_ID')}"
    return (
        f"; this is task {world.rank} of the {world.world_size} of Slurm step {step}, and each of"
        " them must run the same command; to train with this process alone: env -u SLURM_STEP_ID"
        " electra-dist train ..."
    )


def _not_all(world: Place, gathering: _Gathering, seconds: float) -> UserError:
    place = f"{world.master_address}:{world.master_port}"
    if not gathering.found:
        return UserError(
            f"rank {world.rank} on {host_name()} found no rank 0 at {place} within {seconds:g} s"
            f" (watchdog.meet_seconds){f': {gathering.obstacle}' if gathering.obstacle else ''}."
            " Has rank 0 started, and does this node reach that address?"
            + _about_slurm(world, gathering.environment)
        )
    if gathering.deserted:
        return UserError(
            f"rank {world.rank} on {host_name()} waited with {gathering.count} of"
            f" {world.world_size} ranks at {place} when rank 0 left; its log says why"
        )
    error = UserError(
        f"only {gathering.count} of {world.world_size} ranks came to {place} within {seconds:g} s"
        f" (watchdog.meet_seconds){_names(gathering.missing)}. Their logs say why, if they have"
        " started" + _about_slurm(world, gathering.environment)
    )
    error.everywhere = True  # all that are here see the same, rank 0 among them
    return error


def _names(missing: list[int]) -> str:
    if not missing:
        return ""
    if len(missing) > _NAMED_RANKS:
        more = f" and {len(missing) - _NAMED_RANKS} more"
    else:
        more = ""
    return f"; missing: rank {', '.join(map(str, missing[:_NAMED_RANKS]))}{more}"


@dataclass
class _Gathering:
    """The work of `meet`, in its own thread: torch's store waits where no signal is heard."""

    world: Place
    deadline: float
    environment: Mapping[str, str]
    found: bool = False
    deserted: bool = False
    count: int = 0
    obstacle: str = ""
    missing: list[int] = field(default_factory=list)
    result: Meeting | None = None
    error: BaseException | None = None

    def run(self) -> None:
        try:
            self.result = self._meet()
        except RuntimeError as error:  # of torch.distributed: the store is gone, and rank 0 with it
            self.obstacle = str(error).partition("\n")[0]
            self.deserted = self.found
        except BaseException as error:  # the main thread raises it
            self.error = error

    def _left(self) -> float:
        return self.deadline - time.monotonic()

    def _meet(self) -> Meeting | None:
        store = self._store()
        if store is None:
            return None
        self.found = True
        world = self.world
        hub = None
        if world.rank == 0:
            hub = Hub(str(world.master_address), secrets.token_hex(16), world.world_size)
            store.set("hub", f"{hub.address.port} {hub.address.secret}")
        store.set(f"host/{world.rank}", host_name())
        self.count = store.add("here", 1)
        while self.count < world.world_size:
            if self._left() <= 0:
                self.missing = [
                    r for r in range(world.world_size) if not store.check([f"host/{r}"])
                ]
                return None
            time.sleep(_POLL_SECONDS * max(1.0, world.world_size / _OFTEN))
            self.count = store.add("here", 0)
        port, secret = store.get("hub").decode().split()
        hosts = store.multi_get([f"host/{rank}" for rank in range(world.world_size)])
        address = Address(str(world.master_address), int(port), secret)
        return Meeting(store, hub, address, tuple(host.decode() for host in hosts))

    def _store(self) -> Store | None:
        """The store, opened or found; None when there is none before the deadline."""
        world = self.world
        address = str(world.master_address)
        port = int(world.master_port or 0)
        has_one = self.environment.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
        hosts_it = world.rank == 0 and not has_one
        if not hosts_it and not self._reachable(address, port):
            return None
        try:
            store = TCPStore(
                address,
                port,
                None,
                hosts_it,
                timedelta(seconds=max(self._left(), 1.0)),
                wait_for_workers=False,
            )
        except RuntimeError as error:  # torch.distributed's errors are of this class
            cause = str(error).partition("\n")[0]
            if hosts_it and "EADDRINUSE" in cause:
                raise UserError(
                    f"port {port} of {host_name()} is taken by another process, so the ranks cannot"
                    " meet there; set MASTER_PORT to a free port, or start again where the"
                    " launcher chooses it"
                ) from error
            raise UserError(
                f"rank {world.rank} on {host_name()}: no meeting at {address}:{port}: {cause}; does"
                " another program listen there?"
            ) from error
        return PrefixStore(f"electra-dist/{launch_name(self.environment)}", store)

    def _reachable(self, address: str, port: int) -> bool:
        """Wait until somebody listens there; torch itself would fill the log while it waits."""
        while self._left() > 0:
            try:
                socket.create_connection((address, port), _CONNECT_SECONDS).close()
                return True
            except OSError as error:
                self.obstacle = error.strerror or str(error)
                time.sleep(_POLL_SECONDS)
        return False
