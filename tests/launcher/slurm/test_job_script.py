"""The job script says what was asked for, is clean shell, and reads no string of a user as code."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pydantic
import pytest

from electra_dist.errors import ConfigError
from launcher.slurm.clusters import Cluster, Container, available, load_cluster
from launcher.slurm.job_script import Job, render

NASTY = [
    "plain",
    "two words",
    "it's",
    'say "hi"',
    "$(touch PWNED)",
    "`touch PWNED`",
    "; touch PWNED #",
    "a & touch PWNED &",
    "${HOME} $1 %j !! * ~ \t".strip(),
    "'; touch PWNED; '",
    "@SETTINGS@ @DIRECTIVES@",
    "--exclusive",
    "ünïcödé",
]


def job(**changes: Any) -> Job:
    cluster = Cluster(gpus_per_node=8, partition="gpu", cores_per_task=4, memory_per_task="10G")
    run_dir = Path("/runs/one")
    plain = Job(
        "one",
        "001",
        cluster,
        (run_dir,),
        run_dir / "logs",
        Path("/here"),
        (2, 2),
        (2,),
        "python3",
        "60",
    )
    return replace(plain, **changes)


def directives(script: str) -> list[str]:
    return [
        line.removeprefix("#SBATCH ") for line in script.splitlines() if line.startswith("#SBATCH")
    ]


def settings(script: str, folder: Path, *names: str) -> list[str]:
    """What bash holds in these variables after the settings; arrays give one line an element."""
    text = script.split("# --- the same for every job")[0]
    prints = "\n".join(f'printf "%s\\n" "${{{name}[@]}}"' for name in names)
    done = subprocess.run(
        ["bash", "-c", f"{text}\n{prints}"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
        env={"HOME": "/"},
    )
    assert not done.stderr
    return done.stdout.splitlines()


def test_the_request_is_in_the_directives() -> None:
    lines = directives(render(job(exclude="n[1-3]", time_limit="1-00:00:00")))
    assert {
        "--job-name=one",
        "--partition=gpu",
        "--nodes=2",
        "--ntasks-per-node=8",
        "--cpus-per-task=4",
        "--gres=gpu:8",
        "--mem=80G",
        "--time=1-00:00:00",
        "--signal=B:USR1@300",
        "--requeue",
        "--open-mode=append",
        "--output=/runs/one/logs/job-%j.log",
        "--exclude='n[1-3]'",
    } <= set(lines)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"gpu_request": "gpus-per-node", "gpu_type": "h100"}, "--gpus-per-node=h100:8"),
        ({"gpu_type": "a100"}, "--gres=gpu:a100:8"),
        ({"exclusive": True}, "--exclusive"),
        ({"sbatch_options": ("--mail-type=END", "--contiguous")}, "--contiguous"),
    ],
)
def test_clusters_ask_in_their_own_way(changes: dict[str, Any], expected: str) -> None:
    script = render(job(cluster=Cluster(**({"gpus_per_node": 8} | changes))))
    assert expected in directives(script)


def test_an_array_has_one_run_directory_a_task(tmp_path: Path) -> None:
    script = render(job(run_dirs=(Path("/runs/a b"), Path("/runs/c"))))
    assert "--array=0-1" in directives(script)
    assert "--output=/runs/one/logs/job-%A_%a.log" in directives(script)
    for task, expected in (("0", "/runs/a b"), ("1", "/runs/c")):
        text = f"SLURM_ARRAY_TASK_ID={task}\n{script}"
        assert settings(text, tmp_path, "run_dir") == [expected]


@pytest.mark.parametrize("text", NASTY)
def test_no_string_becomes_code(tmp_path: Path, text: str) -> None:
    cluster = Cluster(
        gpus_per_node=1,
        source=(f"/etc/{text}",),
        modules=(text,),
        venv=f"/venv/{text}",
        environment={"NCCL_DEBUG": text},
        proxy=text,
        node_local=text,
        srun_options=(f"--comment={text}",),
        sbatch_options=(f"--comment={text}",),
    )
    run_dir = Path("/runs") / text
    script = render(
        job(cluster=cluster, run_dirs=(run_dir,), submit_dir=Path(f"/d/{text}"), python=text)
    )
    names = ("run_dir", "sources", "modules", "venv", "python", "submit_dir", "srun_options")
    found = settings(
        script, tmp_path, *names, "NCCL_DEBUG", "https_proxy", "ELECTRA_DIST_NODE_LOCAL"
    )
    assert found == [
        str(run_dir), f"/etc/{text}", text, f"/venv/{text}", text, f"/d/{text}",
        f"--comment={text}", text, text, text
    ]  # fmt: skip
    assert not list(tmp_path.iterdir())


#: Fields of a profile that take any text in one line;
#: all others take numbers, names or nothing of this kind.
FREE = {
    "description", "sbatch_options", "srun_options", "source", "modules", "venv", "python",
    "environment", "proxy", "node_local", "shared_paths", "container.image",
    "container.mounts", "container.options",
}  # fmt: skip


@pytest.mark.parametrize(
    "field", [*Cluster.model_fields, *(f"container.{name}" for name in Container.model_fields)]
)
def test_every_field_of_a_profile_is_quoted_or_refuses(tmp_path: Path, field: str) -> None:
    accepted = set()
    for text in [*NASTY[1:], "a\ntouch PWNED", "a\n#SBATCH --wrap=x"]:
        option = f"--comment={text}"
        for value in (text, (text,), (option,), {text: "a"}, {"A": text}):
            try:
                cluster = profile(field, value)
                script = render(job(cluster=cluster))
            except (pydantic.ValidationError, ConfigError):
                continue
            accepted.add(text)
            settings(script, tmp_path, "srun_options")  # which fails when bash says anything
            lines = [line for line in script.splitlines() if line.startswith("#SBATCH")]
            extra = len(cluster.sbatch_options)
            assert (
                len(lines)
                == len(directives(render(job(cluster=profile("description", "x"))))) + extra
            )
    assert not list(tmp_path.iterdir())
    assert bool(accepted) == (field in FREE)
    assert not [text for text in accepted if "\n" in text]


def profile(field: str, value: Any) -> Cluster:
    """A profile with one field, of it or of its container, set to `value`."""
    section, _, name = field.rpartition(".")
    if not section:
        return Cluster(**{"gpus_per_node": 1, field: value})
    base = {"runtime": "apptainer", "image": "/one.sif"}
    return Cluster(gpus_per_node=1, container=Container.model_validate(base | {name: value}))


# scontrol shows %% wrongly
@pytest.mark.parametrize("text", [text for text in NASTY if "%" not in text])
def test_slurm_reads_nasty_log_names_as_they_are(testbed: Any, tmp_path: Path, text: str) -> None:
    home = tmp_path / text
    (home / "logs").mkdir(parents=True)
    script = tmp_path / "job.sbatch"
    cluster = Cluster(gpus_per_node=0, cores_per_task=1)
    written = render(
        job(name=text, cluster=cluster, run_dirs=(home,), log_dir=home / "logs", nodes=(1, 1))
    )
    script.write_text(written.split("# --- this job")[0] + f"true {'#' * 20}\n")
    job_id = testbed.run("sbatch", "--parsable", "--hold", str(script))
    shown = testbed.run("scontrol", "show", "job", job_id)
    testbed.run("scancel", job_id)
    assert f"StdOut={home}/logs/job-{job_id}.log\n" in shown
    assert f"JobName={text}" in shown
    assert not list(tmp_path.glob("**/PWNED"))


@pytest.mark.parametrize("text", ["a\nb", "a\rb", "a\x00b", "a\x1bb"])
def test_line_breaks_are_refused_everywhere(text: str) -> None:
    for field in ("run_dirs", "submit_dir", "python", "name", "exclude"):
        value: Any = {"run_dirs": (Path(text),), "submit_dir": Path(text)}.get(field, text)
        with pytest.raises(ConfigError, match="line breaks"):
            render(job(**{field: value}))
    for field in ("modules", "source", "srun_options", "sbatch_options", "shared_paths"):
        with pytest.raises(ValueError, match=r"line breaks|pattern"):
            Cluster(gpus_per_node=1, **{field: (f"--a={text}",)})
    for field in (
        "partition",
        "account",
        "qos",
        "venv",
        "python",
        "proxy",
        "node_local",
        "gpu_type",
        "time_limit",
    ):
        with pytest.raises(ValueError, match=r"line breaks|pattern"):
            Cluster(gpus_per_node=1, **{field: text})
    with pytest.raises(ValueError, match="line breaks"):
        Cluster(gpus_per_node=1, environment={"A": text})


@pytest.mark.parametrize("partition", ["a b", "$(x)", "a;b", "--x", "a'b", "a#b", "a\n"])
def test_names_of_the_site_are_plain_words(partition: str) -> None:
    for field in ("partition", "account", "qos", "constraint", "reservation", "gpu_type"):
        with pytest.raises(ValueError, match="pattern"):
            Cluster(gpus_per_node=1, **{field: partition})


@pytest.mark.parametrize("name", sorted(available()))
@pytest.mark.parametrize(
    "changes", [{}, {"torchrun": True}, {"run_dirs": (Path("/a"), Path("/b c"))}]
)
def test_the_script_of_every_example_passes_shellcheck(
    tmp_path: Path, name: str, changes: dict[str, Any]
) -> None:
    if shutil.which("shellcheck") is None:
        pytest.skip("no shellcheck here: apt-get install shellcheck")
    script = tmp_path / "job.sbatch"
    script.write_text(render(job(cluster=load_cluster(name), **changes)))
    done = subprocess.run(["shellcheck", str(script)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_containers_get_their_mounts_on_srun_or_inside_the_task(tmp_path: Path) -> None:
    pyxis = Container(runtime="pyxis", image="site#image:1", mounts=("/data:/data:ro",))
    script = render(job(cluster=Cluster(gpus_per_node=4, container=pyxis), mounts=("/runs",)))
    # the batch script needs scontrol, which images lack
    assert "--container" not in "".join(directives(script))
    options = settings(script, tmp_path, "srun_options")
    assert options[:3] == [
        "--container-image=site#image:1",
        "--container-mounts=/runs:/runs,/tmp:/tmp,/data:/data:ro",
        "--container-workdir=/here",
    ]
    # of a variable that the image sets too, Pyxis keeps the image's value unless it is named here
    assert set(options[3].removeprefix("--container-env=").split(",")) >= exported(script)
    apptainer = Container(runtime="apptainer", image="/images/one.sif")
    script = render(job(cluster=Cluster(gpus_per_node=4, container=apptainer), mounts=("/runs",)))
    prefix = settings(script, tmp_path, "prefix")
    assert prefix == ["apptainer", "exec", "--nv", "--pwd=/here", "--bind=/runs", "/images/one.sif"]
    with pytest.raises(ValueError, match="set node_local"):
        Cluster(gpus_per_node=4, container=pyxis, node_local_variable="SLURM_TMPDIR")


def exported(script: str) -> set[str]:
    """The variables that a script gives to the ranks, read from its text."""
    lines = [
        line.split("#")[0] for line in script.splitlines() if line.strip().startswith("export ")
    ]
    names = {word.split("=")[0] for line in lines for word in shlex.split(line, posix=False)[1:]}
    own = {"VIRTUAL_ENV", "PATH", "APPTAINER_BIND", "TRITON_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR"}
    return (
        {name for name in names if re.fullmatch("[A-Z][A-Za-z_]*", name)}
        - own
        - {"TORCH_EXTENSIONS_DIR"}
    )


@pytest.fixture
def apptainer(tmp_path: Path) -> Path:
    """A stand-in on the PATH that shows its arguments and what a container would be told."""
    program = tmp_path / "bin" / "apptainer"
    program.parent.mkdir()
    program.write_text('#!/bin/bash\nprintf "%s\\n" "$@"\nenv | grep -E "^APPTAINER(ENV_|_BIND)"\n')
    program.chmod(0o755)
    return program


def test_a_task_in_apptainer_hands_over_its_variables_and_its_caches(
    tmp_path: Path, apptainer: Path
) -> None:
    cluster = Cluster(
        gpus_per_node=4,
        container=Container(runtime="apptainer", image="/images/one.sif"),
        environment={"NCCL_DEBUG": "two words"},
        node_local=str(tmp_path / "disk"),
    )
    script = render(job(cluster=cluster, mounts=("/runs",)))
    head, shared = script.split("# --- the same for every job")
    task = shared[shared.index("\ntask() {") : shared.index("\nchoose_nodes()")]
    names = "ELECTRA_DIST_MASTER_ADDR MASTER_PORT PYTHONPATH PYTHONSAFEPATH TORCH_FR_BUFFER_SIZE"
    rest = "TORCH_FR_DUMP_TEMP_FILE TORCH_NCCL_DUMP_ON_TIMEOUT"
    sets = "\n".join(f"export {name}=of-the-script" for name in f"{names} {rest}".split())
    text = f'{head}\n{task}\n{sets}\ntask "${{prefix[@]}}" python3 -m x'
    done = subprocess.run(
        ["bash", "-c", text],
        env={"PATH": f"{apptainer.parent}:/usr/bin:/bin", "APPTAINER_BIND": "/site"},
        capture_output=True,
        text=True,
        check=True,
    )
    lines = done.stdout.splitlines()
    assert lines[:7] == [
        "exec",
        "--nv",
        "--pwd=/here",
        "--bind=/runs",
        "/images/one.sif",
        "python3",
        "-m",
    ]
    caches = next((tmp_path / "disk").iterdir())
    assert caches.stat().st_mode & 0o777 == 0o700
    assert f"APPTAINER_BIND=/site,{caches}" in lines
    assert {"APPTAINERENV_NCCL_DEBUG=two words", "APPTAINERENV_PYTHONNOUSERSITE=1"} <= set(lines)
    assert "APPTAINERENV_PYTHONPATH=of-the-script" in lines
    assert f"APPTAINERENV_TRITON_CACHE_DIR={caches}/triton" in lines
    handed = {
        line.split("=")[0].removeprefix("APPTAINERENV_")
        for line in lines
        if line.startswith("APPTAINERENV_")
    }
    assert handed >= exported(script)


def test_a_backslash_in_the_path_of_the_logs_is_refused() -> None:
    with pytest.raises(ConfigError, match="backslash"):
        render(job(log_dir=Path("/runs/a\\b/logs")))
