"""Training longer, changing what comes, going back and branching:
recorded, done once, and nothing is lost.
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from electra_dist import config as configuration
from electra_dist.config import Config
from electra_dist.data.shards.manifest import Manifest
from electra_dist.data.sources import RunData
from electra_dist.errors import CheckpointError, ConfigError, UserError
from electra_dist.runs import lock
from electra_dist.runs.checkpoints import manifest as checkpoint_manifest
from electra_dist.runs.checkpoints import members
from electra_dist.runs.checkpoints.manifest import CheckpointManifest
from electra_dist.runs.directory import RunDir
from electra_dist.runs.opening.changes import kind_of, learning_rate
from electra_dist.runs.opening.going_on import PLAIN, GoingOn
from electra_dist.runs.opening.start import check_run, open_run, record_start
from tests.support.killing import killed_at
from tests.support.processes import run_ranks


@pytest.fixture(scope="module")
def shards(tiny_shards: Path) -> RunData:
    return RunData.alone(Manifest.load(tiny_shards))


def config_at(path: Path, shards: RunData, *overrides: str) -> Config:
    tree = {
        "run": {"dir": str(path.parent), "name": path.name},
        "data": {"shards": str(shards.first.path), "row_length": 64, "streams": 4},
        "model": {"preset": "tiny"},
        "train": {"steps": 100, "global_rows": 8, "micro_rows": 2},
        "optim": {"lr": 1e-3, "warmup_steps": 10},
    }
    return configuration.build(configuration.apply_overrides(tree, overrides))


class Runs:
    """A folder of runs that have trained on paper:
    checkpoints of no networks, rows of nothing but steps.
    """

    def __init__(self, folder: Path, shards: RunData) -> None:
        self.folder, self.shards = folder, shards
        self.said: list[str] = []

    def run(self, name: str) -> RunDir:
        return RunDir(self.folder / name)

    def go(self, name: str, *overrides: str, how: GoingOn = PLAIN) -> RunDir:
        """A start as rank 0 makes it, up to where the ranks begin."""
        run, config = self.run(name), config_at(self.folder / name, self.shards, *overrides)
        self.said = []
        check_run(run, config, self.shards.fingerprint, how)
        with lock.hold(run):
            open_run(config, self.shards, self.said.append, self.said.append, how)
            record_start(run, 1, max(run.complete_checkpoints(), default=0))
        return run

    def train(
        self, name: str, *overrides: str, steps: tuple[int, ...] = (20, 40, 60), unhealthy: int = -1
    ) -> RunDir:
        """Start, and save at these steps."""
        run = self.go(name, *overrides)
        with run.metrics.open("a") as rows:
            for step in range(0, steps[-1] + 1, 10):
                rows.write(json.dumps({"step": step, "loss/generator": 1 / (step + 1)}) + "\n")
        for step in steps:
            save(run, step, healthy=step != unhealthy)
        return run


def save(run: RunDir, step: int, healthy: bool = True) -> None:
    folder = run.checkpoint(step)
    folder.mkdir(parents=True)
    texts = {name: (run.path / name).read_text() for name in checkpoint_manifest.CARRIED}
    texts |= {checkpoint_manifest.TRAINER: json.dumps({"step": step}), "weights": str(step) * 1000}
    files = {name: members.write_text(folder / name, text) for name, text in texts.items()}
    content = CheckpointManifest(
        version=2, step=step, world_size=1, healthy=healthy, files=files, networks={}
    )
    members.finish(folder, content)


@pytest.fixture
def runs(tmp_path: Path, shards: RunData) -> Runs:
    return Runs(tmp_path / "runs", shards)


def tree_of(path: Path) -> dict[str, bytes]:
    """Every file below `path` but the lock's."""
    return {
        str(file.relative_to(path)): file.read_bytes()
        for file in path.rglob("*")
        if file.is_file() and file.parent.name != "lock"
    }


# --- which keys -----------------------------------------------------------------------------------


