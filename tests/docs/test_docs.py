"""The documentation holds: every command in it runs, every link leads somewhere, the page of keys
is up to date.

All `bash` blocks of README.md, docs/*.md and benchmarks/RESULTS.md are executed, page by page in
the order of the work, in one folder in which the pages' story unfolds: the corpus becomes a
tokenizer, shards, a run, a resumed run, an evaluation, an export. An HTML comment before a block
says what the test changes, several separated by commas:

    <!-- test: append --max-bytes 400000 -->   these words end each electra-dist command of the
                                               block
    <!-- test: tiny -->                        the overrides TINY below end each electra-dist
                                               command of the block
    <!-- test: interrupt at step 2 -->         Ctrl-C once that step is logged; the block must end
                                               with status 75
    <!-- test: save FILE -->                   (any language) the block is written to FILE
    <!-- test: parse -->                       cannot run here: arguments, files and configuration
                                               are checked instead

A block without one runs as it stands. Nothing is skipped: what is neither run nor understood fails.
"""

from __future__ import annotations

import contextlib
import importlib.util
import itertools
import os
import re
import shlex
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from electra_dist import config as configuration
from electra_dist.cli import main as cli
from electra_dist.errors import EXIT_UNFINISHED
from electra_dist.runs.directory import RunDir
from electra_dist.runs.heldout.evaluations import HEADLINES

ROOT = Path(__file__).resolve().parents[2]
#: Pages in the order of the work; each may use what those before it left in the folder.
STORY = (
    "docs/sources.md",
    "docs/prepare-data.md",
    "docs/cleaning.md",
    "docs/shards.md",
    "docs/build-at-size.md",
    "docs/train.md",
    "docs/resume.md",
    "docs/checkpoints.md",
    "docs/evaluate.md",
    "docs/report.md",
    "docs/export.md",
    "docs/tokenizers.md",
    "docs/fine-tune.md",
    "docs/tasks/classification.md",
    "docs/tasks/multi-label.md",
    "docs/search.md",
    "docs/tasks/token-classification.md",
    "docs/tasks/embeddings.md",
    "docs/tasks/multiple-choice.md",
    "docs/tasks/ranking.md",
    "docs/tasks/suspects.md",
    "docs/tasks/zero-shot.md",
    "docs/serve.md",
)
#: Pages whose commands need what no test machine has; blocks without a directive are parsed.
PARSED = {
    "docs/slurm.md": "needs a cluster; tests/launcher runs these commands on the testbed",
    "docs/measure.md": "benchmarks take minutes, and some a GPU",
    "docs/memory-model.md": "benchmarks take minutes",
    "benchmarks/RESULTS.md": "benchmarks take minutes, and some a GPU",
}
#: Pages whose Python blocks are one program, and the test that runs it.
PROGRAMS = {"docs/how-it-works.md": "tests/docs/test_how_it_works.py"}
#: Pages outside docs/.
OUTSIDE = (*ROOT.glob("*.md"), ROOT / "benchmarks" / "RESULTS.md")
_PAGES = {path.relative_to(ROOT).as_posix() for path in (*OUTSIDE, *(ROOT / "docs").rglob("*.md"))}
OTHERS = tuple(sorted(_PAGES - set(STORY)))
TINY = (
    "model.preset=tiny data.row_length=64 train.steps=6 train.global_rows=4 train.micro_rows=2"
    " optim.warmup_steps=1 precision.mode=fp32 checkpoint.every=4 tracking.every=1"
    " tracking.wandb=disabled validation.rows=8"
)
#: Programs of the system whose arguments a `parse` block does not check.
SYSTEM = {
    "apptainer",
    "apt-get",
    "cat",
    "cd",
    "cp",
    "docker",
    "enroot",
    "export",
    "git",
    "grep",
    "less",
    "ls",
    "mkdir",
    "module",
    "rsync",
    "sacct",
    "sbatch",
    "scancel",
    "scontrol",
    "scp",
    "sinfo",
    "source",
    "squeue",
    "ssh",
    "sudo",
    "tail",
    "tensorboard",
    "watch",
}


