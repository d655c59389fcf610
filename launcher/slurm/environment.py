"""What of the login shell's environment reaches Slurm: a listed part for jobs, nothing that rules
Slurm's own commands.

Slurm lets variables win over what a script says: `SBATCH_TIMELIMIT` over `#SBATCH --time`, an
interactive job's `SLURM_CPU_BIND` over the binding of the next job's ranks. So a job gets the
variables of `KEPT` and of the profile's `inherit`, and no others; `squeue`, `scontrol` and the rest
get the shell's, without those that Slurm reads.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

#: Which Slurm to talk to; everything else that Slurm reads or sets is left behind.
_SLURM = ("SLURM_CONF", "SLURM_CLUSTERS")
_OF_SLURM = ("SLURM_*", "SLURMD_*", "SBATCH_*", "SALLOC_*", "SRUN_*", "SQUEUE_*", "SINFO_*",
             "SCANCEL_*", "SCONTROL_*", "SACCT_*", "SPRIO_*", "PMI_*", "PMIX_*")  # fmt: skip
#: What a job takes from the shell that submits it; `*` stands for any letters.
KEPT = (
    *("HOME", "USER", "LOGNAME", "SHELL", "LANG", "LANGUAGE", "LC_*", "TZ"),
    *_SLURM,
    # where programs and libraries are, and the module system that says so
    *(
        "PATH",
        "LD_LIBRARY_PATH",
        "LIBRARY_PATH",
        "CPATH",
        "C_INCLUDE_PATH",
        "CC",
        "CXX",
        "PYTHONPATH",
    ),
    *(
        "BASH_ENV",
        "BASH_FUNC_module%%",
        "BASH_FUNC_ml%%",
        "BASH_FUNC__module_raw%%",
        "MODULEPATH",
        "MODULEPATH_ROOT",
    ),
    *(
        "MODULESHOME",
        "MODULES_*",
        "LMOD_*",
        "__LMOD_*",
        "_ModuleTable*",
        "LOADEDMODULES",
        "_LMFILES_*",
    ),
    *("APPTAINER*", "SINGULARITY*", "ENROOT_*", "CUDA_HOME", "CUDA_PATH", "ROCM_PATH"),
    # the way out, and keys
    *("http_proxy", "https_proxy", "ftp_proxy", "all_proxy", "no_proxy"),
    *("HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "ALL_PROXY", "NO_PROXY", "WANDB_*", "HF_*"),
    # how training runs
    *(
        "NCCL_*",
        "RCCL_*",
        "GLOO_*",
        "UCX_*",
        "FI_*",
        "TORCH_*",
        "PYTORCH_*",
        "TORCHINDUCTOR_*",
        "TRITON_*",
        "DS_*",
    ),
    *("CUDA_*", "OMP_*", "MKL_*", "KMP_*"),
)
#: Never: they mean something in this shell only.
_NEVER = (
    "CUDA_VISIBLE_DEVICES",
    "WANDB_SERVICE",
    "WANDB_RUN_ID",
    "WANDB_RUN_GROUP",
    "WANDB_RESUME",
    "WANDB_DIR",
)
#: Said when it is set and not taken, beside what Slurm reads:
#: it would have changed how the ranks run.
_TELLING = ("CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "RANK",
            "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT", "PYTHONHOME",
            "LD_PRELOAD")  # fmt: skip


@dataclass(frozen=True)
class Inherited:
    """What a job gets of a shell, and one sentence about what it does not,
    where that may surprise; empty for none.
    """

    variables: dict[str, str]
    ignored: str


def _is(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def for_commands(shell: Mapping[str, str]) -> dict[str, str]:
    """The environment of Slurm's commands:
    that of the shell without what they would take for options.
    """
    return {
        name: value for name, value in shell.items() if name in _SLURM or not _is(name, _OF_SLURM)
    }


def for_job(shell: Mapping[str, str], inherit: Sequence[str] = ()) -> Inherited:
    """The environment of a job that is submitted from `shell`;
    `inherit` are names or patterns of the profile.
    """
    kept = {
        name: value
        for name, value in for_commands(shell).items()
        if _is(name, inherit) or (_is(name, KEPT) and name not in _NEVER)
    }
    return Inherited(kept, _ignored(shell, kept))


def _ignored(shell: Mapping[str, str], kept: Mapping[str, str]) -> str:
    """SBATCH_... with their values, what an interactive job set as one,
    and the few others that matter.
    """
    left = sorted(name for name in shell if name not in kept)
    named = [f"{name}={shell[name]}"[:60] for name in left if name.startswith("SBATCH_")]
    named += [name for name in left if name in _TELLING]
    own = [name for name in left if _is(name, ("SLURM_*", "SRUN_*", "SALLOC_*"))]
    if own and "SLURM_JOB_ID" in shell:
        named.append(f"the SLURM_... variables of job {shell['SLURM_JOB_ID']}")
    else:
        named += own
    if not named:
        return ""
    return (
        f"not taken over from this shell: {', '.join(named)}; the profile and the options of"
        " `launch slurm` say what the job gets (docs/slurm.md, inherit)"
    )
