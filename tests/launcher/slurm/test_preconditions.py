"""What cannot work is refused before it is submitted, with the numbers that can."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from electra_dist import config as configuration
from electra_dist.errors import ConfigError, DataError, UserError
from launcher.slurm.clusters import Cluster, Container
from launcher.slurm.preconditions import check_paths, check_shards, possible_node_counts
from launcher.slurm.submit import Request, prepare, queue

CONTAINER = Container(runtime="pyxis", image="registry.example.org#image:1")


def config(**train: int) -> configuration.Config:
    tree: dict[str, Any] = {
        "data": {"shards": "shards", "streams": 24},
        "model": {"preset": "tiny"},
    }
    return configuration.build(
        tree | {"train": {"steps": 20000, "global_rows": 24, "micro_rows": 1} | train}
    )


def test_of_a_range_only_node_counts_without_empty_rows_are_used() -> None:
    assert possible_node_counts(config(), Cluster(gpus_per_node=2), (1, 6)) == (1, 2, 3, 4, 6)
    assert possible_node_counts(config(), Cluster(gpus_per_node=8), (1, 6)) == (1, 3)
    # asked for, so it runs, with empty rows
    assert possible_node_counts(config(), Cluster(gpus_per_node=8), (2, 3)) == (2, 3)
    with pytest.raises(
        ConfigError, match=r"`nodes` 4 with 8 ranks a node: .*without idle rows: \[1, 2, 3, 4"
    ):
        possible_node_counts(config(), Cluster(gpus_per_node=8), (4, 5))


def test_paths_must_be_there_and_visible(tmp_path: Path) -> None:
    runs, python = [config()], "/bin/sh"
    (tmp_path / "shards").mkdir()
    run_dirs = [tmp_path / "runs" / "run"]

    def check(cluster: Cluster, executable: str = python) -> tuple[str, ...]:
        return check_paths(runs, run_dirs, cluster, tmp_path, executable)

    assert check(Cluster(gpus_per_node=1)) == tuple(
        str(tmp_path / name) for name in ("", "runs", "shards")
    )
    assert check(Cluster(gpus_per_node=1, shared_paths=("/", "/x")))
    for cluster, message in (
        (Cluster(gpus_per_node=1, shared_paths=("/elsewhere",)), "the compute nodes do not see it"),
        (
            Cluster(
                gpus_per_node=1, container=Container(runtime="apptainer", image="/no/image.sif")
            ),
            "no such file",
        ),
        (
            Cluster(gpus_per_node=1, container=Container(runtime="apptainer", image="image.sif")),
            "no such file",
        ),
        (
            Cluster(gpus_per_node=1, container=Container(runtime="pyxis", image="/no/image.sqsh")),
            "no such file",
        ),
        (Cluster(gpus_per_node=1, container=CONTAINER, node_local="/a:b"), "cannot hold ':'"),
    ):
        with pytest.raises(ConfigError, match=message):
            check(cluster)
    assert check(Cluster(gpus_per_node=1, container=CONTAINER), "/not/out/here")
    with pytest.raises(ConfigError, match="python of the cluster profile: /no/python"):
        check(Cluster(gpus_per_node=1), "/no/python")


def test_shards_must_be_there_and_whole(tmp_path: Path, tiny_shards: Path) -> None:
    with pytest.raises(DataError, match="no manifest"):
        check_shards(config(), tmp_path)
    shutil.copytree(tiny_shards, tmp_path / "shards")
    assert check_shards(config(), tmp_path).vocab_size == 512
    (tmp_path / "shards" / "tokenizer" / "tokenizer.json").unlink()
    with pytest.raises(DataError, match=r"tokenizer\.json: missing"):
        check_shards(config(), tmp_path)


def test_without_slurm_only_the_script_can_be_had(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_shards: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", "/nowhere")
    shutil.copytree(tiny_shards, tmp_path / "shards")
    path = tmp_path / "config.yaml"
    path.write_text(configuration.resolved_yaml(config()))
    with pytest.raises(UserError, match="no Slurm on this machine"):
        prepare(path, [], Request(cluster="testbed"))
    assert not queue.has_slurm()
    launch = prepare(
        path,
        [],
        Request(cluster="testbed", sweep=("optim.lr=1e-3,1e-4", "train.seed=1,2")),
        dry_run=True,
    )
    assert "#SBATCH --array=0-3\n" in launch.script
    assert [run.run.name for run in launch.runs][1] == "lr-1e-3_seed-2"
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["config.yaml", "shards"]
    for time_limit in ("1; true", "soon", "1:99", "10\n#SBATCH --x"):
        with pytest.raises(ConfigError, match="expected minutes"):
            prepare(path, [], Request(cluster="testbed", time_limit=time_limit), dry_run=True)
    for sweep in ("optim.lr", "run.name=a,b", "optim.lr=1,1", "optim.lrr=1,2"):
        with pytest.raises(ConfigError):
            prepare(path, [], Request(cluster="testbed", sweep=(sweep,)), dry_run=True)
