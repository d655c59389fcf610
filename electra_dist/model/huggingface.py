"""Names and layouts of Hugging Face `transformers`, both directions, as pure functions over state
dictionaries.

Ours in, theirs out (`to_huggingface`), theirs in, ours out (`from_huggingface`), and the
`config.json` of either network. Needs no transformers. What differs, apart from names: query, key
and value are one matrix here; the embeddings of `shared` and `disentangled` live with the generator
here, while each of their models has its own; their tied output matrix (`generator_lm_head.weight`)
is not written, because it is an alias of the word embeddings.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor

from electra_dist.batch import SPECIAL_TOKENS
from electra_dist.config import ModelConfig, Network, NetworkConfig
from electra_dist.errors import UserError
from electra_dist.model.embeddings import TOKEN_TYPES

State = dict[str, Tensor]
Sharing = Literal["shared", "disentangled", "none"]

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
#: Theirs that hold nothing of ours: buffers of older versions, the alias of the word embeddings.
_IGNORED = (
    "electra.embeddings.position_ids",
    "electra.embeddings.token_type_ids",
    "generator_lm_head.weight",
)


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


def _encoder_and_head_from(state: Mapping[str, Tensor], network: Network) -> State:
    layers = _count_layers(state, r"electra\.encoder\.layer\.(\d+)\.")
    out = {
        ours: state[theirs]
        for ours, theirs in _plain_names(network, layers).items()
        if theirs in state
    }
    for i in range(layers):
        for leaf in ("weight", "bias"):
            parts = [
                state[f"electra.encoder.layer.{i}.attention.self.{name}.{leaf}"] for name in _QKV
            ]
            out[f"encoder.layers.{i}.query_key_value.{leaf}"] = torch.cat(parts)
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


def to_huggingface(
    generator: Mapping[str, Tensor], discriminator: Mapping[str, Tensor], sharing: Sharing
) -> tuple[State, State]:
    """Our two states -> the states of `ElectraForMaskedLM` and `ElectraForPreTraining`."""
    return generator_to_huggingface(generator), discriminator_to_huggingface(
        discriminator, generator, sharing
    )


def _check_names(state: Mapping[str, Tensor], network: Network) -> None:
    """Raise `UserError` unless `state` is one ELECTRA network under their names,
    with its output matrix tied.
    """
    layers = _count_layers(state, r"electra\.encoder\.layer\.(\d+)\.")
    expected = set(_plain_names(network, layers).values()) | set(_embedding_names("").values())
    for i in range(layers):
        for name in _QKV:
            expected |= set(
                _leaves("", f"electra.encoder.layer.{i}.attention.self.{name}").values()
            )
    optional = set(_leaves("", "electra.embeddings_project").values())
    missing = sorted(expected - optional - state.keys())
    unknown = sorted(state.keys() - expected - set(_IGNORED))
    if missing or unknown or not layers:
        raise UserError(
            f"not the weights of an ELECTRA {network}: missing {missing[:5] or 'nothing'}, unknown"
            f" {unknown[:5] or 'nothing'}; give the state of"
            f" {'ElectraForMaskedLM' if network == 'generator' else 'ElectraForPreTraining'}"
        )
    words = state[f"{_TABLES['word']}.weight"]
    output = state.get("generator_lm_head.weight")
    if output is not None and not torch.equal(words, output):
        raise UserError(
            "generator_lm_head.weight differs from the word embeddings: ELECTRA ties the two"
        )


def _discriminator_embeddings_from(
    discriminator: Mapping[str, Tensor], generator: Mapping[str, Tensor], sharing: Sharing
) -> State:
    names = _embedding_names("embeddings")
    if sharing == "none":
        return {ours: discriminator[theirs] for ours, theirs in names.items()}
    if sharing == "disentangled":
        deltas = {
            f"deltas.{table}.weight": discriminator[f"{theirs}.weight"]
            - generator[f"{theirs}.weight"]
            for table, theirs in _TABLES.items()
        }
        norm = _leaves("deltas.norm", _EMBEDDING_NORM)
        return deltas | {ours: discriminator[theirs] for ours, theirs in norm.items()}
    differing = [
        theirs
        for theirs in names.values()
        if not torch.equal(generator[theirs], discriminator[theirs])
    ]
    if differing:
        raise UserError(
            f"generator and discriminator differ in {', '.join(differing)}: they cannot start a run"
            " with model.embedding_sharing = shared; use disentangled or none"
        )
    return {}


def from_huggingface(
    generator: Mapping[str, Tensor], discriminator: Mapping[str, Tensor], sharing: Sharing
) -> tuple[State, State]:
    """The states of `ElectraForMaskedLM` and `ElectraForPreTraining` -> our two states.

    The inverse of `to_huggingface`: exact, except that the deltas of `disentangled` are differences
    and so carry one rounding. Raises `UserError` for names that ELECTRA does not have, names that
    are missing, and, for `shared`, embeddings that are not the same in both.
    """
    _check_names(generator, "generator")
    _check_names(discriminator, "discriminator")
    ours_g = {ours: generator[theirs] for ours, theirs in _embedding_names("embeddings").items()}
    ours_g |= _encoder_and_head_from(generator, "generator")
    ours_d = _discriminator_embeddings_from(discriminator, generator, sharing)
    return ours_g, ours_d | _encoder_and_head_from(discriminator, "discriminator")


def hf_config(config: ModelConfig, vocab_size: int, network: Network) -> dict[str, Any]:
    """The `config.json` of `network`;
    transformers checks its types strictly, hence the conversions.
    """
    sizes: NetworkConfig = getattr(config, network)
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
        "pad_token_id": SPECIAL_TOKENS.pad,
        "tie_word_embeddings": True,
        "dtype": "float32",
    }
