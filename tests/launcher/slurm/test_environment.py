"""A job takes a listed part of the shell that submits it,
and Slurm's commands take no options from it.
"""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from launcher.slurm.clusters import Cluster
from launcher.slurm.environment import for_commands, for_job

SHELL = {
    "PATH": "/usr/bin",
    "HOME": "/home/me",
    "LC_ALL": "C.UTF-8",
    "BASH_FUNC_module%%": "() { :; }",
    "LMOD_CMD": "/lmod",
    "PYTHONPATH": "/site",
    "WANDB_API_KEY": "a key",
    "NCCL_DEBUG": "INFO",
    "SLURM_CONF": "/etc/slurm.conf",
    "MY_TOKEN": "secret",
    "MY_DATA": "/data",
    "CUDA_VISIBLE_DEVICES": "3",
    "WANDB_SERVICE": "2-17-tcp",
    "SBATCH_TIMELIMIT": "5",
    "SBATCH_EXPORT": "NONE",
    "SQUEUE_FORMAT": "%i",
    "SLURM_TIME_FORMAT": "relative",
}
INTERACTIVE = {
    "SLURM_JOB_ID": "12",
    "SLURM_CPU_BIND": "quiet,mask_cpu:0x1",
    "SLURM_CPU_BIND_LIST": "0x1",
}


def test_a_job_gets_what_is_listed_and_nothing_else() -> None:
    kept = for_job(SHELL | INTERACTIVE).variables
    assert list(kept) == list(SHELL)[: list(SHELL).index("SLURM_CONF") + 1]
    assert "MY_DATA" in for_job(SHELL, ("MY_DATA",)).variables
    assert {"MY_DATA", "MY_TOKEN"} <= set(for_job(SHELL, ("MY_*",)).variables)


def test_what_would_have_mattered_is_said_and_nothing_that_is_secret() -> None:
    said = for_job(SHELL | INTERACTIVE).ignored
    for words in (
        "SBATCH_TIMELIMIT=5",
        "SBATCH_EXPORT=NONE",
        "CUDA_VISIBLE_DEVICES",
        "the SLURM_... variables of job 12",
    ):
        assert words in said
    assert "MY_TOKEN" not in said
    assert "secret" not in said
    assert "SLURM_TIME_FORMAT" in for_job(SHELL).ignored  # set by hand, outside of a job
    assert not for_job({"PATH": "/bin", "MY_TOKEN": "x", "SLURM_CONF": "/c"}).ignored


def test_commands_of_slurm_keep_the_rest_of_the_shell() -> None:
    kept = for_commands(SHELL | INTERACTIVE)
    assert {"SLURM_CONF", "MY_TOKEN", "PATH"} <= set(kept)
    assert not [
        name
        for name in kept
        if name.startswith(("SBATCH", "SQUEUE")) or "CPU_BIND" in name or "FORMAT" in name
    ]


@pytest.mark.parametrize("name", ["SLURM_CPU_BIND", "SBATCH_*", "A B", "*", "$(x)", "SRUN_X"])
def test_a_profile_cannot_inherit_what_slurm_reads(name: str) -> None:
    with pytest.raises(ValidationError, match=r"inherit"):
        Cluster(gpus_per_node=1, inherit=(name,))
