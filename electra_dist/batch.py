"""What flows from the data pipeline to the model: whole steps of packed, masked rows, as numpy
arrays.

Neutral ground between `data` (which makes these) and `train` (which moves them to a device). Every
array of a run has the same shape at every step, so that the step compiles once (DESIGN D4); only
`cu_seqlens` takes one of a few lengths, and what reads it is compiled for any of them.

Letters: B rows of a micro-batch, L row length, P masked slots a row, K documents a row at most, N
entries of `cu_seqlens` after the first.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Int32 = npt.NDArray[np.int32]
Float32 = npt.NDArray[np.float32]
UInt64 = npt.NDArray[np.uint64]

#: `MicroBatch.documents` of a padding position.
PADDING_DOCUMENT = -1


@dataclass(frozen=True)
class MicroBatch:
    """B packed rows with their masks; static shapes but for `cu_seqlens`.

    tokens            (B, L)  original ids; [PAD] after the last document of a row
    inputs            (B, L)  what the generator reads: `tokens` with 85% of the masked positions
                      set to [MASK]
    positions         (B, L)  position inside the document, restarting at 0 with each; 0 on padding
    documents         (B, L)  number of the document inside its row, from 0; `PADDING_DOCUMENT` on
                      padding
    cu_seqlens        (N + 1,)  cumulative document lengths over the B * L flattened tokens; the
                      padding at the end
                              of a row counts as one more document; unused entries repeat B * L;
                              `config.sequence_entries` says how many
    masked_positions  (B, P)  masked positions inside the row, ascending; 0 in unused slots
    masked_targets    (B, P)  original ids at the masked positions; 0 in unused slots
    masked_weights    (B, P)  1.0 in used slots, 0.0 in unused ones
    masked_keys       (B, P)  64-bit sampling key of each masked position (DESIGN D2b)
    """

    tokens: Int32
    inputs: Int32
    positions: Int32
    documents: Int32
    cu_seqlens: Int32
    masked_positions: Int32
    masked_targets: Int32
    masked_weights: Float32
    masked_keys: UInt64


@dataclass(frozen=True)
class Step:
    """One optimizer step of one rank: its micro-batches, in order, and this rank's counts.

    The counts are the rank's own; the trainer sums them over the ranks before the first backward,
    because every loss is a mean over the *global* count of the step.

    index         number of the step, from 0
    epoch         epochs consumed when this step ends (all streams together), fractional
    masked_count  used masked slots in these micro-batches
    real_count    real (non-padding) tokens, [CLS] and [SEP] included
    source_epochs epochs consumed of each source of data, in the order of the configuration
    """

    index: int
    epoch: float
    micro_batches: tuple[MicroBatch, ...]
    masked_count: int
    real_count: int
    source_epochs: tuple[float, ...] = ()


@dataclass(frozen=True)
class SpecialTokens:
    """Ids of the special tokens of a tokenizer: facts of the shards' manifest, whatever they are.

    The defaults are those of the tokenizers that `data tokenizer` trains. `unk` is None for a
    tokenizer that has none, because nothing is unknown to it.
    """

    pad: int = 0
    unk: int | None = 1
    cls: int = 2
    sep: int = 3
    mask: int = 4

    @property
    def never_masked(self) -> tuple[int, int, int, int]:
        """The ids that masking leaves alone; [UNK] stands for text, so it may be masked."""
        return (self.pad, self.cls, self.sep, self.mask)


#: The ids of our own tokenizers, and of shards whose manifest names none.
SPECIAL_TOKENS = SpecialTokens()
