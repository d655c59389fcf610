"""Our networks and transformers' ElectraForMaskedLM and
ElectraForPreTraining are the same functions.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
import transformers
from safetensors.torch import save_file
from torch import Tensor

from electra_dist.architectures.electra.names import (
    discriminator_to_huggingface,
    generator_to_huggingface,
    hf_config,
)
from electra_dist.batch import SPECIAL_TOKENS
from electra_dist.config import ModelConfig
from electra_dist.model.discriminator import Discriminator
from electra_dist.model.generator import Generator
from electra_dist.model.inputs import ModelBatch, rows_of_documents, to_device
from electra_dist.model.networks import build_networks

TOLERANCE = 1e-5
VOCABULARY = 1009
LENGTH = 48


class Pair(NamedTuple):
    """Both networks of one size, ours and theirs, with the same random weights."""

    config: ModelConfig
    generator: Generator
    discriminator: Discriminator
    hf_generator: Any
    hf_discriminator: Any


def load_huggingface(
    config: ModelConfig, states: tuple[dict[str, Tensor], dict[str, Tensor]]
) -> tuple[Any, Any]:
    models = []
    for network, state in zip(("generator", "discriminator"), states, strict=True):
        settings = transformers.ElectraConfig(
            **hf_config(config, VOCABULARY, network, SPECIAL_TOKENS)
        )
        kind = (
            transformers.ElectraForMaskedLM
            if network == "generator"
            else transformers.ElectraForPreTraining
        )
        model = kind(settings).eval()
        result = model.load_state_dict(state, strict=False)
        assert not result.unexpected_keys
        assert set(result.missing_keys) <= {"generator_lm_head.weight"}
        model.tie_weights()
        models.append(model)
    return models[0], models[1]


def exported(
    generator: Generator, discriminator: Discriminator, sharing: Any
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The states of both networks as transformers names them."""
    ours = generator.state_dict()
    return generator_to_huggingface(ours), discriminator_to_huggingface(
        discriminator.state_dict(), ours, sharing
    )


def make_pair(make_config: Any, perturb: Any, preset: str, sharing: str) -> Pair:
    config = make_config(preset, embedding_sharing=sharing)
    generator, discriminator = build_networks(config, VOCABULARY, "cpu", seed=3)
    perturb(generator, 1)
    perturb(discriminator, 2)
    states = exported(generator, discriminator, sharing)
    return Pair(
        config.model,
        generator.eval(),
        discriminator.eval(),
        *load_huggingface(config.model, states),
    )


@pytest.fixture(scope="module", params=["tiny", "small", "base"])
def pair(request: pytest.FixtureRequest, make_config: Any, perturb: Any) -> Pair:
    return make_pair(make_config, perturb, request.param, "shared")


@torch.no_grad()
def our_states(pair: Pair, batch: ModelBatch) -> tuple[list[Tensor], list[Tensor], Tensor, Tensor]:
    """Hidden states of every layer of both networks, and the logits of both."""
    hidden: dict[str, list[Tensor]] = {"generator": [], "discriminator": []}
    hooks = []
    for name, network in (("generator", pair.generator), ("discriminator", pair.discriminator)):
        for layer in network.encoder.layers:
            hooks.append(
                layer.register_forward_hook(lambda _, __, out, name=name: hidden[name].append(out))
            )
    mlm_logits = pair.generator.logits(batch)
    shared = pair.generator.exchange(batch.tokens, batch.positions)
    rtd_logits = pair.discriminator(
        shared, batch, batch.tokens, torch.zeros(batch.tokens.shape)
    ).logits
    for hook in hooks:
        hook.remove()
    return hidden["generator"], hidden["discriminator"], mlm_logits, rtd_logits


@torch.no_grad()
def their_states(
    pair: Pair, tokens: Tensor, mask: Tensor | None
) -> tuple[list[Tensor], list[Tensor], Tensor, Tensor]:
    mlm = pair.hf_generator(input_ids=tokens, attention_mask=mask, output_hidden_states=True)
    rtd = pair.hf_discriminator(input_ids=tokens, attention_mask=mask, output_hidden_states=True)
    return list(mlm.hidden_states)[1:], list(rtd.hidden_states)[1:], mlm.logits, rtd.logits


