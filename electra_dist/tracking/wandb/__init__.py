"""W&B mirrors metrics.jsonl, from a process of its own that training neither needs nor waits for.

In: the run directory. Out: a W&B run with every row of metrics.jsonl, none of them twice.

    environment.py   what of the environment is W&B's, and what is not followed
    keeper.py        in the process of training: starts the mirror, starts it again, ends it in
                     bounded time
    process.py       the mirror itself: `python -m electra_dist.tracking.wandb RUN`
    session.py       one W&B run, opened, fed and finished
    told.py          what W&B is told of the run: configuration, machines, versions; no paths
    follower.py      metrics.jsonl as it grows and is cut back
    alerts.py        findings of health, told once
    extras.py        what is sent beside rows: samples.py (tables of passages) and artifacts.py
    ledger.py        which rows W&B has, and where
    wandb_files.py   what stands in a file of W&B
    children.py      the processes of W&B, and their end

The mirror is the head of a session of its own and lets the signals meant for the ranks pass. Its
end of a pipe closes when training ends, however it ends. What it has not mirrored then is mirrored
by the next start, or by `electra-dist wandb sync`, which is the same process run once.

Each session hands over the rows that W&B has not yet: the ledger beside metrics.jsonl knows them,
corrected by the files that offline sessions left, and online by the number of rows that the server
has. A run that went back and trained steps otherwise goes on as another W&B run, with all its rows:
W&B cannot take back what it has.
"""

from __future__ import annotations

from electra_dist.tracking.wandb.environment import Mode, choose_mode
from electra_dist.tracking.wandb.keeper import Keeper, MirrorError, Report, mirror_once
from electra_dist.tracking.wandb.samples import TABLE
from electra_dist.tracking.wandb.session import SUPERSEDED, in_words, private_settings

__all__ = [
    "SUPERSEDED",
    "TABLE",
    "Keeper",
    "MirrorError",
    "Mode",
    "Report",
    "choose_mode",
    "in_words",
    "mirror_once",
    "private_settings",
]
