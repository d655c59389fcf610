"""Shards: what they hold, their documents as text, and the steps that training takes."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from electra_dist.errors import ConfigError, DataError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from electra_dist.batch import SpecialTokens, Step
    from electra_dist.config import Config
    from electra_dist.data.shards.files import CheckLevel
    from electra_dist.data.shards.manifest import Manifest, SplitName


@dataclass(frozen=True)
class Split:
    """What one split of the shards holds.

    shards     files
    blocks     samples of them, of some 64k tokens each
    documents  texts; one that is longer than a block counts once per piece
    tokens     without [CLS] and [SEP]
    """

    name: SplitName
    shards: int
    blocks: int
    documents: int
    tokens: int


@dataclass(frozen=True)
class Document:
    """One document of the shards.

    tokens  (N,) ids without [CLS] and [SEP], uint16 or uint32
    text    the tokens decoded; a tokenizer that folds case has done so
    """

    tokens: npt.NDArray[np.unsignedinteger[Any]]
    text: str


@dataclass(frozen=True)
class Shards:
    """A folder of shards, opened by `open_shards`; `manifest` is its checked manifest.json."""

    manifest: Manifest

    @property
    def path(self) -> Path:
        """The folder."""
        return self.manifest.path

    @property
    def vocab_size(self) -> int:
        """Ids of the tokenizer, special tokens included."""
        return self.manifest.vocab_size

    @property
    def special_tokens(self) -> SpecialTokens:
        """The ids of the special tokens: `pad`, `unk`, `cls`, `sep` and `mask`.

        `unk` is None for a tokenizer to which nothing is unknown.
        """
        return self.manifest.facts.special_tokens

    @property
    def fingerprint(self) -> str:
        """Names the dataset: equal for equal shards and tokenizers."""
        return self.manifest.fingerprint

    @property
    def unigram_entropy(self) -> float:
        """Entropy of the token frequencies of the split `train`, in nats.

        It is the loss of a generator that knows nothing but them.
        """
        return self.manifest.unigram_entropy()

    @property
    def splits(self) -> dict[SplitName, Split]:
        """The counts of each split, by name: `train` and `validation`."""
        from electra_dist.data.shards.manifest import SPLITS

        found: dict[SplitName, Split] = {}
        for name in SPLITS:
            facts = self.manifest.split(name)
            found[name] = Split(
                name=name,
                shards=len(facts.shards),
                blocks=facts.blocks,
                documents=facts.documents,
                tokens=facts.tokens,
            )
        return found

    def documents(self, split: SplitName = "train") -> Iterator[Document]:
        """Every document of a split, in the order of the shards, which is a shuffled one.

        Args:
            split: `train` or `validation`.

        Returns:
            An iterator that reads one block at a time.

        Raises:
            DataError: no such split, a shard or the tokenizer that is gone or damaged.

        Examples:
            >>> for document in itertools.islice(shards.documents("validation"), 3):
            ...     print(document.text)
        """
        from data_tools.tokenizer import load_tokenizer
        from electra_dist.data.shards.manifest import SPLITS
        from electra_dist.data.shards.reading import BlockReader

        if split not in SPLITS:
            raise DataError(f"`split` {split!r}: expected one of {', '.join(SPLITS)}")
        tokenizer = load_tokenizer(self.manifest.tokenizer_path)
        reader = BlockReader(self.manifest, split)

        def all_documents() -> Iterator[Document]:
            for number in range(len(reader)):
                block = reader.read(number)
                start = 0
                for length in block.lengths.tolist():
                    tokens = block.tokens[start : start + length]
                    start += length
                    yield Document(tokens, tokenizer.decode(tokens))

        return all_documents()


def open_shards(path: str | Path, check: CheckLevel | None = "sizes") -> Shards:
    """Open a folder of shards.

    Args:
        path: the folder that `electra-dist data build` made.
        check: `sizes` compares the size of every file with the manifest, `checksums` reads all of
            them, None looks at the manifest alone.

    Returns:
        The shards, with their counts; `documents` reads them.

    Raises:
        DataError: no shards there, or files that are not what the manifest says.

    Examples:
        >>> shards = electra_dist.open_shards("runs/quickstart-data/shards")
        >>> shards.splits["train"].tokens
    """
    from electra_dist.data.shards.manifest import Manifest

    manifest = Manifest.load(path)
    if check is not None:
        manifest.check_files(check)
    return Shards(manifest)


def stream_steps(
    config: Config, rank: int = 0, world_size: int = 1, start: int = 0
) -> Iterator[Step]:
    """The steps that one rank of a training takes, in order, up to `train.steps`.

    They are the very steps of `train_run`: same rows, same order, same masks. The ranks of any
    world size share out the same rows. Steps that a guard skipped in a run of its own are not
    known here.

    Args:
        config: names the shards (`data.shards`, `data.sources`) and everything that rows depend on.
        rank: from 0 to `world_size` - 1.
        world_size: the ranks of the training, at most `data.streams`.
        start: the first step that is given. Those before it are made and dropped, which takes as
            long as making them.

    Returns:
        An iterator over `Step`s: micro-batches of numpy arrays, shape (rows, row length).

    Raises:
        ConfigError: a rank or world size that does not fit, another vocabulary than the shards'.
        DataError: shards that are gone, empty or damaged.

    Examples:
        >>> step = next(electra_dist.stream_steps(config))
        >>> step.micro_batches[0].inputs.shape
    """
    from electra_dist.data.sources import check_vocabulary, open_data
    from electra_dist.data.step_plan import StepPlan
    from electra_dist.data.steps import StepSource

    if not 0 <= rank < world_size:
        raise ConfigError(f"`rank` {rank}: expected 0 to {world_size - 1}, below `world_size`")
    if start < 0:
        raise ConfigError(f"`start` {start}: expected a step from 0 on")
    data = open_data(config)
    check_vocabulary(config, data)
    source = StepSource(StepPlan.of(config, rank, world_size), data)
    return itertools.islice(source, start, None)
