"""A real Slurm on one machine: munged, slurmctld and a few virtual nodes with pretend GPUs, all
inside one folder.

    python slurm/testbed/testbed.py start DIR     prints the line to put into the shell: export
                                                  SLURM_CONF=...
    python slurm/testbed/testbed.py stop DIR

Needs Debian's `slurm-wlm` and `munge` (their commands only: nothing under /etc is read or changed)
and root. Ports, key, sockets, logs and spool lie in DIR, so that two testbeds do not meet.
Time-outs are short: a dead node is noticed after some ten seconds, a requeued job starts again
after some five instead of two minutes.

With --binding Slurm ties every task to cores of its own (task/affinity), as clusters do; a node
then cannot have more cores than this machine, whose cores all nodes share.

Limits: no accounting data base (so no `sacct`), no cgroups (a task can leave its memory, and
without --binding its cores), and the GPUs are empty files that only count.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol")
_START_SECONDS = 30.0

_SLURM_CONF = """\
ClusterName=testbed
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CredType=cred/munge
# cred_expire is also how long a requeued job waits before it starts again (default: 120 s)
AuthInfo=socket={dir}/munge.socket,cred_expire=5
StateSaveLocation={dir}/state
SlurmdSpoolDir={dir}/spool-%n
SlurmctldPidFile={dir}/slurmctld.pid
SlurmdPidFile={dir}/slurmd-%n.pid
SlurmctldLogFile={dir}/slurmctld.log
SlurmdLogFile={dir}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin={task_plugin}
JobAcctGatherType=jobacct_gather/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
DefMemPerCPU=200
SlurmdParameters=config_overrides
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=5,bf_interval=5,batch_sched_delay=1
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
GresTypes=gpu
ReturnToService=2
JobRequeue=1
KillOnBadExit=0
# seconds
SlurmdTimeout=10
SlurmctldTimeout=10
KillWait=5
MinJobAge=600
InactiveLimit=0
OverTimeLimit=0
NodeName=n[1-{nodes}] NodeHostname={host} NodeAddr=127.0.0.1 Port=[{first_port}-{last_port}] \
CPUs={cpus} RealMemory=8000 Gres=gpu:{gpus} State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=60 DefaultTime=10 State=UP PriorityTier=1
PartitionName=urgent Nodes=ALL MaxTime=60 DefaultTime=10 State=UP PriorityTier=10 PreemptMode=OFF
"""


@dataclass(frozen=True)
class Testbed:
    """A running testbed; everything it needs to know is in its folder."""

    __test__ = False  # not a test class, whatever pytest thinks of the name

    path: Path

    @property
    def conf(self) -> Path:
        return self.path / "slurm.conf"

    @property
    def environment(self) -> dict[str, str]:
        """What a Slurm command needs to talk to this testbed."""
        return {"SLURM_CONF": str(self.conf)}

    @property
    def nodes(self) -> list[str]:
        return list(json.loads((self.path / "testbed.json").read_text())["nodes"])

    def run(self, *command: str) -> str:
        """Standard output of a Slurm command; raises `CalledProcessError` when it fails."""
        done = subprocess.run(
            command,
            env={**os.environ, **self.environment},
            check=True,
            stdout=subprocess.PIPE,
            text=True,
            timeout=30,
        )
        return done.stdout.strip()

    def kill_node(self, node: str) -> None:
        """What a power cut does: the node's slurmd, its step managers and its tasks die at once."""
        tasks = _processes({**self.environment, "SLURMD_NODENAME": node})
        for victim in [*_holders(self.path / f"slurmd-{node}.log"), *tasks]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(victim, signal.SIGKILL)

    def start_node(self, node: str) -> None:
        _spawn(self, "slurmd", "-N", node, "-f", str(self.conf))

    def stop(self) -> None:
        """End every job and every daemon, then remove the folder."""
        with contextlib.suppress(subprocess.SubprocessError, OSError):
            self.run("scancel", "--user=root")
            self.run("scancel", "--user=root", "--signal=KILL", "--full")
        for pattern in ("slurmd-*.pid", "slurmctld.pid", "munged.pid"):
            _kill_all([int(file.read_text()) for file in self.path.glob(pattern)])
            _kill_family(self.environment)  # tasks and step managers, which outlive their slurmd
        shutil.rmtree(self.path, ignore_errors=True)


def missing_programs() -> list[str]:
    """Programs that the testbed needs and that this machine lacks."""
    return [name for name in PROGRAMS if _which(name) is None]


def start(
    path: Path, nodes: int = 3, cpus: int = 4, gpus: int = 2, binding: bool = False
) -> Testbed:
    """Start a testbed in the new folder `path` and return it once every node is idle; raises
    `RuntimeError`.

    With `binding` every task is bound to its cores; `cpus` may then not be more than this machine
    has.
    """
    if missing := missing_programs():
        raise RuntimeError(f"no {', '.join(missing)} here: apt-get install slurm-wlm munge")
    if os.geteuid() != 0:
        raise RuntimeError("the testbed needs root")
    if binding and cpus > (os.cpu_count() or 1):
        raise RuntimeError(
            f"binding needs real cores: this machine has {os.cpu_count()}, asked for {cpus}"
        )
    path.mkdir(parents=True)
    path = path.resolve()
    # munge wants its socket reachable by all and its folder writable by nobody else
    path.chmod(0o755)
    bed = Testbed(path)
    try:
        _write_configuration(bed, nodes, cpus, gpus, binding)
        _start_daemons(bed)
        _wait_until_idle(bed)
    except BaseException:
        bed.stop()
        raise
    return bed


