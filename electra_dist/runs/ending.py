"""How a run ended, as an exit status, when the process that trained it is not there to say so."""

from __future__ import annotations

from electra_dist import config as configuration
from electra_dist.errors import EXIT_CRASH, EXIT_OK, EXIT_UNFINISHED
from electra_dist.runs.directory import RunDir
from electra_dist.runs.heartbeat import life


def status_of(run: RunDir) -> int:
    """`EXIT_OK` for a run that finished, `EXIT_UNFINISHED` for one that goes on later or trains
    now, else `EXIT_CRASH`.
    """
    seen = life(run)
    if seen is None:
        return _by_its_rows(run)
    if seen.running or seen.process.ending == "interrupted":
        return EXIT_UNFINISHED
    if seen.process.ending == "finished":
        return EXIT_OK
    return EXIT_CRASH


def _by_its_rows(run: RunDir) -> int:
    """Nobody noted who trained it: finished is what has its last step."""
    steps = configuration.load(run.config).train.steps
    if any(row["step"] >= steps for row in run.read_metrics()):
        return EXIT_OK
    return EXIT_UNFINISHED
