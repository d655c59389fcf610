"""Steps of random tokens in the shapes of a configuration,
for measuring where there are no shards.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from electra_dist.batch import SPECIAL_TOKENS, Step
from electra_dist.config import Config
from electra_dist.data.packing import PackedRows
from electra_dist.data.rows import KeyedRows, micro_batches
from electra_dist.data.step_plan import RowFormat


def synthetic_steps(
    config: Config, vocab_size: int, document_length: int | None = None
) -> Iterator[Step]:
    """Steps of one rank alone, for ever: full rows of documents of `document_length` tokens
    (default: whole rows).

    Packed and masked by the same code as real text.
    """
    index = 0
    while True:
        rows = _rows(config, vocab_size, document_length or config.data.row_length, index)
        batches = micro_batches(rows, RowFormat.of(config), SPECIAL_TOKENS)
        yield Step(
            index=index,
            epoch=0.0,
            micro_batches=tuple(batches),
            masked_count=sum(int(batch.masked_weights.sum(dtype=np.float64)) for batch in batches),
            real_count=rows.packed.tokens.size,
        )
        index += 1


def _rows(config: Config, vocab_size: int, document_length: int, index: int) -> KeyedRows:
    count = config.train.global_rows
    length = config.data.row_length
    slots = config.data.max_documents_per_row
    rng = np.random.default_rng((config.train.seed, index))
    tokens = rng.integers(SPECIAL_TOKENS.mask + 1, vocab_size, (count, length)).astype(np.uint32)
    inner = range(document_length, length, document_length)[: slots - 1]
    ends = np.array([*inner, length])
    tokens[:, np.concatenate([[0], ends[:-1]])] = SPECIAL_TOKENS.cls
    tokens[:, ends - 1] = SPECIAL_TOKENS.sep
    padded = np.concatenate([ends, np.full(slots - len(ends), length)])
    packed = PackedRows(
        tokens,
        np.tile(padded.astype(np.int32), (count, 1)),
        np.full(count, len(ends), dtype=np.int32),
    )
    return KeyedRows(packed, rng.integers(0, 2**63, count).astype(np.uint64))
