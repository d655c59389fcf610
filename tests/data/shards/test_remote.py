"""Shards at a URL: the same blocks as in the folder, checked before they are kept, in a cache that
stays within its bound, by several processes at once.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from electra_dist.data.loading.loader import TrainLoader
from electra_dist.data.shards.manifest import SPLITS, TRAIN, CacheSettings, Manifest
from electra_dist.data.shards.reading import BlockReader
from electra_dist.data.shards.stores.cache import BlockCache
from electra_dist.data.sources import RunData, open_data
from electra_dist.data.step_plan import StepPlan
from electra_dist.data.steps import StepSource
from electra_dist.errors import ConfigError, DataError, StorageError
from tests.support.shards import as_version_1
from tests.support.store import Store, serving

BOUND = 100_000_000


@pytest.fixture
def store(manifest: Manifest, tmp_path: Path) -> Iterator[Store]:
    shutil.copytree(manifest.path, tmp_path / "remote")
    with serving(tmp_path / "remote") as found:
        yield found


@pytest.fixture
def cache(tmp_path: Path) -> CacheSettings:
    return CacheSettings(tmp_path / "cache", BOUND)


@pytest.fixture
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses between tries, which take no time."""
    pauses: list[float] = []
    monkeypatch.setattr("electra_dist.data.shards.stores.remote.time.sleep", pauses.append)
    return pauses


def test_every_block_is_that_of_the_folder_and_is_fetched_once(manifest, store, cache):
    for _ in range(2):
        opened = Manifest.load(store.url, cache)
        assert opened.facts == manifest.facts
        for split in SPLITS:
            reader = BlockReader(opened, split)
            local = BlockReader(manifest, split)
            assert len(reader) == len(local)
            for number in range(len(local)):
                np.testing.assert_array_equal(reader.read(number).tokens, local.read(number).tokens)
    for name, count in store.requests.items():
        if name.endswith(".tar"):
            shards = [*manifest.facts.train.shards, *manifest.facts.validation.shards]
            (blocks,) = (shard.blocks for shard in shards if shard.tar.name == name)
            assert count == blocks
        elif name != "manifest.json":
            assert count == 1, name


def test_version_1_at_a_url_is_read(store, cache):
    as_version_1(store.folder)
    local = BlockReader(Manifest.load(store.folder), TRAIN)
    reader = BlockReader(Manifest.load(store.url, cache), TRAIN)
    np.testing.assert_array_equal(reader.read(9).tokens, local.read(9).tokens)


def test_training_on_a_url_takes_the_same_steps(manifest, make_config, store, cache):
    here = make_config()
    there = make_config(
        data={"shards": store.url, "cache": str(cache.folder), "cache_bytes": BOUND}
    )
    opened = open_data(there)
    opened.check_files("sizes")
    expected = StepSource(StepPlan.of(here, 0, 1), RunData.alone(manifest))
    # the loader is a process of its own
    with TrainLoader(StepPlan.of(there, 0, 1), opened) as loader:
        for _ in range(6):
            one = next(expected).micro_batches[0]
            other = next(loader).micro_batches[0]
            np.testing.assert_array_equal(one.inputs, other.inputs)
            np.testing.assert_array_equal(one.masked_targets, other.masked_targets)


def test_a_store_that_fails_for_a_while_is_asked_again(store, cache, no_pauses):
    store.failures["manifest.json"] = 2
    opened = Manifest.load(store.url, cache)
    assert no_pauses == [0.5, 1.0]
    tar = opened.facts.train.shards[0].tar.name
    reader = BlockReader(opened, TRAIN)
    store.failures[tar] = 4
    reader.read(0)
    assert no_pauses[2:] == [0.5, 1.0, 2.0, 4.0]


def test_a_store_that_goes_on_failing_is_one_error(store, cache, no_pauses):
    opened = Manifest.load(store.url, cache)
    reader = BlockReader(opened, TRAIN)
    store.failures[""] = 1000
    with pytest.raises(DataError, match=r"train-00000\.tar: cannot be fetched, tried 6 times.*503"):
        reader.read(0)
    assert len(no_pauses) == 5


