"""Step 1 of a build: the input cut into tasks, the tasks given to workers, their records summed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from data_tools.build.encode import EncodeTask, encode, token_bytes
from data_tools.build.options import BuildOptions
from data_tools.build.pieces import CHUNK_CHARACTERS
from data_tools.build.records import Encoded, encoded_record, read_encoded, write_encoded
from data_tools.build.splits import lowest
from data_tools.build.work import WorkFolder
from data_tools.clean import normalise
from data_tools.dealing import deal_out
from data_tools.disk import Room, on_disk, size_of
from data_tools.sources import Inputs, Part, read_pieces, split_parts, suitable_part_bytes
from data_tools.spill import RECORD, Spill
from data_tools.tokenizer import ShardTokenizer, Shares
from data_tools.unfinished import DamagedWorkError
from data_tools.workers import WAITING_TASKS, Workers
from electra_dist.console import Progress
from electra_dist.data.shards.manifest import SPLITS, SplitName
from electra_dist.errors import DataError

#: Records of tasks in one folder.
_FOLDER = 1000
#: Tasks, and characters of each, that the size of the output is guessed from.
_SAMPLED_TASKS = 4
#: Times the usual size, and the part of all text, above which a part is dealt to several workers.
_LARGE = 2
_FEW_PARTS = 32
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
    """The tasks of all input files, in order; small files share a task, and the documents of a
    large one that cannot be cut are dealt.
    """
    part_bytes = options.part_bytes or suitable_part_bytes(inputs)
    parts = split_parts(inputs, part_bytes)
    total = sum(part.text_bytes for part in parts)
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
            deal_bytes=_deal_bytes(part, total, part_bytes),
        )
        for number, part in enumerate(parts)
    ]


def _deal_bytes(part: Part, total: int, part_bytes: int) -> int:
    """The size of deals of a part that could not be cut, where others would wait for its worker;
    0 where it is read by its worker: with many such parts each has one, and no reader is a bound.
    """
    if part.text_bytes > _LARGE * part_bytes and part.text_bytes > total // _FEW_PARTS:
        return part_bytes
    return 0


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
    text = sum(task.part.text_bytes for task in tasks)
    per_byte = _runs_of_text(waiting, tokenizer)
    room = Room(work.path)
    peak = (1 + _SHARDS_OF_RUNS) * per_byte * text + _dealt_bytes(waiting, workers.count)
    room.ask(max(0, int(peak) - size_of(work.path)), "the build")
    made = sums.bytes(bytes_of_token)
    dealer = _Dealer(tasks, waiting, sums)
    progress("encode", dealer.done, dealer.total)
    for encoded in workers.each(encode, dealer.tasks(), "encode"):
        sums.add(encoded)
        made += sum(run.bytes(bytes_of_token) for runs in encoded.spills.values() for run in runs)
        dealer.done += 1
        share = dealer.done / dealer.total
        left = made / share * (1 - share + _SHARDS_OF_RUNS)
        room.watch(int(left), "the rest of the build")
        progress("encode", dealer.done, dealer.total)
    dealer.finish()


class _Dealer:
    """The tasks that workers get: those that are waiting, or the deals of one that is dealt.

    Comes in: all tasks, those without a record, and the sums, which the deals of an earlier command
    are added to. `done` counts tasks and deals, of `total`; that of a part is a guess until it is
    read.
    """

    def __init__(
        self, tasks: Sequence[EncodeTask], waiting: Sequence[EncodeTask], sums: Sums
    ) -> None:
        self._waiting = waiting
        self._sums = sums
        self._deals: dict[int, int] = {}
        self.total = sum(_guessed_deals(task) for task in tasks)
        self.done = self.total - sum(_guessed_deals(task) for task in waiting)

    def tasks(self) -> Iterator[EncodeTask]:
        """All of them, each when it is asked for: then the deals of a part are read."""
        for task in self._waiting:
            if task.deal_bytes:
                yield from self._deal(task)
            else:
                yield task

    def finish(self) -> None:
        """Give each part one record in place of those of its deals, when all are encoded."""
        for task in self._waiting:
            if not task.deal_bytes:
                continue
            deals = range(self._deals[task.number])
            together = _together([_record(task, deal) for deal in deals])
            with on_disk(task.folder):
                write_encoded(task.folder, task.number, together)
                for deal in deals:
                    encoded_record(task.folder, task.number, deal).unlink()

    def _deal(self, task: EncodeTask) -> Iterator[EncodeTask]:
        with on_disk(task.folder):
            task.folder.mkdir(parents=True, exist_ok=True)
            records = task.folder.glob(f"{task.number:07d}-*.json")
            encoded = {int(path.stem.rpartition("-")[2]) for path in records}
            guessed = _guessed_deals(task)
            count = 0
            for deal in deal_out(task.part, task.deal_bytes, task.deal_path, encoded):
                count += 1
                if count > guessed:
                    self.total += 1
                if deal.number in encoded:
                    self._sums.add(_record(task, deal.number))
                    self.done += 1
                else:
                    yield replace(task, deal=deal)
        self.total -= max(0, guessed - count)
        self._deals[task.number] = count


def _guessed_deals(task: EncodeTask) -> int:
    """About how many deals the part of a task makes; 1 where it is not dealt."""
    if not task.deal_bytes:
        return 1
    return max(1, task.part.text_bytes // task.deal_bytes)


def _dealt_bytes(tasks: Sequence[EncodeTask], workers: int) -> int:
    """What the deals take that are not encoded yet."""
    most = max(task.deal_bytes for task in tasks)
    return most * workers * WAITING_TASKS


def _record(task: EncodeTask, deal: int) -> Encoded:
    record = read_encoded(task.folder, task.number, deal)
    if record is None:
        path = encoded_record(task.folder, task.number, deal)
        raise DamagedWorkError(
            f"{path}: a record of the unfinished build is gone; give the same command again"
        )
    return record


def _together(records: Sequence[Encoded]) -> Encoded:
    """The records of the deals of a task as one."""
    sums = Sums()
    for record in records:
        sums.add(record)
    return Encoded(
        spills=sums.runs,
        lowest=sums.lowest,
        documents=sums.documents,
        too_short=sums.too_short,
        without_tokens=sums.without_tokens,
        cut=sums.cut,
        already_there=sums.already_there,
        shares=sums.shares,
    )


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
