"""What run.json says of a run for readers without its data."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from electra_dist import config as configuration
from electra_dist.config import Config
from electra_dist.data.sources import RunData, open_data
from electra_dist.plan import plan_run, recognise
from electra_dist.runs.directory import RunDir
from electra_dist.runs.facts import About, RunFacts
from electra_dist.runs.opening.about import Machines, about_run
from electra_dist.runs.opening.start import record_start

H100 = "NVIDIA H100 80GB HBM3"


@pytest.fixture
def config(tiny_shards: Path) -> Config:
    return configuration.build(
        {
            "data": {"shards": str(tiny_shards), "row_length": 64},
            "model": {"preset": "tiny", "max_positions": 64},
            "train": {"steps": 10, "global_rows": 8, "micro_rows": 1},
            "optim": {"warmup_steps": 0},
        }
    )


@pytest.fixture
def data(config: Config) -> RunData:
    return open_data(config)


def test_networks_and_corpus_are_counted(config: Config, data: RunData) -> None:
    about = about_run(config, data, 1, Machines(1, "cpu"))
    assert about.parameters == about.generator_parameters + about.discriminator_parameters
    assert about.vocab_size == data.vocab_size
    counts = [int(count) for count in data.token_counts if count]
    entropy = -sum(n / sum(counts) * math.log(n / sum(counts)) for n in counts)
    assert about.unigram_entropy == pytest.approx(entropy)
    assert about.corpus_tokens == data.tokens
    assert about.promised_tokens_per_s is None


def test_the_plan_of_a_known_device_is_the_promise(config: Config, data: RunData) -> None:
    plan = plan_run(config, data.vocab_size, 2, 4, "h100", document_length=data.mean_document)
    about = about_run(config, data, 8, Machines(2, H100))
    assert about.promised_tokens_per_s == plan.configured.tokens_per_s
    assert about_run(config, data, 8, Machines(3, H100)).promised_tokens_per_s is None
    assert about_run(config, data, 8, Machines(0, H100)).promised_tokens_per_s is None


@pytest.mark.parametrize(
    ("called", "name"),
    [
        (H100, "h100"),
        ("NVIDIA H100 PCIe", "h100-pcie"),
        ("NVIDIA A100-SXM4-40GB", "a100-40gb"),
        ("NVIDIA A100-SXM4-80GB", "a100"),
        ("Tesla V100-SXM2-32GB", "v100"),
        ("NVIDIA L40S", "l40s"),
        ("AMD Instinct MI300X", "mi300x"),
        ("NVIDIA GeForce RTX 4090", None),
        ("a cpu of somebody", None),
    ],
)
def test_devices_are_known_by_the_names_of_their_drivers(called: str, name: str | None) -> None:
    found = recognise(called)
    assert (found and found.name) == name


def test_a_start_is_added_and_what_is_known_is_replaced(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    run.write_facts(RunFacts(wandb_id="a", dataset_fingerprint="f"))
    record_start(run, 2, 0, Machines(1, H100, "4711"), About(parameters=1))
    record_start(run, 4, 7, Machines(2, "cpu"), About(parameters=2))
    facts = run.read_facts()
    found = [(one.world_size, one.nodes, one.device, one.job_id, one.step) for one in facts.starts]
    assert found == [(2, 1, H100, "4711", 0), (4, 2, "cpu", "", 7)]
    assert facts.about == About(parameters=2)
    record_start(run, 4, 9)
    assert run.read_facts().about == About(parameters=2)