def test_what_is_missing_or_denied_is_not_asked_for_again(store, cache, no_pauses):
    (store.folder / "manifest.json").rename(store.folder / "elsewhere.json")
    with pytest.raises(DataError, match=r"manifest\.json: missing; is this the URL of a folder"):
        Manifest.load(store.url, cache)
    store.denied = True
    with pytest.raises(DataError, match=r"manifest\.json: may not be read"):
        Manifest.load(store.url, cache)
    assert not no_pauses


def test_a_damaged_block_of_the_store_is_not_kept(store, cache, no_pauses):
    opened = Manifest.load(store.url, cache)
    reader = BlockReader(opened, TRAIN)
    tar = opened.facts.train.shards[0].tar.name
    store.flipped.add(tar)
    with pytest.raises(DataError, match=rf"{store.url}/{tar}: block 0 is damaged"):
        reader.read(0)
    store.flipped.clear()
    reader.read(0)


def test_a_damaged_table_of_the_store_never_gets_its_name(store, cache, no_pauses):
    table = next(store.folder.glob("train.blocks-*.npy")).name
    opened = Manifest.load(store.url, cache)
    store.flipped.add(table)
    with pytest.raises(DataError, match=rf"{table}: cannot be fetched, tried 6 .*SHA-256 differs"):
        BlockReader(opened, TRAIN)
    assert not (opened.path / table).exists()
    store.flipped.clear()
    BlockReader(opened, TRAIN)


def test_a_damaged_block_of_the_cache_is_fetched_again(store, cache, capfd):
    reader = BlockReader(Manifest.load(store.url, cache), TRAIN)
    expected = reader.read(0).tokens.copy()
    (kept,) = (path for path in cache.folder.rglob("*-train-00000-000000"))
    content = bytearray(kept.read_bytes())
    content[1700] ^= 1
    kept.write_bytes(content)
    np.testing.assert_array_equal(reader.read(0).tokens, expected)
    assert "in the cache of remote shards is damaged" in capfd.readouterr().err
    asked = store.requests.total()
    np.testing.assert_array_equal(reader.read(0).tokens, expected)
    assert store.requests.total() == asked


def test_what_a_url_cannot_be(cache, store):
    with pytest.raises(ConfigError, match=r"need data\.cache"):
        Manifest.load(store.url)
    with pytest.raises(ConfigError, match="a credential is written in this URL") as refused:
        Manifest.load("https://user:secret@example.com/shards", cache)
    assert "secret" not in str(refused.value)
    with pytest.raises(ConfigError, match="the parameter token of this URL") as refused:
        Manifest.load("https://example.com/shards?token=opensesame", cache)
    assert "opensesame" not in str(refused.value)
    with pytest.raises(ConfigError, match="give the folder itself"):
        Manifest.load("file:///etc", cache)
    with pytest.raises(ConfigError, match=r"data\.cache_bytes = 5: .* set at least \d+"):
        BlockReader(Manifest.load(store.url, CacheSettings(cache.folder, 5)), TRAIN)
    with pytest.raises(ConfigError, match=r"Set data\.verify=sizes"):
        Manifest.load(store.url, cache).check_files("checksums")


# --- the cache ------------------------------------------------------------------------------------


def bytes_kept(folder: Path) -> int:
    return sum(
        path.stat().st_size for path in folder.rglob("*") if path.is_file() and path.name != ".used"
    )


def test_the_least_recently_used_goes_first(tmp_path):
    kept = BlockCache(tmp_path, 1000, 100, buckets=1)
    for number in range(10):
        kept.write(f"b{number}", bytes([number]) * 100)
        os.utime(tmp_path / "blocks" / "00" / f"b{number}", ns=(number, number))
    assert bytes_kept(tmp_path) == 1000
    assert kept.read("b0", 100) == bytes(100)  # now the last one that was used
    kept.write("new", b"x" * 100)
    assert bytes_kept(tmp_path) <= 1000
    assert kept.read("b1", 100) is None
    assert kept.read("b2", 100) is None
    assert kept.read("b0", 100) is not None
    assert kept.read("b9", 100) is not None
    assert kept.read("new", 100) == b"x" * 100


