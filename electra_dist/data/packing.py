"""Documents into rows: best-fit packing of one block, and the arrays of packed rows.

Documents longer than L - 2 are cut into pieces; each piece is wrapped, [CLS] piece [SEP], and the
pieces are placed largest first, each in the row where it leaves the least room (best-fit
decreasing). A block's end closes its rows. Rows come out sorted by kind (full ones first), so the
caller reads them in a drawn order.

Letters: L row length, K documents a row at most, D documents of a block, Q pieces, B rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from electra_dist.batch import PADDING_DOCUMENT, Int32, SpecialTokens
from electra_dist.config import sequence_entries
from electra_dist.data.shards.blocks import Block

Int64 = npt.NDArray[np.int64]
#: [CLS] and [SEP] around each piece.
WRAPPING = 2


@dataclass(frozen=True)
class PackedRows:
    """Packed rows without masks.

    tokens  (B, L)  ids, wrapped pieces from the left, [PAD] after them; the block's unsigned type
    ends    (B, K)  end of each piece in its row, wrapping included; unused entries repeat the last
            end
    counts  (B,)    pieces of each row
    """

    tokens: npt.NDArray[np.unsignedinteger[Any]]
    ends: Int32
    counts: Int32

    def __len__(self) -> int:
        return len(self.tokens)

    def take(self, rows: slice | Int64) -> PackedRows:
        """The rows of a slice, or of an array of row numbers."""
        return PackedRows(self.tokens[rows], self.ends[rows], self.counts[rows])


def cut_lengths(lengths: npt.NDArray[np.integer[Any]], row_length: int) -> Int64:
    """(Q,) lengths of the pieces of documents of `lengths`, in order.

    Pieces are full (L - 2 tokens) but for the last; a last piece of fewer than min(16, (L - 2) / 8)
    tokens takes what it lacks from the piece before it, because a few words without context teach
    nothing.
    """
    full = row_length - WRAPPING
    shortest = max(1, min(16, full // 8))
    lengths = lengths.astype(np.int64)
    pieces = -(-lengths // full)
    ends = np.cumsum(pieces)
    cut = np.full(int(ends[-1]) if len(ends) else 0, full, dtype=np.int64)
    last = ends - 1
    rest = lengths - (pieces - 1) * full
    cut[last] = rest
    short = (rest < shortest) & (pieces > 1)
    cut[last[short] - 1] -= shortest - rest[short]
    cut[last[short]] = shortest
    return cut


def best_fit(sizes: Int64, row_length: int, max_documents: int) -> tuple[Int64, Int64, int]:
    """Place items of `sizes` (Q,) into rows: (row of each item, offset of each item in its row,
    number of rows).

    Best-fit decreasing; items of one size keep their order. Rows with `max_documents` items are
    closed.
    """
    order = np.argsort(-sizes, kind="stable")
    row_of = np.zeros(len(sizes), np.int64)
    offset_of = np.zeros(len(sizes), np.int64)
    whole = int(np.searchsorted(-sizes[order], -row_length, side="right"))
    row_of[order[:whole]] = np.arange(whole)
    by_room: list[list[int]] = [[] for _ in range(row_length + 1)]  # rows by the room left in them
    rooms = 0  # bit r is set while a row with room r is open
    counts: list[int] = []
    rows = []
    offsets = []
    for size in sizes[order[whole:]].tolist():
        fitting = rooms >> size
        if fitting:
            room = size + (fitting & -fitting).bit_length() - 1
            row = by_room[room].pop()
            if not by_room[room]:
                rooms &= ~(1 << room)
        else:
            room = row_length
            row = len(counts)
            counts.append(0)
        rows.append(row + whole)
        offsets.append(row_length - room)
        counts[row] += 1
        left = room - size
        if left > WRAPPING and counts[row] < max_documents:
            by_room[left].append(row)
            rooms |= 1 << left
    row_of[order[whole:]] = rows
    offset_of[order[whole:]] = offsets
    return row_of, offset_of, whole + len(counts)


class Pieces(NamedTuple):
    """Where the pieces of a block's documents lie, in the order of the text.

    documents  (Q,) number of the document in the block
    rows       (Q,) number of the row
    """

    documents: Int64
    rows: Int64


def pack_block(
    block: Block, row_length: int, max_documents: int, specials: SpecialTokens
) -> PackedRows:
    """All documents of `block` in packed rows; depends on nothing but its arguments."""
    return pack_with_pieces(block, row_length, max_documents, specials)[0]


def pack_with_pieces(
    block: Block, row_length: int, max_documents: int, specials: SpecialTokens
) -> tuple[PackedRows, Pieces]:
    """The same, and which row each piece lies in."""
    pieces = cut_lengths(block.lengths, row_length)
    row_of, offset_of, rows = best_fit(pieces + WRAPPING, row_length, max_documents)
    tokens = np.full((rows, row_length), specials.pad, dtype=block.tokens.dtype)
    flat = tokens.reshape(-1)
    first = row_of * row_length + offset_of + 1
    starts = np.cumsum(pieces) - pieces
    flat[np.arange(len(block.tokens)) + np.repeat(first - starts, pieces)] = block.tokens
    flat[first - 1] = specials.cls
    flat[first + pieces] = specials.sep
    ends, counts = _ends_of_rows(row_of, offset_of + pieces + WRAPPING, rows, max_documents)
    documents = np.searchsorted(np.cumsum(block.lengths, dtype=np.int64), starts, side="right")
    return PackedRows(tokens, ends, counts), Pieces(documents, row_of)


def _ends_of_rows(
    row_of: Int64, end_of: Int64, rows: int, max_documents: int
) -> tuple[Int32, Int32]:
    """(B, K) ends of the pieces of each row, ascending, the last one repeated,
    and (B,) how many there are.
    """
    order = np.lexsort((end_of, row_of))
    counts = np.bincount(row_of, minlength=rows)
    place = np.arange(len(order)) - np.repeat(np.cumsum(counts) - counts, counts)
    ends = np.zeros((rows, max_documents), dtype=np.int32)
    ends[row_of[order], place] = end_of[order]
    return np.maximum.accumulate(ends, axis=1), counts.astype(np.int32)


def concatenate(parts: list[PackedRows]) -> PackedRows:
    """Rows of several blocks, one after the other."""
    return PackedRows(
        np.concatenate([part.tokens for part in parts]),
        np.concatenate([part.ends for part in parts]),
        np.concatenate([part.counts for part in parts]),
    )


def documents_and_positions(rows: PackedRows) -> tuple[Int32, Int32]:
    """(B, L) number of the document at each place, `PADDING_DOCUMENT` on padding,
    and (B, L) position inside it.
    """
    count, length = rows.tokens.shape
    number = np.arange(count)[:, None]
    marks = np.zeros((count, length + 1), dtype=np.int32)
    used = np.arange(rows.ends.shape[1]) < rows.counts[:, None]
    marks[np.broadcast_to(number, used.shape)[used], rows.ends[used]] = 1
    documents = np.cumsum(marks[:, :length], axis=1, dtype=np.int32)
    starts = np.concatenate([np.zeros((count, 1), np.int32), rows.ends], axis=1)
    positions = np.arange(length, dtype=np.int32) - np.take_along_axis(starts, documents, axis=1)
    padding = documents == rows.counts[:, None]
    documents[padding] = PADDING_DOCUMENT
    positions[padding] = 0
    return documents, positions


def cumulative_lengths(rows: PackedRows) -> Int32:
    """(N + 1,) cumulative document lengths over the flattened rows; see `MicroBatch.cu_seqlens`."""
    count, length = rows.tokens.shape
    per_row = rows.ends.shape[1]
    first = np.arange(count)[:, None] * length
    ends = np.concatenate([rows.ends, np.full((count, 1), length, np.int32)], axis=1)
    used = np.arange(per_row + 1) < rows.counts[:, None]
    used[:, per_row] = rows.ends[:, -1] < length  # the padding counts as one more document
    found = (ends + first)[used]
    cumulative = np.full(
        sequence_entries(len(found), count, per_row) + 1, count * length, dtype=np.int32
    )
    cumulative[0] = 0
    cumulative[1 : 1 + len(found)] = found
    return cumulative
