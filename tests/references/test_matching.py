"""A run is compared with a reference that was to learn the same from the same text."""

from __future__ import annotations

from dataclasses import replace

import pytest

from electra_dist.config import apply_overrides, build, parse_yaml
from electra_dist.references import load_reference, matching
from electra_dist.runs.facts import About, RunFacts

REFERENCE = load_reference("quick")
FACTS = RunFacts(
    wandb_id="w", dataset_fingerprint=REFERENCE.dataset, about=About(tokenizer=REFERENCE.tokenizer)
)
#: How and where a run computes.
SAME = [
    "run.name=another",
    "data.shards=elsewhere",
    "data.streams=4",
    "data.prefetch_steps=4",
    "model.vocab_size=8192",
    "model.attention=sdpa",
    "train.seed=77",
    "train.micro_rows=4",
    "train.activation_checkpointing=true",
    "optim.generator.lr=1e-3",
    "zero.stage=3",
    "checkpoint.every=10",
    "tracking.every=5",
    "validation.rows=64",
]
#: What it is to learn, and from what.
OTHER = [
    "data.row_length=64",
    "data.mask_fraction=0.2",
    "data.mask_token_fraction=1.0",
    "data.max_documents_per_row=2",
    "model.embedding_sharing=none",
    "model.generator.layers=2",
    "model.discriminator.hidden_size=64",
    "model.temperature=2.0",
    "model.initializer_range=0.02",
    "model.dropout=0.1",
    "model.generator_bias=zeros",
    "train.global_rows=32",
    "train.steps=2000",
    "train.discriminator_weight=20",
    "optim.lr=2e-3",
    "optim.discriminator.lr=2e-3",
    "optim.weight_decay=0.1",
    "optim.schedule=cosine",
    "optim.warmup_steps=0",
    "optim.clip_norm=0",
]


@pytest.mark.parametrize("word", SAME)
def test_where_a_run_computes_does_not_matter(word: str) -> None:
    assert found(word, FACTS) == "quick"


@pytest.mark.parametrize("word", OTHER)
def test_a_run_that_learns_something_else_has_no_reference(word: str) -> None:
    assert found(word, FACTS) is None


def test_precision_does_not_matter() -> None:
    tree = apply_overrides(parse_yaml(REFERENCE.recipe, "recipe"), ["zero.stage=1"])
    config = build(apply_overrides(tree, ["precision.mode=bf16"]))
    reference = matching(config, FACTS)
    assert reference is not None
    assert reference.name == "quick"


def test_another_text_has_no_reference() -> None:
    assert found("train.seed=1", replace(FACTS, dataset_fingerprint="0" * 64)) is None
    assert found("train.seed=1", replace(FACTS, about=About(tokenizer="0" * 64))) is None


def test_a_run_of_an_earlier_version_is_known_by_its_dataset() -> None:
    assert found("train.seed=1", replace(FACTS, about=None)) == "quick"
    assert found("train.seed=1", replace(FACTS, about=About())) == "quick"


def found(word: str, facts: RunFacts) -> str | None:
    """The name of the reference of the recipe with a changed key."""
    config = build(apply_overrides(parse_yaml(REFERENCE.recipe, "recipe"), [word]))
    reference = matching(config, facts)
    if reference is None:
        return None
    return reference.name
