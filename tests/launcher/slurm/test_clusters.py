"""Profiles are found in a stated order, and what is wrong with one is said in one line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from electra_dist.errors import ConfigError
from launcher.slurm.clusters import Cluster, available, load_cluster, write_profile
from launcher.slurm.preconditions import seconds
from launcher.slurm.queue import _gpus


@pytest.fixture(autouse=True)
def own_profiles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.delenv("ELECTRA_DIST_CLUSTERS", raising=False)
    folder = tmp_path / "electra-dist"
    folder.mkdir()
    return folder


def test_every_example_is_valid() -> None:
    assert {"gpu-gres", "apptainer", "pyxis-preemptible", "testbed"} <= set(available())
    for name in available():
        assert load_cluster(name).description


def test_the_users_own_profile_wins_over_an_example(own_profiles: Path) -> None:
    (own_profiles / "testbed.yaml").write_text("gpus_per_node: 7\n")
    assert load_cluster("testbed").gpus_per_node == 7


def test_a_folder_in_the_environment_wins_over_all(
    own_profiles: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (own_profiles / "site.yaml").write_text("gpus_per_node: 7\n")
    (tmp_path / "site.yaml").write_text("gpus_per_node: 3\n")
    monkeypatch.setenv("ELECTRA_DIST_CLUSTERS", str(tmp_path))
    assert load_cluster("site").gpus_per_node == 3
    assert load_cluster(str(own_profiles / "site.yaml")).gpus_per_node == 7


def test_a_written_profile_reads_back(own_profiles: Path) -> None:
    cluster = Cluster(
        gpus_per_node=4, partition="gpu", modules=("cuda/12",), environment={"NCCL_DEBUG": "INFO"}
    )
    assert write_profile("mine", cluster) == own_profiles / "mine.yaml"
    assert load_cluster("mine") == cluster
    for name in ("mine", "../x", "a/b", "a b"):
        with pytest.raises(ConfigError, match=r"exists already|profile name"):
            write_profile(name, cluster)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("gpus_per_nodes: 8", "unknown key gpus_per_nodes .did you mean 'gpus_per_node'"),
        (
            "gpus_per_node: 8\nvenv: /v\ncontainer: {runtime: pyxis, image: i}",
            "venv and container are both set",
        ),
        (
            "gpus_per_node: 2\ntasks_per_node: 4",
            "tasks_per_node = 4 is more than gpus_per_node = 2",
        ),
        ("gpus_per_node: 1\nenvironment: {'a b': c}", "environment"),
        (
            "gpus_per_node: 1\nenvironment: {run_dir: /x}",
            "environment.run_dir: variables in small letters",
        ),
        ("gpus_per_node: 1\ntime_limit: soon", "key time_limit = 'soon'"),
        ("gpus_per_node: 1\nsrun_options: ['; rm']", "key srun_options.0"),
        ("[]", "expected a mapping"),
        ("partition: gpu", "key gpus_per_node is missing"),
    ],
)
def test_a_wrong_profile_is_refused_by_key(own_profiles: Path, text: str, message: str) -> None:
    (own_profiles / "site.yaml").write_text(text)
    with pytest.raises(ConfigError, match=message):
        load_cluster("site")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("90", 5400),
        ("1:30", 90),
        ("24:00:00", 86400),
        ("2-00", 172800),
        ("1-12:30:00", 131400),
        ("infinite", None),
    ],
)
def test_slurm_times_are_read(text: str, expected: int | None) -> None:
    assert seconds(text) == expected


@pytest.mark.parametrize(
    ("gres", "expected"),
    [
        ("gpu:8", (8, None)),
        ("gpu:a100:8(S:0-1)", (8, "a100")),
        ("gpu:a100_3g.20gb:2,gpu:h100:2,shard:16", (4, "a100_3g.20gb")),
        ("(null)", (0, None)),
        ("nvme:1,gpu:4(S:0)", (4, None)),
    ],
)
def test_gpus_are_read_from_what_sinfo_prints(gres: str, expected: tuple[int, str | None]) -> None:
    assert _gpus(gres) == expected


def test_the_launcher_needs_no_torch_and_starts_quickly() -> None:
    program = """
import sys, time
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split('.')[0] in ('torch', 'deepspeed', 'transformers', 'wandb'):
            raise AssertionError(f'{name} imported')
sys.meta_path.insert(0, Refuse())
start = time.process_time()
import launcher, launcher.local, launcher.slurm.submit, launcher.status
print(time.process_time() - start)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert float(done.stdout) < 0.5
