"""Learning rates by layer, against the paper's formula written out for a real model."""

from __future__ import annotations

from dataclasses import replace

import pytest
import transformers

from electra_dist.finetune.recipe import default_recipe, parameter_groups


def test_every_parameter_learns_once_at_the_rate_of_its_depth() -> None:
    config = transformers.ElectraConfig(
        vocab_size=50,
        embedding_size=8,
        hidden_size=16,
        num_hidden_layers=3,
        num_attention_heads=2,
        intermediate_size=16,
    )
    model = transformers.ElectraForSequenceClassification(config)
    recipe = replace(default_recipe(16, 3, 128), lr=1.0, layer_decay=0.5)
    groups = parameter_groups(model.named_parameters(), 3, recipe)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    found = {names[id(p)]: (g["lr"], g["weight_decay"]) for g in groups for p in g["params"]}  # type: ignore[attr-defined]
    assert len(found) == sum(len(g["params"]) for g in groups) == len(names)  # type: ignore[arg-type]
    assert found["classifier.dense.weight"] == (1.0, 0.01)
    assert found["classifier.out_proj.bias"] == (1.0, 0.0)
    assert found["electra.encoder.layer.2.attention.self.query.weight"] == (0.5, 0.01)
    assert found["electra.encoder.layer.0.output.LayerNorm.weight"] == (0.125, 0.0)
    assert found["electra.embeddings.word_embeddings.weight"] == (0.0625, 0.01)
    assert found["electra.embeddings_project.weight"] == (0.0625, 0.01)


def test_a_parameter_without_a_depth_is_refused() -> None:
    from torch import nn, zeros

    with pytest.raises(ValueError, match=r"electra\.new"):
        parameter_groups(
            [("electra.new.weight", nn.Parameter(zeros(1)))], 3, default_recipe(256, 3, 128)
        )


def test_the_published_numbers() -> None:
    small, large, answers = (
        default_recipe(256, 3, 128),
        default_recipe(1024, 3, 128),
        default_recipe(768, 2, 512),
    )
    assert (small.lr, small.layer_decay, small.epochs, small.batch, small.warmup) == (
        1e-4,
        0.8,
        3,
        32,
        0.1,
    )
    assert (large.lr, large.layer_decay) == (5e-5, 0.9)
    assert (answers.epochs, answers.max_length, answers.stride, answers.lr) == (2, 512, 128, 1e-4)
    assert default_recipe(256, 3, 64).stride == 16