def largest_difference(ours: Any, theirs: Any, real: Tensor) -> float:
    if isinstance(ours, list):
        assert len(ours) == len(theirs) > 0
        return max(largest_difference(a, b, real) for a, b in zip(ours, theirs, strict=True))
    assert ours.shape == theirs.shape
    return float((ours - theirs)[real].abs().max())


def assert_equal_functions(pair: Pair, lengths: list[int], make_documents: Any) -> None:
    batch = to_device(
        rows_of_documents([[d] for d in make_documents(lengths)], LENGTH, SPECIAL_TOKENS.pad), "cpu"
    )
    real = batch.documents >= 0
    mask = None if bool(real.all()) else real.long()
    for ours, theirs in zip(
        our_states(pair, batch), their_states(pair, batch.tokens, mask), strict=True
    ):
        assert largest_difference(ours, theirs, real) < TOLERANCE


@pytest.mark.parametrize(
    "lengths", [[LENGTH, LENGTH], [LENGTH, 17, 3]], ids=["full rows", "padding"]
)
def test_hidden_states_and_logits_equal_transformers(
    pair: Pair, lengths: list[int], make_documents: Any
) -> None:
    assert_equal_functions(pair, lengths, make_documents)


def test_packed_documents_equal_documents_alone_in_transformers(
    pair: Pair, make_documents: Any
) -> None:
    documents = make_documents([20, 3, 14, 31, 9])
    rows = [documents[:3], documents[3:]]
    batch = to_device(rows_of_documents(rows, LENGTH, SPECIAL_TOKENS.pad), "cpu")
    packed = our_states(pair, batch)
    where = [(b, row[:i]) for b, row in enumerate(rows) for i in range(len(row))]
    for document, (b, before) in zip(documents, where, strict=True):
        start = sum(map(len, before))
        tokens = torch.tensor([document])
        alone = their_states(pair, tokens, None)
        everywhere = torch.ones(tokens.shape, dtype=torch.bool)
        for ours, theirs in zip(packed, alone, strict=True):
            window = slice(start, start + len(document))
            cut = (
                [x[b : b + 1, window] for x in ours]
                if isinstance(ours, list)
                else ours[b : b + 1, window]
            )
            assert largest_difference(cut, theirs, everywhere) < TOLERANCE


@pytest.mark.parametrize("sharing", ["disentangled", "none"])
def test_other_sharings_equal_transformers(
    sharing: str, make_config: Any, perturb: Any, make_documents: Any
) -> None:
    pair = make_pair(make_config, perturb, "tiny", sharing)
    words = pair.hf_discriminator.electra.embeddings.word_embeddings.weight
    assert not torch.equal(words, pair.hf_generator.electra.embeddings.word_embeddings.weight)
    assert_equal_functions(pair, [LENGTH, 17], make_documents)


def test_a_saved_export_loads_with_the_auto_classes(
    make_config: Any, perturb: Any, tmp_path: Path
) -> None:
    pair = make_pair(make_config, perturb, "tiny", "shared")
    states = exported(pair.generator, pair.discriminator, "shared")
    tokens = torch.randint(5, VOCABULARY, (1, 9), generator=torch.Generator().manual_seed(0))
    kinds = (transformers.AutoModelForMaskedLM, transformers.AutoModelForPreTraining)
    references = (pair.hf_generator, pair.hf_discriminator)
    networks = ("generator", "discriminator")
    for network, state, kind, reference in zip(networks, states, kinds, references, strict=True):
        folder = tmp_path / network
        folder.mkdir()
        save_file(
            {k: v.contiguous() for k, v in state.items()},
            folder / "model.safetensors",
            {"format": "pt"},
        )
        (folder / "config.json").write_text(
            json.dumps(hf_config(pair.config, VOCABULARY, network, SPECIAL_TOKENS))
        )
        loaded, report = kind.from_pretrained(folder, output_loading_info=True)
        assert not report["missing_keys"]
        assert not report["unexpected_keys"]
        with torch.no_grad():
            assert torch.equal(loaded(tokens).logits, reference(tokens).logits)