def _write_configuration(bed: Testbed, nodes: int, cpus: int, gpus: int, binding: bool) -> None:
    names = [f"n{index + 1}" for index in range(nodes)]
    ports = _free_ports(nodes + 1)
    (bed.path / "state").mkdir()
    for index in range(gpus):
        (bed.path / f"gpu{index}").touch()
    values = {
        "host": socket.gethostname().split(".")[0],
        "dir": bed.path,
        "nodes": nodes,
        "cpus": cpus,
        "gpus": gpus,
        "task_plugin": "task/affinity" if binding else "task/none",
        "controller_port": ports[-1],
        "first_port": ports[0],
        "last_port": ports[nodes - 1],
    }
    bed.conf.write_text(_SLURM_CONF.format(**values))
    (bed.path / "gres.conf").write_text(
        "".join(f"NodeName={name} Name=gpu File={bed.path}/gpu[0-{gpus - 1}]\n" for name in names)
    )
    (bed.path / "testbed.json").write_text(json.dumps({"nodes": names}))
    key = bed.path / "munge.key"
    key.touch(mode=0o600)
    key.write_bytes(os.urandom(1024))


def _start_daemons(bed: Testbed) -> None:
    at = bed.path
    _spawn(
        bed,
        "munged",
        f"--key-file={at}/munge.key",
        f"--socket={at}/munge.socket",
        f"--pid-file={at}/munged.pid",
        f"--log-file={at}/munged.log",
        f"--seed-file={at}/munged.seed",
    )
    _spawn(bed, "slurmctld", "-f", str(bed.conf))
    for node in bed.nodes:
        bed.start_node(node)


def _spawn(bed: Testbed, program: str, *arguments: str) -> None:
    """Run a daemon, which puts itself into the background."""
    where = _which(program)
    assert where is not None
    with (bed.path / f"{program}.out").open("ab") as out:
        done = subprocess.run(
            [where, *arguments],
            env={**os.environ, **bed.environment},
            cwd=bed.path,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            check=False,
            timeout=20,
        )
    if done.returncode:
        raise RuntimeError(
            f"{program} did not start: {(bed.path / f'{program}.out').read_text()[-2000:]}"
        )


def _wait_until_idle(bed: Testbed) -> None:
    deadline = time.monotonic() + _START_SECONDS
    states = ""
    while time.monotonic() < deadline:
        with contextlib.suppress(subprocess.SubprocessError):
            states = bed.run("sinfo", "-h", "-N", "-p", "main", "-o", "%N %t")
            lines = states.splitlines()
            if len(lines) == len(bed.nodes) and all(line.endswith(" idle") for line in lines):
                return
        time.sleep(0.2)
    log = (bed.path / "slurmctld.log").read_text()[-2000:]
    raise RuntimeError(f"the nodes are not idle after {_START_SECONDS:.0f} s: {states!r}\n{log}")


def _free_ports(count: int) -> list[int]:
    """`count` ports in a row that nothing listens on,
    below the range that the kernel hands out itself.
    """
    for first in range(21_000 + os.getpid() % 8000, 32_000, count):
        with contextlib.ExitStack() as opened:
            try:
                for port in range(first, first + count):
                    probe = opened.enter_context(socket.socket())
                    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return list(range(first, first + count))
    raise RuntimeError("no free ports")


def _which(program: str) -> str | None:
    return shutil.which(program, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")


def _processes(variables: dict[str, str]) -> list[int]:
    """Processes that were started with all these variables, without this one and its ancestors."""
    wanted = {f"{name}={value}".encode() for name, value in variables.items()}
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) not in _lineage():
            with contextlib.suppress(OSError):
                if wanted <= set((entry / "environ").read_bytes().split(b"\0")):
                    found.append(int(entry.name))
    return found


def _lineage() -> set[int]:
    lineage = set()
    pid = os.getpid()
    while pid > 1:
        lineage.add(pid)
        pid = _parent(pid)
    return lineage


def _parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])


def _holders(file: Path) -> list[int]:
    """Processes that have this file open: of a node's log, its slurmd and its step managers."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                if any(os.readlink(link) == str(file) for link in (entry / "fd").iterdir()):
                    found.append(int(entry.name))
    return found


def _kill_family(variables: dict[str, str]) -> None:
    """Kill every process that was started with these variables,
    and those that they start meanwhile.
    """
    deadline = time.monotonic() + 10.0
    while (family := _processes(variables)) and time.monotonic() < deadline:
        for pid in family:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.05)


def _kill_all(pids: Sequence[int]) -> None:
    """TERM, a second of patience, KILL; returns when they are gone."""
    for number, patience in ((signal.SIGTERM, 2.0), (signal.SIGKILL, 5.0)):
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        deadline = time.monotonic() + patience
        while any(_alive(pid) for pid in pids):
            if time.monotonic() > deadline:
                break
            time.sleep(0.05)
        else:
            return


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def main() -> int:
    """The command line: start, stop."""
    parser = argparse.ArgumentParser(description="A real Slurm on one machine.")
    parser.add_argument("action", choices=("start", "stop"))
    parser.add_argument("dir", type=Path)
    parser.add_argument("--nodes", type=int, default=3)
    parser.add_argument("--cpus", type=int, default=4, help="a node")
    parser.add_argument("--gpus", type=int, default=2, help="a node")
    parser.add_argument(
        "--binding", action="store_true", help="bind tasks to cores; at most this machine's a node"
    )
    given = parser.parse_args()
    if given.action == "stop":
        Testbed(given.dir.resolve()).stop()
        return 0
    try:
        bed = start(given.dir, given.nodes, given.cpus, given.gpus, given.binding)
    except RuntimeError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"export SLURM_CONF={bed.conf}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
