"""A cleaning that ends early goes on with the same command, and gives the same bytes."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from data_tools import disk, unfinished
from data_tools.cleaning import run as run_module
from data_tools.cleaning.report import CleanReport
from data_tools.cleaning.room import needed_bytes
from data_tools.cleaning.run import CleanOptions, clean_corpus
from data_tools.cleaning.work import CleanFolder
from data_tools.filters.catalog import parse_filters
from electra_dist.errors import EXIT_UNFINISHED, DataError, LockedError, StorageError

OPTIONS = CleanOptions(
    compress="gz", picture=False, part_bytes=8192, range_bytes=2048, file_bytes=8192
)
FILTERS = ("length:min_words=4", "exact", "near:bands=3,rows=4")


def corpus(count: int = 160) -> list[str]:
    """Every fourth text is an earlier one; others are nearly like one."""
    nouns = ("harbour", "boat", "net", "captain", "letter", "storm", "island")
    texts = []
    for number in range(count):
        words = [f"{nouns[(number * step) % 7]} {number * step % 101}" for step in range(1, 20)]
        texts.append(f"The {' and the '.join(words)}.")
        if number % 4 == 3:
            texts.append(texts[number // 2])
        if number % 9 == 8:
            texts.append(texts[-1] + " The end.")
        if number % 10 == 0:
            texts.append("too short")
    return texts


@pytest.fixture
def source(tmp_path) -> Path:
    path = tmp_path / "in.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in corpus()))
    return path


class Played:
    """The tasks of a cleaning in this process, counted by stage; it ends before task number
    `last` of all, if there is one.
    """

    def __init__(self) -> None:
        self.done: Counter[str] = Counter()
        self.last: int | None = None

    def __call__(
        self,
        function: Callable[[Any], Any],
        tasks: Sequence[Any],
        workers: int,
        stage: str,
        told: Any,
    ) -> list[Any]:
        results = []
        for number, task in enumerate(tasks, start=1):
            if self.done.total() == self.last:
                raise KeyboardInterrupt
            results.append(function(task))
            self.done[stage] += 1
            told(stage, number, len(tasks))
        return results


@pytest.fixture
def played(monkeypatch) -> Played:
    found = Played()
    monkeypatch.setattr(run_module, "run_tasks", found)
    return found


def clean(source: Path, out: Path, options: CleanOptions = OPTIONS) -> CleanReport:
    return clean_corpus([source], out, parse_filters(FILTERS), options)


def files_of(folder: Path) -> dict[Path, bytes]:
    return {
        path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


def test_interrupted_anywhere_it_goes_on_and_writes_the_same_bytes(
    source, tmp_path, played
) -> None:
    expected = clean(source, tmp_path / "expected")
    whole = Counter(played.done)
    assert min(whole.values()) > 3
    assert expected.filters[1].dropped_documents > 0
    assert expected.filters[2].dropped_documents > 0
    for last in range(0, whole.total(), 9):
        out = tmp_path / f"out-{last}"
        played.done.clear()
        played.last = last
        with pytest.raises(unfinished.WorkInterruptedError, match="same command again to go on"):
            clean(source, out)
        assert not out.exists()
        played.last = None
        assert clean(source, out) == expected
        assert files_of(out) == files_of(tmp_path / "expected")
        assert played.done == whole
        assert not CleanFolder.beside(out).path.exists()


def test_interrupted_again_and_again(source, tmp_path, played) -> None:
    expected = clean(source, tmp_path / "expected")
    out = tmp_path / "out"
    interruptions = 0
    while not out.exists():
        played.done.clear()
        played.last = 8
        try:
            assert clean(source, out) == expected
        except unfinished.WorkInterruptedError:
            interruptions += 1
    assert interruptions > 1
    assert files_of(out) == files_of(tmp_path / "expected")


def test_half_written_files_are_not_taken_for_whole_ones(source, tmp_path, played) -> None:
    clean(source, tmp_path / "expected")
    out = tmp_path / "out"
    played.done.clear()
    played.last = 3
    with pytest.raises(unfinished.WorkInterruptedError):
        clean(source, out)
    work = CleanFolder.beside(out)
    (work.spools / "000003.lines").write_bytes(b"no whole file, and no record of it")
    (work.spools / ".000004.lines.7.tmp").write_bytes(b"of a killed process")
    played.last = None
    clean(source, out)
    assert files_of(out) == files_of(tmp_path / "expected")


def test_a_signal_ends_it_in_one_sentence_and_the_command_goes_on(source, tmp_path) -> None:
    """In true processes: SIGKILL says nothing, SIGTERM how to go on."""
    large = tmp_path / "large.jsonl"
    texts = [f"{copy} {text}" for copy in range(40) for text in corpus()]
    large.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    out = tmp_path / "out"
    work = CleanFolder.beside(out)
    words = ("--input", large, "--out", out, "--no-picture", "--workers", 2, "--compress", "gz")
    command = [sys.executable, "-m", "electra_dist.cli", "data", "clean", *map(str, words)]
    command += ["--filter", "repetition", "--filter", "exact"]
    done = 0
    for number in (signal.SIGKILL, signal.SIGTERM):
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        while process.poll() is None and len(list(work.spools.glob("*.json"))) <= done:
            time.sleep(0.005)
        children = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(number)
        _, error = process.communicate(timeout=60)
        _, alive = psutil.wait_procs(children, timeout=20)
        assert alive == []
        assert not out.exists()
        done = len(list(work.spools.glob("*.json")))
    assert process.returncode == EXIT_UNFINISHED
    assert f"{out}: interrupted; what is done is kept in {work.path}" in error
    times = {path: path.stat().st_mtime_ns for path in work.spools.glob("*.json")}
    subprocess.run(command, check=True, capture_output=True)
    assert len(times) == done > 0
    filters = parse_filters(["repetition", "exact"])
    options = CleanOptions(compress="gz", picture=False)
    clean_corpus([large], tmp_path / "expected", filters, options)
    assert files_of(out) == files_of(tmp_path / "expected")


@pytest.fixture
def stopped(source, tmp_path, played) -> Path:
    """The output of a cleaning that was interrupted in its first pass."""
    out = tmp_path / "out"
    played.last = 2
    with pytest.raises(unfinished.WorkInterruptedError):
        clean(source, out)
    played.last = None
    played.done.clear()
    return out


def test_another_command_is_refused_until_it_starts_over(source, stopped, played) -> None:
    with pytest.raises(DataError, match=r"unfinished cleaning is there, and `seed` was 1234, now"):
        clean(source, stopped, replace(OPTIONS, seed=5))
    with pytest.raises(DataError, match=r"`filter` was .*'near'.*, now it is"):
        clean_corpus([source], stopped, parse_filters(["exact"]), OPTIONS)
    os.utime(source, ns=(0, 0))
    with pytest.raises(DataError, match=r"the input .*in\.jsonl.* has changed"):
        clean(source, stopped)
    assert played.done.total() == 0
    clean(source, stopped, replace(OPTIONS, again=True))
    assert played.done["filter"] > 2


def test_only_one_process_cleans_into_a_folder(source, stopped) -> None:
    with (CleanFolder.beside(stopped).path / "lock").open("a") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(LockedError, match="another process works there"):
            clean(source, stopped)


def test_a_cleaning_that_was_killed_after_its_rename_is_done(
    source, tmp_path, played, monkeypatch
) -> None:
    out = tmp_path / "out"

    def killed(self: CleanFolder) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(CleanFolder, "remove", killed)
        with pytest.raises(unfinished.WorkInterruptedError):
            clean(source, out)
    before = files_of(out)
    played.done.clear()
    report = clean(source, out)
    assert report == clean(source, tmp_path / "expected")
    assert files_of(out) == before
    assert not CleanFolder.beside(out).path.exists()


# --- room on the disk -----------------------------------------------------------------------------


def test_room_is_asked_for_before_it_starts(source, tmp_path, played, monkeypatch) -> None:
    asked = []
    monkeypatch.setattr(disk, "free_bytes", lambda folder: 1000)
    with pytest.raises(StorageError, match=r"the cleaning needs about .* are free; make room"):
        clean(source, tmp_path / "out")
    assert played.done.total() == 0
    monkeypatch.setattr(disk.Room, "ask", lambda room, needed, what: asked.append(needed))
    clean(source, tmp_path / "out")
    (needed,) = asked
    assert 0 < needed < 2 * source.stat().st_size


def test_what_is_asked_for_is_about_what_lies_there_at_the_end(
    source, tmp_path, played, monkeypatch
) -> None:
    asked = []
    found = []
    ended = CleanFolder.remove

    def watched(self: CleanFolder) -> None:
        """Without records and reports, which do not grow with the corpus."""
        lying = [*self.spools.glob("*.lines"), *self.spools.glob("*.npy")]
        lying += [*self.matches.glob("*.marks"), *(tmp_path / "out").glob("clean-*.gz")]
        found.append(sum(path.stat().st_size for path in lying))
        ended(self)

    def needed(tasks: Any) -> int:
        asked.append(needed_bytes(tasks))
        return asked[-1]

    monkeypatch.setattr(CleanFolder, "remove", watched)
    monkeypatch.setattr(run_module, "needed_bytes", needed)
    options = replace(OPTIONS, part_bytes=2**20, range_bytes=2**20)
    clean(source, tmp_path / "out", options)
    assert asked[0] == pytest.approx(found[0], rel=0.35)
