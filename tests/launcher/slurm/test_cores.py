"""Ranks of a job get cores of their own,
also where the job is submitted from inside an interactive one.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from electra_dist.runs.directory import RunDir
from launcher.logs import log_file, read_log

SUBMIT = """\
import json, sys
from pathlib import Path
from launcher.slurm.submit import Request, prepare, submit
config, cluster, standin = sys.argv[1:]
request = Request(cluster=cluster, nodes="1", program=(standin,), preflight=(), exclude="n1")
launch = prepare(config, ["run.name=inside", "train.steps=2"], request)
Path(launch.job.run_dirs[0]).mkdir(parents=True)
(launch.job.run_dirs[0] / "plan.json").write_text("{}")
submit(launch)
print(launch.inherited.ignored)
"""


@pytest.fixture
def bound(testbed: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A second testbed, of two nodes, which ties tasks to the cores of this machine."""
    if (os.cpu_count() or 1) < 2:
        pytest.skip("two ranks with a core of their own need two cores")
    module = sys.modules["slurm_testbed"]
    folder = tmp_path_factory.mktemp("bound")
    for parent in (folder, *folder.parents):  # munge wants a path that everybody can walk
        if parent != Path("/") and not parent.stat().st_mode & 0o001:
            parent.chmod(parent.stat().st_mode | 0o011)
    bed = module.start(folder / "bed", nodes=2, cpus=2, binding=True)
    yield bed
    bed.stop()


def test_ranks_have_their_own_cores_when_submitted_from_inside_an_interactive_job(
    bound: Any, desk: Any, clusters: Callable[..., str]
) -> None:
    cluster = clusters(tasks_per_node=2, gpus_per_node=2, cores_per_task=1)
    interactive = [
        "srun",
        "--nodes=1",
        "--ntasks=1",
        "--cpus-per-task=1",
        "--nodelist=n1",
        "--mem=100",
    ]
    command = [
        *interactive,
        sys.executable,
        "-c",
        SUBMIT,
        str(desk.config),
        cluster,
        desk.request().program[0],
    ]
    environment = os.environ | bound.environment
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert "the SLURM_... variables of job" in done.stdout
    run, deadline = RunDir(desk.folder / "runs" / "inside"), time.monotonic() + 60
    while not (run.jobs / "001.over").exists():
        assert time.monotonic() < deadline, bound.run("scontrol", "show", "job")
        time.sleep(0.2)
    cores = [
        json.loads("".join(read_log(log_file(run, rank))).splitlines()[0])["cores"]
        for rank in range(2)
    ]
    assert [len(own) for own in cores] == [1, 1]
    assert cores[0] != cores[1]