@dataclass(frozen=True)
class Block:
    """One fenced block: where it is, its language, the directives before it, its text."""

    page: str
    line: int
    language: str
    directives: tuple[str, ...]
    text: str

    @property
    def where(self) -> str:
        return f"{self.page}:{self.line}"

    def argument(self, directive: str) -> str | None:
        """What follows the name of a directive; "" when nothing does;
        None when the block does not have it.
        """
        found = [
            d[len(directive) :].strip()
            for d in self.directives
            if d.split()[0] == directive.split()[0]
        ]
        return found[0] if found else None


_BLOCK = re.compile(
    r"^(?:<!-- test: (?P<test>[^\n]*?) -->\n)?^```(?P<language>\w+)\n(?P<text>.*?)^```$",
    re.M | re.S,
)


def blocks(page: str) -> list[Block]:
    text = (ROOT / page).read_text(encoding="utf-8")
    found = []
    for match in _BLOCK.finditer(text):
        directives = tuple(
            part.strip() for part in (match["test"] or "").split(",") if part.strip()
        )
        if not directives and page in PARSED:
            directives = ("parse",)
        line = text[: match.start("language")].count("\n") + 1
        found.append(Block(page, line, match["language"], directives, match["text"]))
    return found


# --- running --------------------------------------------------------------------------------------


