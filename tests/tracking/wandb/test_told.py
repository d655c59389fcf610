"""What W&B is told of a run: all of it, and nothing of where it lies."""

from __future__ import annotations

import json
from typing import Any

import pytest

from electra_dist import config as configuration
from electra_dist.config import Config
from electra_dist.runs.facts import About, KeyChange, RunFacts, Start, Version
from electra_dist.tracking.wandb.told import told, without_places

CONFIG = {
    "run": {"dir": "/scratch/someone/runs", "name": "one"},
    "data": {"shards": "/data/corpora/wiki shards"},
    "model": {"preset": "tiny"},
    "train": {"steps": 100, "global_rows": 4, "micro_rows": 1},
    "optim": {"warmup_steps": 0},
    "tracking": {"on_event": ["/home/someone/bin/notify", "--key", "a-secret"]},
}


def resolved(**sections: Any) -> Config:
    return configuration.build(CONFIG | sections)


def facts() -> RunFacts:
    start = Start(
        world_size=16,
        time="2026-01-01T00:00:00Z",
        host="node-17.cluster",
        nodes=2,
        device="NVIDIA H100 80GB HBM3",
        job_id="4711",
        revision="0123abc-dirty",
        step=20,
        software=(Version("torch", "2.13.0"), Version("python", "3.11.7")),
    )
    about = About(
        parameters=7,
        generator_parameters=3,
        discriminator_parameters=4,
        vocab_size=300,
        tokenizer="t0",
        corpus_tokens=12345,
        unigram_entropy=5.5,
        promised_tokens_per_s=9e5,
    )
    return RunFacts(
        wandb_id="ab12",
        dataset_fingerprint="f00d",
        starts=(Start(world_size=8, host="node-16.cluster"), start),
        changes=(KeyChange(10, "data.shards", "/site/new/wiki", "/site/old/wiki"),),
        about=about,
    )


def test_every_key_of_the_configuration_is_told() -> None:
    config = resolved()
    content = told(config, facts())
    for section, keys in config.model_dump(mode="json").items():
        assert set(content[section]) == set(keys)
    assert content["optim"]["lr"] == config.optim.lr
    assert content["model"]["generator"]["layers"] == config.model.generator.layers


def test_machines_versions_and_data_are_told() -> None:
    content = told(resolved(), facts())
    assert content["machines"] == {
        "world_size": 16,
        "nodes": 2,
        "device": "NVIDIA H100 80GB HBM3",
        "slurm_job": "4711",
    }
    assert content["versions"] == {
        "torch": "2.13.0",
        "python": "3.11.7",
        "revision": "0123abc-dirty",
    }
    assert content["dataset"] == {
        "fingerprint": "f00d",
        "tokens": 12345,
        "vocab_size": 300,
        "tokenizer": "t0",
        "unigram_entropy": 5.5,
    }
    assert content["parameters"] == {"total": 7, "generator": 3, "discriminator": 4}
    assert content["promised_tokens_per_s"] == 9e5
    assert content["starts"] == 2


def test_no_path_no_host_and_no_argument_of_a_command_is_told() -> None:
    content = told(resolved(), facts())
    text = json.dumps(content)
    for word in ("/scratch", "/data/", "/home", "someone", "/site", "cluster", "a-secret"):
        assert word not in text
    assert content["run"] == {"dir": "runs", "name": "one"}
    assert content["data"]["shards"] == "wiki shards"
    assert content["tracking"]["on_event"] == ["notify", "..."]
    assert content["changes"] == [{"step": 10, "key": "data.shards", "old": "wiki", "new": "wiki"}]


def test_a_run_of_an_earlier_version_has_less_to_tell() -> None:
    content = told(resolved(), RunFacts(wandb_id="ab12", dataset_fingerprint="f00d"))
    assert content["dataset"] == {"fingerprint": "f00d"}
    assert content["starts"] == 0
    assert "machines" not in content


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("runs/one", "runs/one"),
        ("a fraction 1/2 of it", "a fraction 1/2 of it"),
        ("/a", "a"),
        ("~/runs/x", "x"),
        ("see /scratch/me/plan.txt, and /b/c", "see plan.txt, and c"),
        ("--out=/tmp/x y", "--out=x y"),
        ("s3://bucket/wiki", "s3://bucket/wiki"),
        ("https://me:pw@host.org/wiki?sig=1", "https://host.org/wiki"),
        ("file:///data/wiki", "wiki"),
    ],
)
def test_places_in_a_text(text: str, left: str) -> None:
    assert without_places(text) == left
