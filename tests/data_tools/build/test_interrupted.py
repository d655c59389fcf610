"""Builds that end early: signals, a full disk, another builder, another command."""

from __future__ import annotations

import fcntl
import json
import resource
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from data_tools import disk as disk_module
from data_tools.build import BuildOptions, build_part, build_shards, merge_parts
from data_tools.sources import ReadOptions, find_inputs
from electra_dist.errors import EXIT_UNFINISHED, DataError, LockedError, StorageError
from tests.support.disks import tiny_disk
from tests.support.inline import play_inline

SMALL = BuildOptions(validation=0.15, part_bytes=20_000)


def write(path: Path, texts: list[str]) -> Path:
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return path


@pytest.fixture
def source(topic_texts, tmp_path) -> Path:
    return write(tmp_path / "texts.jsonl", topic_texts[:60])


def files_of(folder: Path) -> dict[Path, bytes]:
    return {
        path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


# --- signals, in true processes -------------------------------------------------------------------


def start(*words: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "electra_dist.cli", "data", "build", *map(str, words)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for(folder: Path, count: int, process: subprocess.Popen[str]) -> None:
    """Until so many encoding tasks are done."""
    while process.poll() is None and len(list(folder.glob("encoded/*/*.json"))) < count:
        time.sleep(0.005)


@pytest.fixture
def large(topic_texts, tmp_path) -> Path:
    """Some ten tasks of a megabyte: time enough to be killed in one of them, three times."""
    texts = [f"{copy} {text}" for copy in range(12) for text in topic_texts]
    return write(tmp_path / "large.jsonl", texts)


def test_killed_by_any_signal_the_same_command_goes_on(large, tokenizer_dir, tmp_path, monkeypatch):
    play_inline(monkeypatch)
    expected = tmp_path / "expected"
    build_shards([large], tokenizer_dir, expected)
    out = tmp_path / "shards"
    work = tmp_path / ".shards.building"
    words = ("--input", large, "--tokenizer", tokenizer_dir, "--out", out, "--workers", 2)
    done_before = 0
    for number in (signal.SIGKILL, signal.SIGTERM, signal.SIGINT):
        process = start(*words)
        # one more than before: the process itself has done something
        wait_for(work, done_before + 1, process)
        children = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(number)
        _, error = process.communicate(timeout=60)
        _, alive = psutil.wait_procs(children, timeout=20)
        assert not alive, "workers end with their parent"
        if number == signal.SIGKILL:
            assert process.returncode == -signal.SIGKILL
        else:
            assert process.returncode == EXIT_UNFINISHED
            assert f"error: {out}: interrupted; what is done is kept in {work}" in error
            assert "Traceback" not in error
        assert not out.exists()
        records = len(list(work.glob("encoded/*/*.json")))
        assert records > done_before, "what is done is kept"
        done_before = records
    process = start(*words)
    assert process.wait(timeout=120) == 0, process.communicate()
    assert files_of(out) == files_of(expected)
    assert not work.exists()


# --- refused --------------------------------------------------------------------------------------


@pytest.fixture
def unfinished(source, tokenizer_dir, tmp_path, monkeypatch) -> Path:
    """The output of a build that was interrupted while it wrote shards."""
    play_inline(monkeypatch)

    def interrupt(*given: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("data_tools.build.shards.write_all", interrupt)
        with pytest.raises(DataError.__base__, match="interrupted; what is done is kept"):
            build_shards([source], tokenizer_dir, tmp_path / "shards", SMALL)
    return tmp_path / "shards"


def test_another_command_is_refused_and_again_starts_over(
    unfinished, source, tokenizer_dir, tmp_path
):
    other = replace(SMALL, min_characters=7)
    with pytest.raises(DataError, match=r"`min_characters` was 1, now it is 7; .* or `again` to"):
        build_shards([source], tokenizer_dir, unfinished, other)
    with pytest.raises(DataError, match="`part` was None, now it is 1/2"):
        build_part([source], tokenizer_dir, unfinished, 1, 2, SMALL)
    expected = build_shards([source], tokenizer_dir, tmp_path / "expected", other).manifest
    found = build_shards([source], tokenizer_dir, unfinished, replace(other, again=True)).manifest
    assert found.fingerprint == expected.fingerprint
    assert not (tmp_path / ".shards.building").exists()


def test_changed_input_is_refused_by_name(unfinished, source, tokenizer_dir, tmp_path):
    more = write(tmp_path / "more.jsonl", ["one more"])
    with pytest.raises(DataError, match=r"the input '.*more\.jsonl' is new"):
        build_shards([source, more], tokenizer_dir, unfinished, SMALL)
    with pytest.raises(DataError, match=r"the input '.*texts\.jsonl' is gone"):
        build_shards([more], tokenizer_dir, unfinished, SMALL)
    with source.open("a") as file:
        file.write('{"text": "changed"}\n')
    with pytest.raises(DataError, match=r"the input '.*texts\.jsonl' has changed"):
        build_shards([source], tokenizer_dir, unfinished, SMALL)


def test_input_read_in_another_way_is_refused(unfinished, source, tokenizer_dir):
    inputs = find_inputs([source], ReadOptions(documents="line"))
    with pytest.raises(
        DataError, match=r"its input was read in another way \(documents blank-line"
    ):
        build_shards(inputs, tokenizer_dir, unfinished, SMALL)


def test_the_number_of_workers_may_change(unfinished, source, tokenizer_dir, tmp_path):
    expected = build_shards([source], tokenizer_dir, tmp_path / "expected", SMALL).manifest
    stats = build_shards([source], tokenizer_dir, unfinished, replace(SMALL, workers=3))
    assert stats.manifest.fingerprint == expected.fingerprint
    assert stats.documents == 60


def test_two_builders_of_one_folder_are_one_too_many(unfinished, source, tokenizer_dir, tmp_path):
    before = files_of(tmp_path / ".shards.building")
    with (tmp_path / ".shards.building" / "lock").open("a") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        for again in (False, True):
            with pytest.raises(LockedError, match=r"another process works there \(process \d+ on"):
                build_shards([source], tokenizer_dir, unfinished, replace(SMALL, again=again))
    assert files_of(tmp_path / ".shards.building") == before


def test_a_damaged_file_of_the_unfinished_build_is_named(unfinished, source, tokenizer_dir):
    work = unfinished.parent / ".shards.building"
    victim = sorted(work.glob("encoded/*/*.ids"))[0]
    victim.write_bytes(victim.read_bytes()[:-8])
    with pytest.raises(DataError, match=f"{victim.name}: a file of the unfinished build is gone"):
        build_shards([source], tokenizer_dir, unfinished, SMALL)
    assert work.exists()
    build_shards([source], tokenizer_dir, unfinished, replace(SMALL, again=True))


def test_parts_must_belong_together(source, tokenizer_dir, tmp_path, monkeypatch):
    play_inline(monkeypatch)
    parts = [tmp_path / f"part-{number}" for number in (1, 2, 3)]
    for number, part in enumerate(parts, start=1):
        build_part([source], tokenizer_dir, part, number, 3, SMALL)
    out = tmp_path / "shards"
    with pytest.raises(DataError, match="parts are missing: 2/3; give all 3 of them"):
        merge_parts([parts[0], parts[2]], out)
    with pytest.raises(DataError, match="part 2/3 is given twice"):
        merge_parts([*parts, parts[1]], out)
    with pytest.raises(DataError, match=r"no part\.json there"):
        merge_parts([tmp_path], out)
    other = tmp_path / "other"
    build_part([source], tokenizer_dir, other, 2, 3, replace(SMALL, seed=7))
    with pytest.raises(DataError, match=r"other: is a part of another build than .*: its options"):
        merge_parts([parts[0], other, parts[2]], out)
    with pytest.raises(DataError, match="`part` 4/3: expected I/N with 1 <= I <= N"):
        build_part([source], tokenizer_dir, out, 4, 3, SMALL)
    assert not out.exists()


# --- a full disk ----------------------------------------------------------------------------------


def test_the_room_is_asked_for_before_the_work(source, tokenizer_dir, tmp_path, monkeypatch):
    play_inline(monkeypatch)
    monkeypatch.setattr(disk_module, "free_bytes", lambda folder: 10_000)
    with pytest.raises(StorageError, match=r"the build needs about 0\.\d MB more .* 0\.0 MB are"):
        build_shards([source], tokenizer_dir, tmp_path / "shards", SMALL)


def test_the_guess_of_the_room_is_near_what_is_used(source, tokenizer_dir, tmp_path, monkeypatch):
    play_inline(monkeypatch)
    asked = []
    monkeypatch.setattr(
        disk_module.Room, "ask", lambda room, needed, what: asked.append((what, needed))
    )
    build_shards([source], tokenizer_dir, tmp_path / "shards", SMALL)
    guess = dict(asked)["the build"]
    shards = sum(path.stat().st_size for path in (tmp_path / "shards").glob("*.tar"))
    assert 1.5 * shards < guess < 3 * shards


def test_a_disk_that_fills_up_is_one_sentence_and_the_build_goes_on(
    source, tokenizer_dir, tmp_path, monkeypatch
):
    play_inline(monkeypatch)
    monkeypatch.setattr(disk_module, "free_bytes", lambda folder: 10**15)
    expected = build_shards([source], tokenizer_dir, tmp_path / "expected", SMALL).manifest
    with tiny_disk(tmp_path / "disk", "400k") as disk:
        with pytest.raises(StorageError, match="cannot be written: no space left; make room") as e:
            build_shards([source], tokenizer_dir, disk / "shards", SMALL)
        assert str(disk) in str(e.value)
        subprocess.run(["mount", "-o", "remount,size=20m", str(disk)], check=True)
        stats = build_shards([source], tokenizer_dir, disk / "shards", SMALL)
        assert stats.manifest.fingerprint == expected.fingerprint
        assert sorted(path.name for path in disk.iterdir()) == ["shards"]


def test_a_limit_on_the_size_of_files_is_one_sentence_too(
    source, tokenizer_dir, tmp_path, monkeypatch
):
    play_inline(monkeypatch)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (9_000, before[1]))
    try:
        with pytest.raises(StorageError, match="cannot be written: File too large; make room"):
            build_shards([source], tokenizer_dir, tmp_path / "shards", SMALL)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    stats = build_shards([source], tokenizer_dir, tmp_path / "shards", SMALL)
    assert stats.documents == 60
