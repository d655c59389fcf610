"""The one-machine Slurm starts in under 30 seconds beside another one,
and stops without a trace.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

import pytest


def processes_of(folder: Path) -> list[str]:
    """Command lines of processes that name the folder in their arguments or their environment."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                text = (entry / "cmdline").read_bytes() + (entry / "environ").read_bytes()
                state = (entry / "stat").read_text().rsplit(")", 1)[1].split()[0]
            except OSError:
                continue
            if str(folder).encode() in text and state != "Z":
                found.append((entry / "cmdline").read_text().replace("\0", " "))
    return found


def test_a_testbed_comes_and_goes(testbed: Any, tmp_path_factory: pytest.TempPathFactory) -> None:
    module = sys.modules["slurm_testbed"]
    folder = tmp_path_factory.mktemp("another") / "bed"
    # munge wants a path that everybody can walk
    for parent in (
        folder.parent,
        *folder.parent.parents,
    ):
        if parent != Path("/") and not parent.stat().st_mode & 0o001:
            parent.chmod(parent.stat().st_mode | 0o011)
    before = time.monotonic()
    bed = module.start(folder, nodes=2)
    try:
        assert time.monotonic() - before < 30
        job_id = bed.run("sbatch", "--parsable", "-N2", "-o", "/dev/null", "--wrap=srun sleep 600")
        deadline = time.monotonic() + 30
        while "sleep 600" not in " ".join(processes_of(folder)):
            assert time.monotonic() < deadline, bed.run("scontrol", "show", "job", job_id)
            time.sleep(0.2)
    finally:
        bed.stop()
    assert not folder.exists()
    assert not processes_of(folder)
    # the other one did not notice
    assert testbed.run("sinfo", "-h", "-p", "main", "-o", "%D") == "4"