def test_every_key_is_free_or_of_the_future_or_of_the_past(runs: Runs) -> None:
    kinds = {
        "zero.stage": "free",
        "zero.communication_data_type": "future",
        "train.micro_rows": "free",
        "train.steps": "future",
        "optim.generator.lr": "future",
        "model.temperature": "future",
        "train.seed": "past",
        "data.row_length": "past",
        "data.streams": "past",
        "train.global_rows": "past",
        "model.discriminator.layers": "past",
        "model.vocab_size": "past",
    }
    assert {key: kind_of(key) for key in kinds} == kinds


def test_the_rates_of_the_next_step_are_told_of_both_networks_where_they_differ(runs: Runs) -> None:
    old = config_at(runs.folder / "a", runs.shards)
    new = config_at(runs.folder / "a", runs.shards, "train.steps=200", "optim.generator.lr=2e-3")
    assert learning_rate(old, old, 55) == "learning rate of step 56: 0.0005 -> 0.0005"
    assert learning_rate(old, new, 55) == (
        "learning rate of step 56: generator 0.0005 -> 0.00153, discriminator 0.0005 -> 0.000763"
    )


# --- changing what comes --------------------------------------------------------------------------


def test_a_change_of_the_future_needs_a_word_and_is_recorded_once(runs: Runs) -> None:
    run = runs.train("one")
    before = tree_of(run.path)
    with pytest.raises(ConfigError) as refused:
        runs.go("one", "optim.lr=2e-3", "train.steps=200")
    said = str(refused.value)
    for words in (
        "train.steps: 100 -> 200",
        "optim.lr: 0.001 -> 0.002",
        "step 60",
        "`from_here`",
        "`from_step` N",
    ):
        assert words in said
    for words in (
        "(whole are: 20, 40, 60)",
        "`branch` NEWNAME",
        "learning rate of step 61: 0.000444 -> 0.00147",
    ):
        assert words in said
    assert "\n" not in said
    assert tree_of(run.path) == before
    for _ in range(2):  # the second time it is no change any more
        runs.go("one", "optim.lr=2e-3", "train.steps=200", how=GoingOn(from_here=True))
    recorded = run.read_facts().changes
    assert [(entry.step, entry.key, entry.old, entry.new) for entry in recorded] == [
        (60, "train.steps", 100, 200),
        (60, "optim.lr", 0.001, 0.002),
    ]
    assert configuration.load(run.config).optim.lr == 2e-3
    runs.go("one", "optim.lr=2e-3", "train.steps=200")  # a requeued job knows no flag


def test_a_change_of_the_past_is_refused_whatever_is_said(runs: Runs) -> None:
    runs.train("one")
    for how in (PLAIN, GoingOn(from_here=True), GoingOn(from_step=20)):
        with pytest.raises(ConfigError, match=r"train\.seed: 1234 -> 7.*set run\.name"):
            runs.go("one", "train.seed=7", how=how)


def test_a_run_cannot_end_before_the_step_it_is_at(runs: Runs) -> None:
    run = runs.train("one")
    with pytest.raises(
        ConfigError,
        match=r"is at step 60 already; give at least 60, or go back"
        r" first",
    ):
        runs.go("one", "train.steps=50", how=GoingOn(from_here=True))
    runs.go("one", "train.steps=50", how=GoingOn(from_step=40))
    assert run.complete_checkpoints() == [20, 40]


def test_a_longer_wsd_run_is_told_where_its_decay_began(runs: Runs) -> None:
    wsd = ("optim.schedule=wsd", "optim.decay_steps=50")
    run = runs.train("one", *wsd, steps=(20, 40, 60, 100))
    with pytest.raises(ConfigError) as refused:
        runs.go("one", *wsd, "train.steps=200")
    assert "The decay of schedule wsd began after step 50" in str(refused.value)
    assert "(`from_step` 40)" in str(refused.value)
    for step in (20, 40):
        shutil.rmtree(run.checkpoint(step))
    with pytest.raises(
        ConfigError, match=r"no checkpoint from before it is left.*milestones_every"
    ):
        runs.go("one", *wsd, "train.steps=200")


