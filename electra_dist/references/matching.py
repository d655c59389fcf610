"""Which reference a run can be compared with: one that was to learn the same from the same text.

Comes in: the configuration and the facts of a run. Goes out: the reference, or None.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from electra_dist.config import NETWORKS, Config
from electra_dist.references.reading import all_references
from electra_dist.references.reference import Reference
from electra_dist.runs.facts import RunFacts

#: Sections and keys that shape a curve. Seed, precision, backends, ZeRO, ranks, and how rows are
#: shared out among them do not: they move it inside the band.
_TELLING = (
    "data.row_length",
    "data.max_documents_per_row",
    "data.mask_fraction",
    "data.mask_token_fraction",
    "model",
    "train.steps",
    "train.global_rows",
    "train.generator_weight",
    "train.discriminator_weight",
)
#: Of the section `model`: names of sizes, and where they are computed. The vocabulary is that of
#: the tokenizer, which is compared by its fingerprint.
_SILENT = (
    "model.preset",
    "model.vocab_size",
    "model.max_positions",
    "model.attention",
    "model.generator_head",
)


def matching(config: Config, facts: RunFacts) -> Reference | None:
    """The reference of the same networks, rows, optimizer, tokenizer and dataset as a run; None
    where there is none.
    """
    keys = telling_keys(config)
    for reference in all_references():
        if _same_text(reference, facts) and telling_keys(reference.config) == keys:
            return reference
    return None


def telling_keys(config: Config) -> dict[str, Any]:
    """The configuration keys that shape a curve, with their values; the optimizer as each network
    sees it.
    """
    found = dict(_flat("", config.model_dump(mode="json")))
    kept = {key: value for key, value in found.items() if _is_telling(key)}
    overrides: set[str] = set(NETWORKS)
    for network in NETWORKS:
        own = config.optimizer(network).model_dump(mode="json", exclude=overrides)
        kept |= dict(_flat(f"optim.{network}.", own))
    return kept


def _same_text(reference: Reference, facts: RunFacts) -> bool:
    """A run of an earlier version has no fingerprint of its tokenizer; that of the dataset covers
    it.
    """
    if facts.dataset_fingerprint != reference.dataset:
        return False
    if facts.about is None or not facts.about.tokenizer:
        return True
    return facts.about.tokenizer == reference.tokenizer


def _is_telling(key: str) -> bool:
    inside = any(key == name or key.startswith(f"{name}.") for name in _TELLING)
    return inside and key not in _SILENT


def _flat(prefix: str, content: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in content.items():
        if isinstance(value, Mapping):
            yield from _flat(f"{prefix}{name}.", value)
        else:
            yield prefix + name, value
