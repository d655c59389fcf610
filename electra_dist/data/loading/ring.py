"""Whole steps in shared memory: a ring of slots that the loader's process writes and the process of
training reads.

    note     what is being read, for whoever waits: a number that grows, and a sentence
    slots    `data.prefetch_steps` of them, used in turn; each has room for the largest step of this
             rank:
             a head of int64, then the arrays of each micro-batch, each array from a multiple of 64
             bytes on

A slot is read by one copy, so that nobody who holds a step keeps it from being written again. Who
may touch a slot is agreed on elsewhere (`loader`, `feeder`); here is only what lies where.

The memory has no name in any file system: it is gone with the last process that has it open,
however that ends.

Letters: A micro-batches of a step, B rows of a micro-batch, L row length, P masked slots a row, K
documents a row at most, N entries of `cu_seqlens` after the first, S streams of this rank, E
sources.
"""

from __future__ import annotations

import mmap
import os
import tempfile
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from electra_dist.batch import MicroBatch, Step
from electra_dist.data.lanes import LaneLayout
from electra_dist.data.masking import masked_slots
from electra_dist.data.step_plan import StepPlan
from electra_dist.data.streams import LoaderState, Positions

_ALIGNMENT = 64
_NOTE_BYTES = 1024
#: A slot's head: its bytes in use, index, steps of data drawn, masked and real counts; the epoch,
#: as float64; then N of each micro-batch, the epoch of each source, and the position of each
#: stream.
_EPOCH = 5
_FIXED = 6


