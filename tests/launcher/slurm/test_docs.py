"""What explains a job: docs/slurm.md every key and every event, the job script each of its
lines.
"""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import pairwise
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


#: A comment that explains an option or a setting: its name, two spaces or more, its meaning.
EXPLAINED = re.compile(r"^ *# +((?:--)?[A-Za-z][\w-]*) {2,}\S", re.M)


def unexplained_functions(script: str) -> list[str]:
    """The functions of a script without a comment behind their head or on the line above."""
    found = []
    for above, line in pairwise(script.splitlines()):
        head = re.match(r"(\w+)\(\) [{(](.*)$", line)
        if head is None:
            continue

        is_explained_above = above.startswith("# ") and not above.startswith("# ---")
        is_explained_behind = re.match(r" # \S", head[2])
        if not (is_explained_above or is_explained_behind):
            found.append(head[1])
    return found


def test_every_line_of_a_job_script_is_explained_in_it() -> None:
    for job in jobs():
        script = render(job)
        head, _, shared = script.partition("# --- the same for every job")
        options = {re.split("[= ]", line.removeprefix("#SBATCH "))[0] for line in directives(job)}
        code = [line for line in head.splitlines() if not line.lstrip().startswith("#")]
        assigned = re.compile(r"^ *(?:\d+\) )?(?:export )?(\w+)=", re.M)  # "0) ..." in an array
        variables = set(assigned.findall("\n".join(code)))

        explained = set(EXPLAINED.findall(head))
        own = {option.partition("=")[0] for option in job.cluster.sbatch_options}
        words = (options - own) | (variables - set(job.cluster.environment))
        assert len(words) > 30
        assert not sorted(words - explained)
        assert unexplained_functions(shared) == []


def test_nothing_is_explained_that_no_job_script_has() -> None:
    scripts = [render(job) for job in jobs()]
    words = EXPLAINED.findall(scripts[0].partition("# --- the same for every job")[0])
    assert len(words) == len(set(words))
    used = re.sub(r"^ *# .*$", "", "\n".join(scripts), flags=re.M)
    assert [word for word in words if not re.search(rf"{word}\b", used)] == []


def test_a_function_without_a_comment_is_found() -> None:
    script = "\nfirst() { # why\n}\n# why\nsecond() (\n)\n\nthird() {\n}\n# --- part\nfourth() {\n"
    assert unexplained_functions(script) == ["third", "fourth"]


def test_the_page_leads_to_the_script() -> None:
    assert "(../launcher/slurm/job.sbatch)" in PAGE
    assert (DOCS.parent / "launcher" / "slurm" / "job.sbatch").samefile(TEMPLATE)


def test_the_tables_of_exit_statuses_are_those_of_the_code() -> None:
    for status in EXIT_STATUSES:
        assert f"\n| {status.number} | {status.meaning} | " in PAGE
        assert (
            f"\n| {status.number} | {status.meaning} | {status.advice} |\n"
            in (DOCS / "train.md").read_text()
        )


def test_every_variable_that_a_job_inherits_is_named() -> None:
    # "what else the module system needs"
    families = (
        "MODULE",
        "__LMOD",
        "_Module",
        "_LMFILES",
        "BASH_FUNC",
    )
    proxies = [name for name in KEPT if name.lower().endswith("_proxy")]
    named = [name for name in KEPT if name not in proxies and not name.startswith(families)]
    assert not [name for name in named if f"`{name}`" not in PAGE]


@pytest.mark.parametrize(
    "kind", sorted(set(re.findall(r"(?:note|end_run \S+) ([a-z]+) ", TEMPLATE.read_text())))
)
def test_every_event_is_explained(kind: str) -> None:
    assert f"| `{kind}` |" in PAGE
