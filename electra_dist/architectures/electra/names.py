"""Names and layouts of Hugging Face `transformers`, as pure functions over state dictionaries.

Ours in, theirs out, for either network, and its `config.json`; and the way back, for a pair that is
evaluated without its run. What differs, apart from names: query, key
and value are one matrix here; the embeddings of `shared` and `disentangled` live with the generator
here, while each of their models has its own; their tied output matrix (`generator_lm_head.weight`)
is not written, because it is an alias of the word embeddings.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from electra_dist.architectures.electra.costs import TOKEN_TYPES
from electra_dist.architectures.names import State
from electra_dist.architectures.sizes import EncoderSizes, ModelSizes, Network, Sharing
from electra_dist.batch import SpecialTokens

#: Which class of `transformers` loads each network.
AUTO_CLASSES: dict[Network, str] = {
    "generator": "AutoModelForMaskedLM",
    "discriminator": "AutoModelForPreTraining",
}

#: Dropout in an exported config.json: what ELECTRA fine-tunes with, whatever pre-training used
#: (from_pretrained switches it off until the user trains).
FINE_TUNING_DROPOUT = 0.1

_TABLES = {
    "word": "electra.embeddings.word_embeddings",
    "position": "electra.embeddings.position_embeddings",
    "token_type": "electra.embeddings.token_type_embeddings",
}
_EMBEDDING_NORM = "electra.embeddings.LayerNorm"
_LAYER = {
    "attention_output": "attention.output.dense",
    "attention_norm": "attention.output.LayerNorm",
    "ffn_in": "intermediate.dense",
    "ffn_out": "output.dense",
    "ffn_norm": "output.LayerNorm",
}
_QKV = ("query", "key", "value")
#: What files of `transformers` may hold beside the parameters: the tied output matrix, and numbers
#: from 0 on.
_ALIASES = ("generator_lm_head.weight", "electra.embeddings.position_ids")
_HEADS: dict[Network, dict[str, str]] = {
    "generator": {
        "head.dense": "generator_predictions.dense",
        "head.norm": "generator_predictions.LayerNorm",
    },
    "discriminator": {
        "head.dense": "discriminator_predictions.dense",
        "head.prediction": "discriminator_predictions.dense_prediction",
    },
}


def _leaves(ours: str, theirs: str) -> dict[str, str]:
    return {f"{ours}.{leaf}": f"{theirs}.{leaf}" for leaf in ("weight", "bias")}


def _embedding_names(ours: str) -> dict[str, str]:
    tables = {f"{ours}.{table}.weight": f"{name}.weight" for table, name in _TABLES.items()}
    return tables | _leaves(f"{ours}.norm", _EMBEDDING_NORM)


def _plain_names(network: Network, layers: int) -> dict[str, str]:
    """Our name -> theirs for everything that is stored alike, embeddings left out."""
    names = _leaves("encoder.project", "electra.embeddings_project")
    for ours, theirs in _HEADS[network].items():
        names |= _leaves(ours, theirs)
    if network == "generator":
        names["output_bias"] = "generator_lm_head.bias"
    for i in range(layers):
        for ours, theirs in _LAYER.items():
            names |= _leaves(f"encoder.layers.{i}.{ours}", f"electra.encoder.layer.{i}.{theirs}")
    return names


def _count_layers(state: Mapping[str, Tensor], pattern: str) -> int:
    found = [int(match[1]) for match in (re.match(pattern, name) for name in state) if match]
    return max(found, default=-1) + 1


def _encoder_and_head_to(state: Mapping[str, Tensor], network: Network) -> State:
    layers = _count_layers(state, r"encoder\.layers\.(\d+)\.")
    out = {
        theirs: state[ours]
        for ours, theirs in _plain_names(network, layers).items()
        if ours in state
    }
    for i in range(layers):
        for leaf in ("weight", "bias"):
            parts = state[f"encoder.layers.{i}.query_key_value.{leaf}"].chunk(3)
            for name, part in zip(_QKV, parts, strict=True):
                out[f"electra.encoder.layer.{i}.attention.self.{name}.{leaf}"] = part.clone()
    return out


def generator_to_huggingface(state: Mapping[str, Tensor]) -> State:
    """The state of `ElectraForMaskedLM`, without the tied `generator_lm_head.weight`."""
    embeddings = {theirs: state[ours] for ours, theirs in _embedding_names("embeddings").items()}
    return embeddings | _encoder_and_head_to(state, "generator")


def discriminator_to_huggingface(
    state: Mapping[str, Tensor], generator: Mapping[str, Tensor], sharing: Sharing
) -> State:
    """The state of `ElectraForPreTraining`; `generator` supplies the embeddings unless `sharing` is
    `none`.

    disentangled: each table is the generator's plus the discriminator's delta, and the LayerNorm is
    its own.
    """
    if sharing == "disentangled":
        embeddings = {
            f"{theirs}.weight": generator[f"embeddings.{table}.weight"]
            + state[f"deltas.{table}.weight"]
            for table, theirs in _TABLES.items()
        }
        for ours, theirs in _leaves("deltas.norm", _EMBEDDING_NORM).items():
            embeddings[theirs] = state[ours]
    else:
        if sharing == "shared":
            owner = generator
        else:
            owner = state
        embeddings = {
            theirs: owner[ours] for ours, theirs in _embedding_names("embeddings").items()
        }
    return embeddings | _encoder_and_head_to(state, "discriminator")


def from_huggingface(state: Mapping[str, Tensor], network: Network) -> State:
    """Our parameters of a network that has its embeddings to itself (sharing `none`), from an
    exported state. A name that no network of ours has stays as it is.
    """
    layers = _count_layers(state, r"electra\.encoder\.layer\.(\d+)\.")
    names = _embedding_names("embeddings") | _plain_names(network, layers)
    ours_of = {theirs: ours for ours, theirs in names.items()}
    rest = {name: tensor for name, tensor in state.items() if name not in _ALIASES}
    out: State = {}
    for layer in range(layers):
        for leaf in ("weight", "bias"):
            attention = f"electra.encoder.layer.{layer}.attention.self"
            theirs = [f"{attention}.{name}.{leaf}" for name in _QKV]
            if all(name in rest for name in theirs):
                parts = [rest.pop(name) for name in theirs]
                out[f"encoder.layers.{layer}.query_key_value.{leaf}"] = torch.cat(parts)
    return out | {ours_of.get(name, name): tensor for name, tensor in rest.items()}


def with_positions(state: Mapping[str, Tensor], positions: int) -> State:
    """An exported state with the first `positions` positions alone."""
    table = f"{_TABLES['position']}.weight"
    return {**state, table: state[table][:positions]}


def hf_config(
    config: ModelSizes, vocab_size: int, network: Network, specials: SpecialTokens
) -> dict[str, Any]:
    """The `config.json` of `network`;
    transformers checks its types strictly, hence the conversions.
    """
    sizes: EncoderSizes = getattr(config, network)
    return {
        "architectures": [
            "ElectraForMaskedLM" if network == "generator" else "ElectraForPreTraining"
        ],
        "model_type": "electra",
        "vocab_size": int(vocab_size),
        "embedding_size": int(config.embedding_size),
        "hidden_size": int(sizes.hidden_size),
        "num_hidden_layers": int(sizes.layers),
        "num_attention_heads": int(sizes.heads),
        "intermediate_size": int(sizes.ffn_size),
        "hidden_act": "gelu",
        "hidden_dropout_prob": FINE_TUNING_DROPOUT,
        "attention_probs_dropout_prob": FINE_TUNING_DROPOUT,
        "max_position_embeddings": int(config.max_positions),
        "type_vocab_size": TOKEN_TYPES,
        "initializer_range": float(config.initializer_range),
        "layer_norm_eps": float(config.layer_norm_epsilon),
        "pad_token_id": int(specials.pad),
        "tie_word_embeddings": True,
        "dtype": "float32",
    }