class _Field(NamedTuple):
    """An array of a micro-batch, and where it lies from the micro-batch's start on."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, int]
    offset: int


class Ring:
    """The slots of a rank, in the memory behind a descriptor;
    `order` is that of its `LoaderState`s.
    """

    def __init__(self, plan: StepPlan, layout: LaneLayout, order: str) -> None:
        rows = plan.rows.micro_rows
        length = plan.rows.row_length
        slots = masked_slots(plan.rows.mask_fraction, length)
        self._fields: list[_Field] = []
        self._batch_bytes = (
            0  # of a micro-batch, up to its `cu_seqlens`, whose length is known last
        )
        for dtype, width, names in (
            (np.int32, length, ("tokens", "inputs", "positions", "documents")),
            (np.int32, slots, ("masked_positions", "masked_targets")),
            (np.float32, slots, ("masked_weights",)),
            (np.uint64, slots, ("masked_keys",)),
        ):
            for name in names:
                self._fields.append(_Field(name, np.dtype(dtype), (rows, width), self._batch_bytes))
                self._batch_bytes += _aligned(np.dtype(dtype).itemsize * rows * width)
        self._batches = plan.micro_batches
        self._sources = len(layout.counts)
        self._streams = plan.own_streams
        self._width = layout.width
        self._order = order
        numbers = _FIXED + self._batches + self._sources + self._width * len(self._streams)
        self._head_bytes = _aligned(8 * numbers)
        most = rows * (plan.rows.max_documents_per_row + 1)
        self._slot_bytes = self._head_bytes + self._batches * (
            self._batch_bytes + _aligned(4 * (most + 1))
        )
        self._count = plan.prefetch_steps
        self.bytes = _NOTE_BYTES + self._count * self._slot_bytes

    def __len__(self) -> int:
        """How many slots there are."""
        return self._count

    def open(self, descriptor: int, *, writable: bool) -> None:
        """Use the memory behind `descriptor`, which holds `bytes` at least."""
        if writable:
            access = mmap.ACCESS_WRITE
        else:
            access = mmap.ACCESS_READ
        self._memory = np.frombuffer(mmap.mmap(descriptor, self.bytes, access=access), np.uint8)

    # --- steps ------------------------------------------------------------------------------------

    def write(self, number: int, step: Step, state: LoaderState) -> None:
        """Put a step, and where the data stands after it, into slot `number`."""
        slot = self._slot(number)
        offset = self._head_bytes
        entries = [len(batch.cu_seqlens) - 1 for batch in step.micro_batches]
        for batch, count in zip(step.micro_batches, entries, strict=True):
            arrays, offset = self._views(slot, offset, count)
            for name, array in arrays.items():
                array[...] = getattr(batch, name)
        head = slot[: self._head_bytes].view(np.int64)
        head[:_EPOCH] = offset, step.index, state.drawn, step.masked_count, step.real_count
        head[_EPOCH:_FIXED].view(np.float64)[0] = step.epoch
        batches, epochs, positions = self._split(head)
        batches[...] = entries
        epochs.view(np.float64)[...] = step.source_epochs
        positions[...] = list(state.streams.values())

    def read(self, number: int) -> tuple[Step, LoaderState]:
        """The step in slot `number` in memory of its own, and where the data stands after it."""
        slot = self._slot(number)
        own = slot[: int(slot[:8].view(np.int64)[0])].copy()
        head = own[: self._head_bytes].view(np.int64)
        _, index, drawn, masked_count, real_count = head[:_EPOCH].tolist()
        counts, epochs, positions = self._split(head)
        batches = []
        offset = self._head_bytes
        for count in counts.tolist():
            arrays, offset = self._views(own, offset, count)
            batches.append(MicroBatch(**arrays))
        epoch = float(head[_EPOCH:_FIXED].view(np.float64)[0])
        of_sources = tuple(epochs.view(np.float64).tolist())
        step = Step(index, epoch, tuple(batches), masked_count, real_count, of_sources)
        return step, LoaderState(
            index + 1, self._order, Positions(self._streams, positions.copy()), drawn
        )

    def _slot(self, number: int) -> npt.NDArray[np.uint8]:
        first = _NOTE_BYTES + number * self._slot_bytes
        return self._memory[first : first + self._slot_bytes]

    def _split(
        self, head: npt.NDArray[np.int64]
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Of a head: N of each micro-batch (A,), epochs (E,), and positions (S, width)."""
        ends = np.cumsum([_FIXED, self._batches, self._sources, self._width * len(self._streams)])
        _, batches, epochs, positions, _ = np.split(head, ends)
        return batches, epochs, positions.reshape(-1, self._width)

    def _views(
        self, memory: npt.NDArray[np.uint8], offset: int, entries: int
    ) -> tuple[dict[str, npt.NDArray[Any]], int]:
        """The arrays of a micro-batch that starts at `offset` of `memory`,
        and where the next one does.
        """
        buffer = memory.data
        arrays: dict[str, npt.NDArray[Any]] = {
            field.name: np.ndarray(field.shape, field.dtype, buffer, offset + field.offset)
            for field in self._fields
        }
        offset += self._batch_bytes
        arrays["cu_seqlens"] = np.ndarray((entries + 1,), np.int32, buffer, offset)
        return arrays, offset + _aligned(4 * (entries + 1))

    # --- the note ---------------------------------------------------------------------------------

    def write_note(self, text: str) -> None:
        """Say what is being read."""
        content = text.encode()[: _NOTE_BYTES - 9]
        self._memory[8 : 9 + len(content)] = np.frombuffer(content + b"\0", np.uint8)
        self._memory[:8].view(np.uint64)[0] += np.uint64(1)

    def read_note(self) -> tuple[int, str]:
        """How many notes were written, and the last one, which may be half of a new one:
        it is for people.
        """
        content = self._memory[8:_NOTE_BYTES].tobytes()
        return int(self._memory[:8].view(np.uint64)[0]), content.partition(b"\0")[0].decode(
            errors="replace"
        )


def anonymous_memory(size: int) -> int:
    """A descriptor of `size` bytes of memory without a name;
    where the system has none, of a file without a name.
    """
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("electra-dist-loader")
    else:
        with tempfile.TemporaryFile() as file:
            descriptor = os.dup(file.fileno())
    os.truncate(descriptor, size)
    return descriptor


def _aligned(size: int) -> int:
    return -(-size // _ALIGNMENT) * _ALIGNMENT