def test_what_a_killed_process_left_is_cleared(tmp_path):
    kept = BlockCache(tmp_path, 1000, 100, buckets=1)
    kept.write("one", b"1" * 100)
    bucket = tmp_path / "blocks" / "00"
    (bucket / ".two.tmp").write_bytes(b"half")
    (bucket / ".used").write_bytes((990).to_bytes(8, "little"))  # counted, and never written
    kept.write("three", b"3" * 100)
    assert sorted(path.name for path in bucket.iterdir()) == [".used", "one", "three"]
    assert int.from_bytes((bucket / ".used").read_bytes(), "little") == 200


def test_a_link_or_an_entry_that_is_too_large_is_not_read(tmp_path):
    kept = BlockCache(tmp_path, 1000, 100, buckets=1)
    kept.write("one", b"1" * 100)
    bucket = tmp_path / "blocks" / "00"
    (tmp_path / "secret").write_bytes(b"s" * 100)
    (bucket / "two").symlink_to(tmp_path / "secret")
    assert kept.read("two", 100) is None
    assert kept.read("one", 99) is None


def test_a_cache_that_cannot_be_written_is_one_sentence(tmp_path):
    (tmp_path / "blocks").write_text("a file")
    with pytest.raises(StorageError, match="the cache of remote shards cannot be written"):
        BlockCache(tmp_path, 1000, 100, buckets=1).write("one", b"1")


READER = """
import sys
from pathlib import Path
from electra_dist.data.shards.stores.cache import BlockCache
cache = BlockCache(Path(sys.argv[1]), 40_000, 1_000, buckets=4)
for turn in range(3):
    for number in range(100):
        name = f"b{(number + 37 * int(sys.argv[2])) % 100}"
        expected = name.encode().ljust(1_000, b".")
        found = cache.read(name, 1_000)
        if found is None:
            cache.write(name, expected)
        else:
            assert found == expected, (name, found[:9])
"""


def test_several_processes_share_a_cache_that_never_passes_its_bound(tmp_path):
    """Four processes, two and a half times as much as there is room for."""
    words = (sys.executable, "-c", READER, str(tmp_path))
    processes = [subprocess.Popen([*words, str(number)]) for number in range(4)]
    most = 0
    while any(process.poll() is None for process in processes):
        try:
            most = max(most, bytes_kept(tmp_path))
        except FileNotFoundError:  # it went while it was looked at
            continue
    assert [process.wait() for process in processes] == [0] * 4
    assert 0 < most <= 40_000
    assert 0 < bytes_kept(tmp_path) <= 40_000
    for bucket in (tmp_path / "blocks").iterdir():
        counted = int.from_bytes((bucket / ".used").read_bytes(), "little")
        assert counted == bytes_kept(bucket)


def test_ranks_of_a_node_fetch_tables_and_tokenizer_once(store, cache):
    code = (
        "import sys; from pathlib import Path\n"
        "from electra_dist.data.shards.manifest import CacheSettings, Manifest\n"
        "from electra_dist.data.shards.reading import BlockReader\n"
        "opened = Manifest.load(sys.argv[1], CacheSettings(Path(sys.argv[2]), 100_000_000))\n"
        "BlockReader(opened, 'train').read(0)\n"
    )
    words = (sys.executable, "-c", code, store.url, str(cache.folder))
    processes = [subprocess.Popen(words) for _ in range(3)]
    assert [process.wait() for process in processes] == [0] * 3
    once = {name: count for name, count in store.requests.items() if name.endswith((".npy", "son"))}
    manifest = once.pop("manifest.json")
    assert manifest == 3
    assert set(once.values()) == {1}


def test_a_handle_opens_the_manifest_without_asking_for_it_again(store, cache):
    opened = Manifest.load(store.url, cache)
    asked = store.requests.total()
    again = Manifest.from_handle(opened.to_handle())
    assert again.facts == opened.facts
    assert again.remote == opened.remote
    assert store.requests.total() == asked