class Story:
    """The folder in which the pages happen; a page runs once, after those that it builds on."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._told: dict[str, str | None] = {}
        for name in (
            "configs",
            "docs",
            "tests",
            "electra_dist",
            "data_tools",
            "launcher",
            "Makefile",
            "constraints.txt",
        ):
            (folder / name).symlink_to(ROOT / name)
        self._bin = folder / ".bin"
        self._bin.mkdir()
        shim = self._bin / "electra-dist"
        shim.write_text(
            f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m electra_dist.cli "$@" $DOCS_APPEND\n'
        )
        shim.chmod(0o755)

    def tell(self, page: str) -> None:
        """Run a page, after the pages of the story before it."""
        before = STORY[: STORY.index(page)] if page in STORY else STORY
        for earlier in before:
            self._tell(earlier)
        self._tell(page)

    def _tell(self, page: str) -> None:
        if page not in self._told:
            self._told[page] = f"{page} failed before"
            for block in blocks(page):
                self.run(block)
            self._told[page] = None
        if self._told[page]:
            pytest.fail(str(self._told[page]))

    def run(self, block: Block) -> None:
        """Do what the block says, under its directives."""
        known = ("append", "tiny", "interrupt", "save", "parse")
        assert all(d.split()[0] in known for d in block.directives), (
            f"{block.where}: unknown directive"
        )
        if name := block.argument("save"):
            (self.folder / name).write_text(block.text, encoding="utf-8")
        elif block.argument("parse") is not None:
            for command in commands(block):
                check_command(command, self.folder, block.where)
        elif block.language == "bash":
            self._execute(block, ["bash", "-euo", "pipefail", "-c", block.text])
        elif block.language == "python" and block.page in PROGRAMS:
            assert (ROOT / PROGRAMS[block.page]).is_file(), (
                f"{block.where}: no {PROGRAMS[block.page]}"
            )
        elif block.language == "python":
            self._execute(block, [sys.executable, "-c", block.text])
        else:
            assert block.language in ("mermaid", "yaml", "json", "text"), (
                f"{block.where}: {block.language}?"
            )

    def _execute(self, block: Block, command: list[str]) -> None:
        appended = (
            f"{block.argument('append') or ''} {TINY if block.argument('tiny') is not None else ''}"
        ).strip()
        environment = os.environ | {
            "PATH": f"{self._bin}:{Path(sys.executable).parent}:{os.environ['PATH']}",
            "DOCS_APPEND": appended,
        }
        stop_at = block.argument("interrupt at step")
        with (
            (self.folder / "output.txt").open("w+", encoding="utf-8") as output,
            subprocess.Popen(
                command,
                cwd=self.folder,
                env=environment,
                stdout=output,
                stderr=output,
                start_new_session=True,
            ) as process,
        ):
            try:
                if stop_at is not None:
                    self._interrupt(process, block, int(stop_at.split()[-1]))
                status = process.wait(timeout=300)
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
            output.seek(0)
            expected = 0 if stop_at is None else EXIT_UNFINISHED
            assert status == expected, (
                f"{block.where}: exit status {status}, expected {expected}\n{output.read()}"
            )

    def _interrupt(self, process: subprocess.Popen[bytes], block: Block, step: int) -> None:
        """What Ctrl-C sends, to the whole foreground group as a terminal does,
        once `step` is logged.
        """
        names = re.findall(r"run\.name=(\S+)", block.text)
        run = RunDir(self.folder / "runs" / names[0])
        deadline = time.monotonic() + 240
        while (
            process.poll() is None
            and max((r["step"] for r in run.read_metrics()), default=0) < step
        ):
            assert time.monotonic() < deadline, f"{block.where}: step {step} was never logged"
            time.sleep(0.02)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGINT)


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Story:
    return Story(tmp_path_factory.mktemp("docs"))


@pytest.mark.parametrize("page", [*STORY, *OTHERS])
def test_every_block_of_the_page_runs(page: str, story: Story) -> None:
    story.tell(page)


# --- checking what cannot run ---------------------------------------------------------------------


def commands(block: Block) -> list[list[str]]:
    """The commands of a block as lists of words:
    one a line, continued lines joined, comments and what comes behind ` > ` left out.
    """
    lines = block.text.replace("\\\n", " ").splitlines()
    split = (shlex.split(line.partition(" > ")[0], comments=True) for line in lines)
    return [words for words in split if words]


def check_command(words: list[str], folder: Path, where: str) -> None:
    """Fail unless the command is one that this checkout understands."""
    program = Path(words[0]).name
    if program in SYSTEM:
        return
    assert program in CHECKS, (
        f"{where}: no check for {program!r}; run the block, or add one to CHECKS"
    )
    CHECKS[program](words[1:], folder, where)


def _check_electra_dist(words: list[str], folder: Path, where: str) -> None:
    """Arguments parse; a configuration that is there resolves with its overrides,
    and the ranks fit.
    """
    try:
        parsed = cli._parse(words)
    except SystemExit:
        pytest.fail(f"{where}: electra-dist {shlex.join(words)}: does not parse")
    if getattr(parsed, "config", None):
        resolved = configuration.load(folder / parsed.config, parsed.overrides)
        if hasattr(parsed, "processes"):
            configuration.check_world(resolved, parsed.processes)


def _check_starter(words: list[str], folder: Path, where: str) -> None:
    """torchrun and srun: what they start."""
    starts = [
        number for number, word in enumerate(words) if word in ("electra-dist", "electra_dist.cli")
    ]
    assert starts, f"{where}: starts no electra-dist: {words}"
    _check_electra_dist(words[starts[0] + 1 :], folder, where)


def _check_make(words: list[str], folder: Path, where: str) -> None:
    targets = re.findall(r"^([\w-]+):", (folder / "Makefile").read_text(encoding="utf-8"), re.M)
    assert all(word in targets or "=" in word for word in words), (
        f"{where}: make {words}; targets: {targets}"
    )


def _check_pip(words: list[str], folder: Path, where: str) -> None:
    assert words[0] == "install", f"{where}: pip {words}"
    for option, value in itertools.pairwise(words):
        assert option != "-c" or (folder / value).is_file(), f"{where}: no {value}"
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for extras in re.findall(r"\[([\w,]+)\]", " ".join(words)):
        unknown = set(extras.split(",")) - project["optional-dependencies"].keys()
        assert not unknown, f"{where}: no extras {unknown}"


def _check_python(words: list[str], folder: Path, where: str) -> None:
    if words[0] == "-m":
        assert importlib.util.find_spec(words[1]), f"{where}: no module {words[1]}"
    else:
        assert (ROOT / words[0]).is_file(), f"{where}: no file {words[0]}"


def _check_pytest(words: list[str], folder: Path, where: str) -> None:
    missing = [
        word
        for word in words
        if not word.startswith("-") and not (ROOT / word.split("::")[0]).exists()
    ]
    assert not missing, f"{where}: no {missing}"


def _check_script(words: list[str], folder: Path, where: str) -> None:
    assert words, where
    assert (ROOT / words[0]).is_file(), f"{where}: no file {words[0]}"


def _check_wandb(words: list[str], folder: Path, where: str) -> None:
    from wandb.cli.cli import cli as wandb

    assert words[0] in wandb.commands, f"{where}: wandb has no command {words[0]}"


CHECKS: dict[str, Callable[[list[str], Path, str], None]] = {
    "electra-dist": _check_electra_dist,
    "torchrun": _check_starter,
    "srun": _check_starter,
    "make": _check_make,
    "pip": _check_pip,
    "python": _check_python,
    "python3": _check_python,
    "pytest": _check_pytest,
    "bash": _check_script,
    "wandb": _check_wandb,
}


@pytest.mark.parametrize("page", [*STORY, *OTHERS])
def test_no_block_and_no_directive_of_the_page_is_overlooked(page: str) -> None:
    text, found = (ROOT / page).read_text(encoding="utf-8"), blocks(page)
    fences = re.findall(r"^\s*```", text, re.M)
    assert len(fences) == 2 * len(found), (
        f"{page}: a fence that is indented, not closed, or names no language"
    )
    assert text.count("<!-- test:") == len(re.findall(r"^<!-- test: [^\n]* -->\n```", text, re.M))


def test_a_command_that_does_not_exist_is_found(tmp_path: Path) -> None:
    """The checks themselves can fail."""
    (tmp_path / "Makefile").write_text("test:\n")
    for line in (
        "electra-dist trian a.yaml",
        "make tset",
        "pip install '.[gpu]'",
        "python nothing.py",
        "curl x",
    ):
        with pytest.raises((AssertionError, pytest.fail.Exception)):
            check_command(shlex.split(line), tmp_path, "here")


# --- links and generated pages --------------------------------------------------------------------


def anchors(path: Path) -> set[str]:
    """The anchors that GitHub makes of the headings of a page."""
    text = re.sub(r"^```.*?^```$", "", path.read_text(encoding="utf-8"), flags=re.M | re.S)
    headings = re.findall(r"^#+ +(.*)$", text, re.M)
    return {
        re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings
    }


@pytest.mark.parametrize("page", [*STORY, *OTHERS])
def test_every_link_of_the_page_leads_somewhere(page: str) -> None:
    text = re.sub(r"^```.*?^```$", "", (ROOT / page).read_text(encoding="utf-8"), flags=re.M | re.S)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"https?://|mailto:", target):
            continue
        name, _, anchor = target.partition("#")
        path = ((ROOT / page).parent / name).resolve() if name else ROOT / page
        assert path.exists(), f"{page}: {target} does not exist"
        assert path.is_relative_to(ROOT), f"{page}: {target} lies outside of the repository"
        assert not anchor or anchor in anchors(path), (
            f"{page}: {target}: no such heading; there are {anchors(path)}"
        )


def test_every_page_is_reached_from_the_readme() -> None:
    """The pages of tasks are reached from that on fine-tuning."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    text += (
        (ROOT / "docs/fine-tune.md").read_text(encoding="utf-8").replace("(tasks/", "(docs/tasks/")
    )
    assert [
        page for page in (*STORY, *OTHERS) if page != "README.md" and f"({page})" not in text
    ] == []


@pytest.mark.parametrize(
    "maker",
    [
        "make_configuration",
        "make_filters",
        "make_health",
        "make_metrics",
        "make_references",
        "make_rooms",
    ],
)
def test_what_is_made_from_the_code_is_up_to_date(maker: str) -> None:
    command = [sys.executable, f"docs/{maker}.py", "--check"]
    assert subprocess.run(command, cwd=ROOT, check=False).returncode == 0


def test_the_table_of_metrics_has_every_key_that_training_writes(story: Story) -> None:
    story.tell("docs/train.md")
    table = (ROOT / "docs/metrics.md").read_text(encoding="utf-8")
    documented = set(re.findall(r"^\| `([\w/]+)` \|", table, re.M))
    written = {key for row in RunDir(story.folder / "runs/my-run").read_metrics() for key in row}
    plain = {key for key in written if not key.startswith("validation/")}
    # those of full evaluations during training, which this run has none of
    # (tests/train/heldout/test_in_training.py)
    evaluated = {metric.name for metric in HEADLINES.values()}
    assert plain == documented - evaluated
    assert evaluated < documented
    assert {key.removeprefix("validation/") for key in written - plain} <= documented
