"""docs/slurm.md holds: every key of a profile,
every line of a job script and every event is explained there.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from pydantic import BaseModel

from electra_dist.errors import EXIT_STATUSES
from launcher.slurm.clusters import Cluster, Container, available, load_cluster
from launcher.slurm.environment import KEPT
from launcher.slurm.job_script import TEMPLATE, Job, directives, render

DOCS = Path(__file__).resolve().parents[3] / "docs"
PAGE = (DOCS / "slurm.md").read_text(encoding="utf-8")


def table(section: type[BaseModel], prefix: str = "") -> list[str]:
    """The rows that the page must have: key, default, meaning,
    from the fields and their docstrings.
    """
    rows = []
    for name, field in section.model_fields.items():
        default = (
            "**required**"
            if field.is_required()
            else shown(field.get_default(call_default_factory=True))
        )
        meaning = " ".join((field.description or "").split())
        assert meaning, f"{prefix}{name} has no docstring"
        rows.append(f"| `{prefix}{name}` | {default} | {meaning} |")
    return rows


def shown(value: object) -> str:
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f"`{value}`" if value not in (None, (), {}, "") else ""


def test_every_key_of_a_profile_is_in_the_table() -> None:
    rows = [*table(Cluster), *table(Container, "container.")]
    missing = [row for row in rows if row not in PAGE.splitlines()]
    assert not missing, "docs/slurm.md lacks these rows:\n" + "\n".join(missing)


def jobs() -> list[Job]:
    """Jobs that between them have every line that a script can have."""
    run_dir = Path("/runs/one")
    plain = Job(
        "one",
        "001",
        Cluster(gpus_per_node=8),
        (run_dir,),
        run_dir,
        Path("/d"),
        (2, 2),
        (2,),
        "python3",
        "60",
    )
    changes = {
        "qos": "q",
        "constraint": "c",
        "reservation": "r",
        "memory_per_task": "1G",
        "exclusive": True,
    }
    clusters = [*(load_cluster(name) for name in available()), Cluster(gpus_per_node=8, **changes)]
    found = [replace(plain, cluster=cluster, exclude="n1") for cluster in clusters]
    return [*found, replace(plain, run_dirs=(run_dir, run_dir), requeue=False, nodes=(1, 4))]


def test_every_line_of_a_job_script_is_explained() -> None:
    options = {
        re.split("[= ]", line.removeprefix("#SBATCH "))[0]
        for job in jobs()
        for line in directives(job)
    }
    scripts = [render(job).partition("# --- the same for every job")[0] for job in jobs()]
    lines = [line for script in scripts for line in script.splitlines() if not line.startswith("#")]
    variables = {match[1] for line in lines if (match := re.match(r" *(?:export )?(\w+)=", line))}
    functions = set(re.findall(r"^(\w+)\(\) [{(]", TEMPLATE.read_text(encoding="utf-8"), re.M))
    profile = {name for job in jobs() for name in job.cluster.environment}
    words = options | functions | (variables - profile)
    assert len(words) > 50
    assert not sorted(word for word in words if f"`{word}`" not in PAGE)


def test_the_tables_of_exit_statuses_are_those_of_the_code() -> None:
    for status in EXIT_STATUSES:
        assert f"\n| {status.number} | {status.meaning} | " in PAGE
        assert (
            f"\n| {status.number} | {status.meaning} | {status.advice} |\n"
            in (DOCS / "train.md").read_text()
        )


def test_every_variable_that_a_job_inherits_is_named() -> None:
    families = (
        "MODULE",
        "__LMOD",
        "_Module",
        "_LMFILES",
        "BASH_FUNC",
    )  # "what else the module system needs"
    proxies = [name for name in KEPT if name.lower().endswith("_proxy")]
    named = [name for name in KEPT if name not in proxies and not name.startswith(families)]
    assert not [name for name in named if f"`{name}`" not in PAGE]


@pytest.mark.parametrize(
    "kind", sorted(set(re.findall(r"(?:note|end_run \S+) ([a-z]+) ", TEMPLATE.read_text())))
)
def test_every_event_is_explained(kind: str) -> None:
    assert f"| `{kind}` |" in PAGE
