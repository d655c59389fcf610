"""A real Slurm for the tests of this package,
and configurations that it can run with a stand-in for training.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from launcher.slurm.submit import Request, Submission, prepare, submit
from tests.support import PROGRAMS

REPO_ROOT = Path(__file__).resolve().parents[2]
STANDIN = (str(PROGRAMS / "standin.py"),)


def _testbed_module() -> Any:
    spec = importlib.util.spec_from_file_location(
        "slurm_testbed", REPO_ROOT / "slurm" / "testbed" / "testbed.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def testbed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A running one-machine Slurm."""
    module = _testbed_module()
    problem = None
    if missing := module.missing_programs():
        problem = f"no {', '.join(missing)} here: apt-get install slurm-wlm munge"
    elif os.geteuid() != 0:
        problem = "the Slurm testbed needs root"
    if problem:
        pytest.skip(problem)
    folder = tmp_path_factory.mktemp("slurm")
    for parent in (folder, *folder.parents):  # munge wants a path that everybody can walk
        if parent != Path("/") and not parent.stat().st_mode & 0o001:
            parent.chmod(parent.stat().st_mode | 0o011)
    bed = module.start(folder / "bed", nodes=4, cpus=8)
    before = os.environ.get("SLURM_CONF")
    os.environ.update(bed.environment)
    yield bed
    bed.stop()
    os.environ.pop("SLURM_CONF")
    if before is not None:
        os.environ["SLURM_CONF"] = before


@pytest.fixture(scope="session")
def clusters(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., str]:
    """Writes a cluster profile, the testbed's with changes, and returns its path."""
    base = yaml.safe_load((REPO_ROOT / "slurm" / "clusters" / "testbed.yaml").read_text())
    folder = tmp_path_factory.mktemp("clusters")

    def write(**changes: Any) -> str:
        path = folder / f"profile-{len(list(folder.iterdir()))}.yaml"
        content = (
            base
            | {
                "gpu_request": "none",
                "straggler_seconds": 2,
                "storage_wait_seconds": 0,
                "python": sys.executable,
            }
            | changes
        )
        path.write_text(
            yaml.safe_dump({key: value for key, value in content.items() if value is not None})
        )
        return str(path)

    return write


class Desk:
    """Where a user sits: a folder with a configuration and shards,
    and the commands to launch from it.
    """

    def __init__(self, folder: Path, cluster: str, shards: Path) -> None:
        self.folder = folder
        self.cluster = cluster
        self.config = folder / "config.yaml"
        shutil.copytree(shards, folder / "shards")
        content = {
            "run": {"dir": str(folder / "runs"), "name": "job"},
            "data": {"shards": str(folder / "shards"), "row_length": 32, "streams": 12},
            "model": {"preset": "tiny"},
            "train": {"steps": 20, "global_rows": 12, "micro_rows": 1},
            "optim": {"warmup_steps": 0},
            "checkpoint": {"every": 5},
        }
        self.config.write_text(yaml.safe_dump(content))

    def request(self, **changes: Any) -> Request:
        return Request(
            **(
                {"cluster": self.cluster, "nodes": "2", "program": STANDIN, "preflight": ()}
                | changes
            )
        )

    def launch(
        self, name: str, *overrides: str, plan: dict[str, Any] | None = None, **changes: Any
    ) -> Submission:
        """Prepare and submit the run `name`; `plan` tells the stand-in what to do wrong."""
        launch = prepare(self.config, [f"run.name={name}", *overrides], self.request(**changes))
        for run_dir in launch.job.run_dirs:
            run_dir.mkdir(parents=True, exist_ok=True)
            (run_dir / "plan.json").write_text(json.dumps(plan or {}))
        return submit(launch)


@pytest.fixture(scope="module")
def desk(
    tmp_path_factory: pytest.TempPathFactory, clusters: Callable[..., str], tiny_shards: Path
) -> Desk:
    return Desk(tmp_path_factory.mktemp("desk"), clusters(), tiny_shards)