def test_a_lost_configuration_comes_back_with_what_was_changed_since(runs: Runs) -> None:
    run = runs.train("one")
    runs.go("one", "optim.lr=2e-3", "train.steps=200", how=GoingOn(from_here=True))
    run.config.unlink()
    runs.go("one", "optim.lr=2e-3", "train.steps=200")
    assert len(run.read_facts().changes) == 2


# --- going back -----------------------------------------------------------------------------------


def test_going_back_sets_aside_what_came_later_and_is_done_once(runs: Runs) -> None:
    run = runs.train("one")
    rows = run.metrics.read_text()
    how = GoingOn(from_step=20)
    runs.go("one", "optim.lr=2e-3", how=how)
    assert run.complete_checkpoints() == [20]
    aside = sorted(path.name.partition(".set-aside-")[0] for path in run.checkpoints.iterdir())
    assert aside == ["step-00000020", "step-00000040", "step-00000060"]
    kept, tail = run.metrics.read_text(), (run.path / "metrics.after-step-20.0.jsonl").read_text()
    assert kept + tail == rows
    assert kept.count("\n") == 3
    facts = run.read_facts()
    assert [(entry.from_step, entry.to_step, entry.done) for entry in facts.went_back] == [
        (60, 20, True)
    ]
    assert [(entry.step, entry.key) for entry in facts.changes] == [(20, "optim.lr")]
    save(run, 40)
    runs.go("one", "optim.lr=2e-3", how=how)  # the same command again, or a requeue of the job
    assert run.complete_checkpoints() == [20, 40]
    assert any("already, and goes on; add --again" in line for line in runs.said)
    runs.go("one", "optim.lr=2e-3", how=replace(how, again=True))
    assert run.complete_checkpoints() == [20]
    save(run, 40)
    runs.go("one", "optim.lr=1e-4", how=how)  # another rate makes it another request
    assert run.complete_checkpoints() == [20]
    assert [entry.to_step for entry in run.read_facts().went_back] == [20, 20, 20]


def test_going_back_to_what_is_not_there_or_not_whole_touches_nothing(runs: Runs) -> None:
    run = runs.train("one")
    before = tree_of(run.path)
    with pytest.raises(
        CheckpointError,
        match=r"`from_step` 30: .* no checkpoint of this step"
        r" \(whole are: 20, 40, 60",
    ):
        runs.go("one", how=GoingOn(from_step=30))
    with pytest.raises(CheckpointError, match="saved nothing yet"):
        runs.go("two", how=GoingOn(from_step=30))
    assert not runs.run("two").path.exists()
    assert tree_of(run.path) == before
    weights = run.checkpoint(20) / "weights"
    weights.write_text(weights.read_text().replace("2", "3", 1))
    with pytest.raises(CheckpointError, match="weights is damaged"):
        runs.go("one", how=GoingOn(from_step=20))
    assert run.complete_checkpoints() == [20, 40, 60]


def test_a_change_that_is_gone_back_behind_holds_from_there(runs: Runs) -> None:
    run = runs.train("one")
    runs.go("one", "optim.lr=2e-3", how=GoingOn(from_here=True))
    runs.go("one", "optim.lr=2e-3", how=GoingOn(from_step=40))
    assert [entry.step for entry in run.read_facts().changes] == [40]


# --- a kill on the way ----------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["going back", "branch"])
def test_a_kill_on_the_way_is_made_good_by_the_same_command(runs: Runs, what: str) -> None:
    runs.train("one")
    shutil.copytree(runs.folder, runs.folder.parent / "kept")
    ends = set()
    for event in range(1000):
        shutil.rmtree(runs.folder)
        shutil.copytree(runs.folder.parent / "kept", runs.folder)
        if what == "branch":
            name, how = "two", GoingOn(branch_of=runs.folder / "one", from_step=40)
        else:
            name, how = "one", GoingOn(from_step=40)

        def act(name: str = name, how: GoingOn = how) -> RunDir:
            return runs.go(name, "optim.lr=2e-3", how=how)

        killed = killed_at(event, runs.folder / name, act, spare=runs.folder / name / "lock")
        run = act()
        facts = run.read_facts()
        changed = [(entry.step, entry.key, entry.new) for entry in facts.changes]
        last = run.metrics.read_text().splitlines()[-1]
        ends.add(
            (
                tuple(run.complete_checkpoints()),
                tuple(changed),
                last,
                configuration.load(run.config).optim.lr,
            )
        )
        if not killed:
            break
    assert event > 8
    steps = (20, 40) if what == "going back" else (40,)
    assert ends == {
        (
            steps,
            ((40, "optim.lr", 0.002),),
            json.dumps({"step": 40, "loss/generator": 1 / 41}),
            2e-3,
        )
    }


