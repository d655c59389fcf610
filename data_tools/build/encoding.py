"""Step 1 of a build: the input cut into tasks, the tasks given to workers, their records summed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from data_tools.build.disk import Room, size_of
from data_tools.build.encode import EncodeTask, encode, token_bytes
from data_tools.build.options import BuildOptions
from data_tools.build.pieces import CHUNK_CHARACTERS
from data_tools.build.records import Encoded, read_encoded
from data_tools.build.splits import lowest
from data_tools.build.work import WorkFolder
from data_tools.clean import normalise
from data_tools.sources import Inputs, read_pieces, split_parts
from data_tools.spill import RECORD, Spill
from data_tools.tokenizer import ShardTokenizer, Shares
from data_tools.workers import Workers
from electra_dist.console import Progress
from electra_dist.data.shards.manifest import SPLITS, SplitName
from electra_dist.errors import DataError

#: Records of tasks in one folder.
_FOLDER = 1000
#: Tasks, and characters of each, that the size of the output is guessed from.
_SAMPLED_TASKS = 4
#: Shards take as much as the runs that they are made of, and a little for tar.
_SHARDS_OF_RUNS = 1.03


@dataclass
class Sums:
    """All encoding tasks together."""

    runs: dict[SplitName, list[Spill]] = field(
        default_factory=lambda: {split: [] for split in SPLITS}
    )
    lowest: list[int] = field(default_factory=list)
    documents: int = 0
    too_short: int = 0
    without_tokens: int = 0
    cut: int = 0
    already_there: int = 0
    shares: Shares = field(default_factory=Shares)

    def add(self, encoded: Encoded) -> None:
        """Take the record of one task."""
        for split in SPLITS:
            self.runs[split] += encoded.spills[split]
        self.lowest = lowest([*self.lowest, *encoded.lowest])
        for name in ("documents", "too_short", "without_tokens", "cut", "already_there"):
            setattr(self, name, getattr(self, name) + getattr(encoded, name))
        self.shares += encoded.shares

    def bytes(self, bytes_of_token: int) -> int:
        """What the runs take on disk."""
        return sum(run.bytes(bytes_of_token) for runs in self.runs.values() for run in runs)

    def sort(self) -> None:
        """Bring the runs into the order of their names: tasks end in any order."""
        for runs in self.runs.values():
            runs.sort(key=lambda run: str(run.stem))


def task_folder(folder: Path, number: int) -> Path:
    """Where the runs and the record of task `number` are."""
    return folder / f"{number // _FOLDER:04d}"


def encode_tasks(
    inputs: Inputs,
    tokenizer_dir: Path,
    folder: Path,
    options: BuildOptions,
    known: Sequence[Spill] = (),
) -> list[EncodeTask]:
    """The tasks of all input files, in order; small files share a task."""
    parts = split_parts(inputs, options.part_bytes)
    return [
        EncodeTask(
            part=part,
            number=number,
            tokenizer_dir=tokenizer_dir,
            folder=task_folder(folder, number),
            validation=options.validation,
            seed=options.seed,
            min_characters=options.min_characters,
            deduplicate=options.deduplicate,
            piece_tokens=options.piece_tokens,
            block_tokens=options.block_tokens,
            known=tuple(known),
        )
        for number, part in enumerate(parts)
    ]


def encode_all(
    tasks: Sequence[EncodeTask],
    tokenizer: ShardTokenizer,
    work: WorkFolder,
    workers: Workers,
    progress: Progress,
) -> Sums:
    """Encode what has no record yet, and sum up all records.

    Raises `DataError` for bad input, `StorageError` where the disk is too small.
    """
    sums = Sums()
    waiting = []
    for task in tasks:
        record = read_encoded(task.folder, task.number)
        if record is None:
            waiting.append(task)
        else:
            sums.add(record)
    if waiting:
        _encode_rest(tasks, waiting, sums, tokenizer, work, workers, progress)
    sums.sort()
    return sums


def _encode_rest(
    tasks: Sequence[EncodeTask],
    waiting: Sequence[EncodeTask],
    sums: Sums,
    tokenizer: ShardTokenizer,
    work: WorkFolder,
    workers: Workers,
    progress: Progress,
) -> None:
    bytes_of_token = token_bytes(tokenizer.vocab_size)
    text = sum(_text_bytes(task) for task in tasks)
    per_byte = _runs_of_text(waiting, tokenizer)
    room = Room(work.path)
    peak = (1 + _SHARDS_OF_RUNS) * per_byte * text
    room.ask(max(0, int(peak) - size_of(work.path)), "the build")
    done = len(tasks) - len(waiting)
    made = sums.bytes(bytes_of_token)
    progress("encode", done, len(tasks))
    for encoded in workers.each(encode, waiting, "encode"):
        sums.add(encoded)
        done += 1
        made += sum(run.bytes(bytes_of_token) for runs in encoded.spills.values() for run in runs)
        share = done / len(tasks)
        left = made / share * (1 - share + _SHARDS_OF_RUNS)
        room.watch(int(left), "the rest of the build")
        progress("encode", done, len(tasks))


def _text_bytes(task: EncodeTask) -> int:
    return task.part.text_bytes


def _runs_of_text(tasks: Sequence[EncodeTask], tokenizer: ShardTokenizer) -> float:
    """Bytes of runs from a byte of text, measured on the start of some tasks."""
    texts = []
    for index in range(min(_SAMPLED_TASKS, len(tasks))):
        task = tasks[index * len(tasks) // min(_SAMPLED_TASKS, len(tasks))]
        size = 0
        for piece in read_pieces(task.part):
            texts.append(normalise(piece.text[:CHUNK_CHARACTERS]))
            size += len(texts[-1])
            if size >= CHUNK_CHARACTERS:
                break
    size = sum(len(text.encode("utf-8")) for text in texts)
    tokens = sum(len(ids) for ids in tokenizer.encode_batch(texts))
    runs = tokens * token_bytes(tokenizer.vocab_size) + len(texts) * RECORD.itemsize
    return runs / max(1, size)


def check_documents(sums: Sums, options: BuildOptions) -> None:
    """Raise `DataError` where nothing is left of the input."""
    if any(sums.runs.values()):
        return
    if sums.already_there:
        raise DataError(
            f"nothing to add: of {sums.documents} documents, {sums.already_there} are in the"
            " shards already, and the others are empty or shorter than"
            f" {options.min_characters} characters"
        )
    raise DataError(
        f"no documents: {sums.documents} were read, all empty or shorter than"
        f' {options.min_characters} characters; .txt needs text, .jsonl needs text under "text"'
    )
