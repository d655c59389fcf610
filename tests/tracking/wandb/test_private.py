"""What leaves the machine names neither its host nor a place on it, offline and online."""

from __future__ import annotations

import json
import re
import socket
from pathlib import Path

import pytest
import yaml

from electra_dist.runs.directory import RunDir
from electra_dist.runs.facts import About, Start
from electra_dist.tracking import sinks
from electra_dist.tracking.sinks import Tracker
from tests.support.offline import exits, files, opened, records
from tests.support.wandb_runs import write_rows, write_samples
from tests.support.wandb_server import WandbServer


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine is no reason to give W&B up."""
    monkeypatch.setattr(sinks, "LEAVE_SECONDS", 400.0)


@pytest.fixture
def told_run(new_run: RunDir) -> RunDir:
    """A run whose configuration and run.json name this machine and places on it."""
    content = yaml.safe_load(new_run.config.read_text())
    content["run"] = {"dir": str(new_run.path.parent), "name": new_run.path.name}
    content["data"]["shards"] = str(Path.home() / "shards" / "wiki")
    content["tracking"] |= {
        "group": "a-sweep",
        "job_type": "trial",
        "notes": f"as in {Path.home()}/plan.txt",
        "on_event": [str(Path.home() / "notify"), "--key=secret"],
    }
    new_run.config.write_text(yaml.safe_dump(content))
    start = Start(world_size=4, host=socket.gethostname(), nodes=2, device="cpu", job_id="4711")
    new_run.update_facts(
        lambda facts: facts.with_about(About(parameters=12, corpus_tokens=99)).with_start(start, 0)
    )
    write_rows(new_run, 1, 2, 3)
    write_samples(new_run, 2)
    return new_run


def places_in(text: str, run: RunDir) -> list[str]:
    """The names of this machine and of places on it that stand in a text."""
    words = (
        rf"\b{re.escape(socket.gethostname())}\b",
        re.escape(str(run.path)),
        re.escape(str(run.path.parent)),
        re.escape(str(Path.home()) + "/"),
        "secret",
    )
    return [found for word in words for found in re.findall(word, text)]


def test_offline_files_hold_the_whole_configuration_and_no_place(told_run: RunDir) -> None:
    said: list[str] = []
    Tracker(told_run, "offline", said.append).close(finished=False)
    assert said == []
    (path,) = files(told_run)
    content = "\n".join(map(str, records(path)))
    sent = [entry for entry in (path.parent / "files").rglob("*") if entry.is_file()]
    assert {entry.name for entry in sent} >= {"requirements.txt"}
    for text in (content, *(entry.read_text() for entry in sent)):
        assert places_in(text, told_run) == []
    first = opened(told_run)[0]
    config = {item.key: json.loads(item.value_json) for item in first.config.update}
    assert config["data"]["shards"] == "wiki"
    assert config["machines"] == {
        "world_size": 4,
        "nodes": 2,
        "device": "cpu",
        "slurm_job": "4711",
    }
    assert config["parameters"]["total"] == 12
    assert config["dataset"]["tokens"] == 99
    assert (first.run_group, first.job_type, first.notes) == ("a-sweep", "trial", "as in plan.txt")
    assert first.host == ""
    # an interruption is no success: W&B calls what was marked so, and exits so, preempted
    assert exits(told_run) == [75]
    assert any(record.HasField("preempting") for record in records(path))


def test_the_server_is_told_no_place_and_that_an_interruption_is_no_success(
    told_run: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    with WandbServer() as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        said: list[str] = []
        Tracker(told_run, "online", said.append).close(finished=False)
        assert said == []
        bodies = [body.decode(errors="replace") for body in server.bodies]
        assert not [place for body in bodies for place in places_in(body, told_run)]
        run = server.runs["abcd1234"]
        config = json.loads(run.config)
        assert config["optim"]["value"]["warmup_steps"] == 0
        assert config["machines"]["value"]["slurm_job"] == "4711"
        assert (run.group, run.job_type, run.notes) == ("a-sweep", "trial", "as in plan.txt")
        assert run.preempting
        assert run.exit_code == 75
        assert sum(name.startswith("media/table/samples_") for name in run.files) == 1
        summary = json.loads(run.summary)
        assert summary["loss/generator"] == {"min": 4, "last": 4}