# --- branches -------------------------------------------------------------------------------------


def test_a_branch_stands_where_its_parent_stood_and_the_parent_is_not_touched(runs: Runs) -> None:
    parent = runs.train("one")
    before = tree_of(parent.path)
    how = GoingOn(branch_of=parent.path, from_step=40)
    with lock.hold(parent):  # it may be training
        branch = runs.go("two", "optim.lr=2e-3", how=how)
    assert tree_of(parent.path) == before
    assert branch.complete_checkpoints() == [40]
    assert [row["step"] for row in branch.read_metrics()] == [0, 10, 20, 30, 40]
    weights = branch.checkpoint(40) / "weights"
    assert weights.samefile(parent.checkpoint(40) / "weights")
    facts, own = branch.read_facts(), parent.read_facts()
    assert facts.name == "two"
    assert facts.wandb_id != own.wandb_id
    origin = facts.branched_from
    assert origin is not None
    assert (origin.name, origin.step, origin.wandb_id) == ("one", 40, own.wandb_id)
    assert [(entry.step, entry.key) for entry in facts.changes] == [(40, "optim.lr")]
    shutil.rmtree(parent.path)  # gone, and nothing is missed
    runs.go("two", "optim.lr=2e-3", how=how)
    runs.go("two", "optim.lr=2e-3")
    branch.facts.unlink()
    runs.go("two", "optim.lr=2e-3")
    assert branch.read_facts().wandb_id == facts.wandb_id


def test_a_branch_takes_the_newest_that_is_healthy_and_whole(runs: Runs) -> None:
    parent = runs.train("one", unhealthy=60)
    weights = parent.checkpoint(40) / "weights"
    weights.write_text("0" * weights.stat().st_size)
    branch = runs.go("two", how=GoingOn(branch_of=parent.path))
    assert branch.complete_checkpoints() == [20]
    assert any("warning: " in line and "weights is damaged" in line for line in runs.said)


