"""In what runs differ: their configurations key by key, and whether their numbers compare at all.

Comes in: `LoadedRun`s, the first of which is what the others are measured by. Goes out: rows of a
table, and sentences.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from electra_dist.references import Reference, telling_keys
from electra_dist.report.loading import LoadedRun

#: Says nothing of a run but where it lies.
_NAMES = ("run.name", "run.dir")
#: What a run has not, in a table.
ABSENT = "–"


@dataclass(frozen=True)
class KeyDifference:
    """A key of the configuration with the value of each run, in the order of the runs."""

    key: str
    values: tuple[str, ...]

    def differs(self, run: int) -> bool:
        """Whether the run of this number has another value than the first one."""
        return self.values[run] != self.values[0]


def key_differences(runs: Sequence[LoadedRun]) -> list[KeyDifference]:
    """The keys whose values are not the same in all runs, in the order of the configuration."""
    flat = [_flat_config(loaded) for loaded in runs]
    keys: dict[str, None] = {}
    for one in flat:
        keys |= dict.fromkeys(one)
    found = []
    for key in keys:
        values = tuple(one.get(key, ABSENT) for one in flat)
        if len(set(values)) > 1 and key not in _NAMES:
            found.append(KeyDifference(key, values))
    return found


def _flat_config(loaded: LoadedRun) -> dict[str, str]:
    if loaded.config is None:
        return {}
    return dict(_flat(loaded.config.model_dump(mode="json")))


def _flat(tree: Mapping[str, Any], above: str = "") -> Iterable[tuple[str, str]]:
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{above}{name}.")
        elif isinstance(value, str):
            yield above + name, value
        else:
            yield above + name, json.dumps(value, ensure_ascii=False)


# --- whether numbers compare ----------------------------------------------------------------------


def warnings_of(runs: Sequence[LoadedRun]) -> list[str]:
    """Sentences on what of these runs cannot be compared, and why."""
    found = []
    for what, value_of, sentence in _MUST_BE_ALIKE:
        values = [value_of(loaded) for loaded in runs]
        groups = _groups(runs, values)
        if len(groups) > 1:
            found.append(f"{sentence} {what}: {_in_words(groups)}.")
    unknown = [loaded.label for loaded in runs if loaded.known.tokenizer is None]
    if unknown and len(runs) > 1:
        found.append(
            "Whether losses compare is not known where a run does not tell its tokenizer:"
            f" {_listed(unknown)}."
        )
    return found


def not_of_recipe(runs: Sequence[LoadedRun], reference: Reference) -> list[str]:
    """A sentence on the runs that learn something else than `reference` did; its bands are no
    measure for them.
    """
    wanted = telling_keys(reference.config)
    others = []
    for loaded in runs:
        same_text = loaded.facts.dataset_fingerprint == reference.dataset
        if loaded.config is None or not same_text or telling_keys(loaded.config) != wanted:
            others.append(loaded.label)
    if not others:
        return []
    return [
        f"The bands of the reference {reference.name} are no measure for {_listed(others)}: the"
        " text, the networks, the rows or the optimizer are others."
    ]


def comparable(runs: Sequence[LoadedRun]) -> bool:
    """Whether the losses of these runs may be laid side by side: as far as is known."""
    for value_of in (_tokenizer, _masking):
        values = {value_of(loaded) for loaded in runs} - {None}
        if len(values) > 1:
            return False
    return True


def _groups(runs: Sequence[LoadedRun], values: Sequence[str | None]) -> dict[str, list[str]]:
    """The labels of the runs by value; runs that do not tell it are in no group."""
    groups: dict[str, list[str]] = {}
    for loaded, value in zip(runs, values, strict=True):
        if value is not None:
            groups.setdefault(value, []).append(loaded.label)
    return groups


def _in_words(groups: Mapping[str, Sequence[str]]) -> str:
    return "; ".join(f"{value} in {_listed(labels)}" for value, labels in groups.items())


def _listed(labels: Sequence[str]) -> str:
    if len(labels) <= 5:
        return ", ".join(labels)
    return ", ".join(labels[:4]) + f" and {len(labels) - 4} more"


def _tokenizer(loaded: LoadedRun) -> str | None:
    tokenizer = loaded.known.tokenizer
    if tokenizer is None:
        return None
    return tokenizer[:12]


def _dataset(loaded: LoadedRun) -> str | None:
    return loaded.facts.dataset_fingerprint[:12] or None


def _version(loaded: LoadedRun) -> str | None:
    """Of this software at the newest start; it says how a metric was computed."""
    if not loaded.facts.starts:
        return None
    return dict(loaded.facts.starts[-1].software).get("electra-dist")


def _masking(loaded: LoadedRun) -> str | None:
    if loaded.config is None:
        return None
    return f"{loaded.config.data.mask_fraction:g}"


_MUST_BE_ALIKE: tuple[tuple[str, Callable[[LoadedRun], str | None], str], ...] = (
    (
        "Tokenizers",
        _tokenizer,
        "Losses cannot be compared: the tokens of different tokenizers are not the same units,"
        " and a loss is a mean per token.",
    ),
    (
        "Values of data.mask_fraction",
        _masking,
        "Losses cannot be compared: more masked positions make both tasks harder.",
    ),
    (
        "Data",
        _dataset,
        "Held-out values are measured on different text: a difference between runs may be one of"
        " their texts.",
    ),
    (
        "Versions",
        _version,
        "Metrics were written by different versions of electra-dist, which may compute one of the"
        " same name in another way.",
    ),
)
