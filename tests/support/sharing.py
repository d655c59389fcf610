"""Which tests a process of `pytest -n` runs: whole files, and all that use the Slurm testbed in one
process, as a machine has one testbed.
"""

from __future__ import annotations

from xdist.scheduler import LoadScopeScheduling


class ByFile(LoadScopeScheduling):  # type: ignore[misc]
    """Hands out files."""

    def _split_scope(self, nodeid: str) -> str:
        """What is never divided: a file, whose fixtures are made once, or the launcher's tests."""
        if nodeid.startswith("tests/launcher/"):
            return "tests/launcher"
        return nodeid.partition("::")[0]