def test_a_branch_works_where_files_cannot_be_linked(
    runs: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    parent = runs.train("one")
    link = os.link

    def refused(source: Path, target: Path, **options: Any) -> None:
        if Path(source).name == "weights":
            raise OSError(18, "Invalid cross-device link")
        link(source, target, **options)

    monkeypatch.setattr(os, "link", refused)
    branch = runs.go("two", how=GoingOn(branch_of=parent.path))
    copy, original = branch.checkpoint(60) / "weights", parent.checkpoint(60) / "weights"
    assert not copy.samefile(original)
    assert copy.read_bytes() == original.read_bytes()


def test_what_cannot_be_a_branch_says_why_and_leaves_nothing(runs: Runs) -> None:
    parent = runs.train("one")
    runs.train("other")
    branched = GoingOn(branch_of=parent.path)
    for name, overrides, how, words in (
        ("two", ("train.seed=7",), branched, r"train\.seed: 1234 -> 7"),
        ("two", ("train.steps=50",), branched, "is of step 60; give more steps, or an older one"),
        (
            "two",
            (),
            replace(branched, from_step=30),
            r"no whole checkpoint of this step \(whole"
            r" are: 20, 40, 60\)",
        ),
        ("two", (), GoingOn(branch_of=runs.folder / "none"), "is no run to start from"),
        ("other", (), branched, "exists already and is no branch"),
    ):
        with pytest.raises((ConfigError, CheckpointError), match=words):
            runs.go(name, *overrides, how=how)
    assert not runs.run("two").path.exists()
    runs.go("two", how=replace(branched, from_step=40))
    with pytest.raises(ConfigError, match="started from step 40; give another name"):
        runs.go("two", how=replace(branched, from_step=20))


def test_a_link_in_a_checkpoint_is_not_followed(runs: Runs, tmp_path: Path) -> None:
    parent = runs.train("one", steps=(20,))
    secret = tmp_path / "key"
    secret.write_text("20" * 1000)
    weights = parent.checkpoint(20) / "weights"
    weights.unlink()
    weights.symlink_to(secret)
    with pytest.raises(UserError, match="weights is a link"):
        runs.go("two", how=GoingOn(branch_of=parent.path))
    assert not list(runs.run("two").path.rglob("weights"))


# --- real training --------------------------------------------------------------------------------


def train_in_turn(
    world: Any, folder: str, shards: str, starts: list[dict[str, Any]]
) -> list[list[dict[str, Any]]]:
    """Several starts of `train` in one process; the rows of each run after each of them."""
    from electra_dist.train.faults import Interruption
    from electra_dist.train.run import _hold_run, _watchdog

    found = []
    for start in starts:
        name = start["name"]
        tree = {
            "run": {"dir": folder, "name": name},
            "data": {"shards": shards, "row_length": 64, "streams": 4},
            "model": {
                "embedding_size": 32,
                "generator": {"layers": 1, "hidden_size": 16, "heads": 1, "ffn_size": 32},
                "discriminator": {"layers": 1, "hidden_size": 32, "heads": 2, "ffn_size": 64},
                "max_positions": 64,
            },
            "train": {"steps": 4, "global_rows": 4, "micro_rows": 4, "device": "cpu"},
            "optim": {"lr": 1e-3, "warmup_steps": 0, "schedule": "wsd", "decay_steps": 2},
            "zero": {"stage": 0},
            "precision": {"mode": "fp32"},
            "checkpoint": {"every": 2, "asynchronous": False},
            "validation": {"every": 0, "rows": 4},
            "tracking": {"every": 2, "wandb": "disabled"},
        }
        config = configuration.build(
            configuration.apply_overrides(tree, start.get("overrides", []))
        )
        how = GoingOn(
            **{k: Path(v) if k == "branch_of" else v for k, v in start.get("how", {}).items()}
        )
        with Interruption() as interruption, _watchdog(config, world, None, {}) as watchdog:
            _hold_run(config, world, interruption, watchdog, {}, how, None)
        rows = RunDir(Path(folder) / name).read_metrics()
        found.append(
            [
                {k: v for k, v in row.items() if not k.startswith(("speed/", "memory/"))}
                for row in rows
            ]
        )
    return found


def test_a_run_is_gone_back_on_made_longer_and_branched(tmp_path: Path, tiny_shards: Path) -> None:
    folder = tmp_path / "runs"
    longer = ["train.steps=6"]
    starts = [
        {"name": "one"},
        {"name": "one", "how": {"from_step": 2}},
        {"name": "one", "overrides": longer, "how": {"from_here": True}},
        {
            "name": "two",
            "overrides": longer,
            "how": {"branch_of": str(folder / "one"), "from_step": 2},
        },
        {"name": "straight", "overrides": longer},
        {"name": "one", "overrides": longer},
    ]
    (results,) = run_ranks(
        train_in_turn, 1, timeout=500, folder=str(folder), shards=str(tiny_shards), starts=starts
    )
    first, again, extended, branch, straight, finished = (
        [row for row in rows if "loss/generator" in row] for rows in results
    )
    assert [row["step"] for row in first] == [2, 4]
    assert again == first
    assert extended[:2] == first
    assert [row["step"] for row in extended] == [2, 4, 6]
    # it decayed to its end
    assert first[0]["optim/lr"] == extended[0]["optim/lr"] > first[1]["optim/lr"]
    assert straight[1]["optim/lr"] == straight[0]["optim/lr"]
    assert branch == straight  # from before the decay: no trace of the shorter plan
    assert finished == extended
    facts = RunDir(folder / "one").read_facts()
    assert len(facts.starts) == 3  # the last one found it finished
    assert [(entry.step, entry.key) for entry in facts.changes] == [(4, "train.steps")]
