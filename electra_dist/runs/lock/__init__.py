"""One writer a run: the lock that is taken before anything in a run directory is touched (DESIGN
D11).

    RUN/lock/00000007.json        the lease that counts: the one with the highest number
    RUN/lock/00000006.released    one that its holder gave back

**Taking it.** A lease is free when there is none, when the newest was given back, or when its
holder is dead. It is taken by making the file with the next number, by link(2), which succeeds for
exactly one of many, on NFS and Lustre too (where there are no links, by O_EXCL). Numbers only rise,
so whoever decides on old knowledge makes a file that exists, or one that is not the highest: both
are noticed.

**Is the holder dead?** Of a process of this machine the kernel knows (`processes`). Of another one
Slurm may know that the job which it cannot outlive has ended. Otherwise the holder is watched: it
touches its lease every `pulse_seconds`, and one that nothing changes for `silent_seconds` on *our*
clock counts as dead. Times in files are compared with themselves only, never with a clock: skewed
ones, future ones included, fool nobody.

**Fencing.** A holder that was stopped for longer finds a lease with a higher number when it wakes.
`check` says so before every write that matters; the holder ends with a sentence and writes nothing
more.

Why not fcntl(2) or flock(2): on Lustre mounted with `localflock` they hold on one node only; on
NFSv3 the lock of a node that crashed stays until it is back; any close() of the file in the process
loses an fcntl lock, and a fork shares a flock. They would answer "free" and "taken" wrongly on just
the machines that this is for.

`holder` says who holds a lease, `leases` makes and reads the files, `taking` decides and waits,
`held` is what this process holds, `slurm` asks about the jobs of others.
"""

from electra_dist.runs.lock.held import Lease, check, give_back, is_lost
from electra_dist.runs.lock.holder import HANDED_DOWN, TRAINING, Holder, Timing
from electra_dist.runs.lock.leases import Holding, holding
from electra_dist.runs.lock.taking import hold

__all__ = [
    "HANDED_DOWN",
    "TRAINING",
    "Holder",
    "Holding",
    "Lease",
    "Timing",
    "check",
    "give_back",
    "hold",
    "holding",
    "is_lost",
]
