"""The data of a run: one folder of shards, or several that are mixed by weight.

Comes in: the `data` section of a configuration. Goes out: `RunData`, the open sources with the
share of each in every step. Whoever trains, evaluates, plans or checks a run opens its shards here.

All sources are encoded by the same tokenizer. Shares are counted in real tokens and held as whole
numbers, so that the order of the data is the same on every machine.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from electra_dist.batch import SpecialTokens
from electra_dist.config import Config, DataConfig, SourceConfig
from electra_dist.data.shards.files import CheckLevel
from electra_dist.data.shards.manifest import Manifest, cache_of
from electra_dist.errors import ConfigError, DataError
from electra_dist.files.urls import is_url

#: Shares of all sources add up to about this.
WHOLE = 10**9


@dataclass(frozen=True)
class Source:
    """One folder of shards in a mixture.

    share  of `WHOLE`: the fraction of a step's real tokens that come from it
    """

    name: str
    manifest: Manifest
    share: int


@dataclass(frozen=True)
class RunData:
    """The open sources of a run, in the order of the configuration."""

    sources: tuple[Source, ...]

    @classmethod
    def alone(cls, manifest: Manifest) -> RunData:
        """One folder of shards and nothing else."""
        return cls((Source("data", manifest, WHOLE),))

    # --- to other processes -----------------------------------------------------------------------

    def to_handle(self) -> dict[str, Any]:
        """What another process or rank needs to open the same data, as JSON takes it."""
        return {
            "sources": [
                [source.name, source.manifest.to_handle(), source.share] for source in self.sources
            ]
        }

    @classmethod
    def from_handle(cls, handle: dict[str, Any]) -> RunData:
        """The inverse of `to_handle`; reads the tables and no manifest.json."""
        return cls(
            tuple(
                Source(name, Manifest.from_handle(manifest), share)
                for name, manifest, share in handle["sources"]
            )
        )

    # --- what all sources have in common ----------------------------------------------------------

    @property
    def is_mixed(self) -> bool:
        """Whether there is more than one source."""
        return len(self.sources) > 1

    @property
    def first(self) -> Manifest:
        """The manifest whose tokenizer stands for all."""
        return self.sources[0].manifest

    @property
    def manifests(self) -> list[Manifest]:
        """Of each source."""
        return [source.manifest for source in self.sources]

    @property
    def described(self) -> str:
        """`wiki 75.0%, code 25.0%`: the share of each source in the tokens of a step."""
        whole = sum(source.share for source in self.sources)
        return ", ".join(f"{source.name} {source.share / whole:.1%}" for source in self.sources)

    @property
    def label(self) -> str:
        """The folders, for people."""
        return ", ".join(str(manifest.path) for manifest in self.manifests)

    @property
    def vocab_size(self) -> int:
        """Ids of the vocabulary."""
        return self.first.vocab_size

    @property
    def special_tokens(self) -> SpecialTokens:
        """Ids of the special tokens of all sources."""
        return self.first.facts.special_tokens

    @property
    def tokenizer_fingerprint(self) -> str:
        """Names the tokenizer of all sources."""
        return self.first.facts.tokenizer_fingerprint

    def copy_tokenizer(self, target: Path) -> None:
        """Make the folder `target` with the tokenizer; see `Manifest.copy_tokenizer`."""
        self.first.copy_tokenizer(target)

    def is_tokenizer(self, folder: Path) -> bool:
        """Whether `folder` holds the whole tokenizer of these shards."""
        return self.first.is_tokenizer(folder)

    # --- the whole --------------------------------------------------------------------------------

    @property
    def fingerprint(self) -> str:
        """One name for the data and their shares; that of the shards where there is one folder."""
        if not self.is_mixed:
            return self.first.fingerprint
        parts = [(source.manifest.fingerprint, source.share) for source in self.sources]
        return hashlib.sha256(json.dumps(["mixture", parts]).encode()).hexdigest()

    @property
    def tokens(self) -> int:
        """Tokens of the split `train` of all sources."""
        return sum(manifest.facts.train.tokens for manifest in self.manifests)

    @property
    def mean_document(self) -> int | None:
        """Mean length of a document in a step, with its special tokens; None without documents.

        A source of short documents gives more of them.
        """
        documents = 0.0
        for source in self.sources:
            train = source.manifest.facts.train
            if train.tokens:
                documents += source.share * train.documents / train.tokens
        if not documents:
            return None
        return int(sum(source.share for source in self.sources) / documents) + 2

    @cached_property
    def token_counts(self) -> npt.NDArray[np.int64]:
        """(V,) how often each id occurs in `tokens` tokens of the mixture."""
        if not self.is_mixed:
            return self.first.token_counts
        counts = np.zeros(self.vocab_size, np.float64)
        whole = sum(source.share for source in self.sources)
        for source in self.sources:
            of_source = source.manifest.token_counts.astype(np.float64)
            wanted = self.tokens * source.share / whole
            counts += of_source * (wanted / max(of_source.sum(), 1.0))
        return np.rint(counts).astype(np.int64)

    def unigram_entropy(self) -> float:
        """Entropy of the token frequencies, in nats: the loss of who knows only them."""
        counts = self.token_counts[self.token_counts > 0].astype(np.float64)
        probabilities = counts / counts.sum()
        return float(-(probabilities * np.log(probabilities)).sum())

    def check_files(
        self,
        level: CheckLevel = "sizes",
        share: tuple[int, int] = (0, 1),
        progress: Callable[[Manifest], Callable[[int, int], None]] | None = None,
    ) -> None:
        """`Manifest.check_files` of each source; `progress` makes one for each."""
        for manifest in self.manifests:
            manifest.check_files(level, share=share, progress=progress and progress(manifest))


# --- opening --------------------------------------------------------------------------------------


def open_data(config: Config, base: Path = Path()) -> RunData:
    """The data of a run; relative folders are looked for in `base`.

    Raises `DataError` for shards that are missing or damaged, and for sources of different
    tokenizers.
    """
    data = config.data
    if data.shards is not None:
        return RunData.alone(_open(config, data.shards, base))
    manifests = [_open(config, source.shards, base) for source in data.sources]
    _check_tokenizers(data.sources, manifests)
    shares = shares_of(data, [manifest.facts.train.tokens for manifest in manifests])
    return RunData(
        tuple(
            Source(str(source.name), manifest, share)
            for source, manifest, share in zip(data.sources, manifests, shares, strict=True)
        )
    )


def _open(config: Config, shards: str, base: Path) -> Manifest:
    """The manifest of a folder, or of a URL."""
    if is_url(shards):
        return Manifest.load(shards, cache_of(config))
    return Manifest.load(base / shards)


def shares_of(data: DataConfig, tokens: Sequence[int]) -> list[int]:
    """The share of each source, of `WHOLE`: its weight, or its tokens to the power of
    `data.temperature` (Devlin 2018, multilingual BERT; Conneau and Lample 2019, section 3.1).
    """
    if data.temperature is not None:
        # in logarithms: 10^13 tokens and any temperature stay finite
        logs = [data.temperature * np.log(max(count, 1)) for count in tokens]
        weights = [float(np.exp(value - max(logs))) for value in logs]
    else:
        weights = [float(source.weight or 0) for source in data.sources]
    total = sum(weights)
    return [max(1, round(WHOLE * weight / total)) for weight in weights]


def _check_tokenizers(sources: Sequence[SourceConfig], manifests: Sequence[Manifest]) -> None:
    first = manifests[0].facts.tokenizer_fingerprint
    for source, manifest in zip(sources, manifests, strict=True):
        own = manifest.facts.tokenizer_fingerprint
        if own != first:
            raise DataError(
                f"data.sources: {manifest.path} ({source.name}) is encoded with another tokenizer"
                f" (fingerprint {own[:12]}) than {manifests[0].path} ({first[:12]}); build it again"
                f" with `electra-dist data build --tokenizer {manifests[0].tokenizer_path}`"
            )


def check_vocabulary(config: Config, data: RunData) -> None:
    """Raise `ConfigError` when `model.vocab_size` is set and is not that of the shards."""
    wanted = config.model.vocab_size
    if wanted is not None and wanted != data.vocab_size:
        raise ConfigError(
            f"model.vocab_size = {wanted}, but the shards in {data.label} have"
            f" {data.vocab_size} ids; remove the key, or build shards with a tokenizer of"
            f" {wanted} ids"
        )


def has_validation(data: RunData) -> bool:
    """Whether any documents are held out."""
    return any(manifest.facts.validation.blocks for manifest in data.manifests)
