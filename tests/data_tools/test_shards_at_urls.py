"""`data verify` and `data inspect` of shards at a URL: what they say of the folder, over HTTP and
from a bucket in memory, from one stream over each shard and with nothing left on the disk.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from data_tools.build import BuildOptions, build_shards
from data_tools.inspect import inspect_shards
from data_tools.verify import verify_shards
from electra_dist.cli.main import main
from electra_dist.data.shards.stores import remote
from electra_dist.errors import ConfigError, DataError
from tests.support.store import Store, serving


@pytest.fixture(scope="module")
def shards(
    topics_file: Path, tokenizer_dir: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    out = tmp_path_factory.mktemp("shards") / "shards"
    options = BuildOptions(validation=0.2, block_tokens=1024, shard_blocks=16)
    build_shards([topics_file], tokenizer_dir, out, options)
    return out


@pytest.fixture
def store(shards: Path, tmp_path: Path) -> Iterator[Store]:
    shutil.copytree(shards, tmp_path / "remote")
    with serving(tmp_path / "remote") as found:
        yield found


@pytest.fixture
def bucket(shards: Path) -> Iterator[str]:
    system = fsspec.filesystem("memory")
    system.put(str(shards), "bucket/shards", recursive=True)
    yield "memory://bucket/shards"
    system.rm("bucket", recursive=True)


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary folders are made."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("electra_dist.data.shards.stores.remote.time.sleep", lambda _: None)


def flip(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


def tars(store: Store) -> list[str]:
    return sorted(path.name for path in store.folder.glob("train-*.tar"))


def test_verify_says_of_a_url_what_it_says_of_the_folder(shards, store, bucket, temporary):
    local = verify_shards(shards)
    for url, workers in ((store.url, 1), (store.url, 2), (bucket, 1)):
        found = verify_shards(url, workers=workers)
        assert found.ok, found.problems
        assert not found.listed
        same = dataclasses.replace(local, path=url, listed=False, seconds=found.seconds)
        assert found == same
    assert list(temporary.iterdir()) == []


def test_each_shard_is_streamed_once_in_bounded_pieces(store, monkeypatch):
    monkeypatch.setattr(remote, "_CHUNK", 16384)
    sizes = {path.name: path.stat().st_size for path in store.folder.glob("*.tar")}
    assert max(sizes.values()) > 3 * 16384
    assert verify_shards(store.url).ok
    for name, size in sizes.items():
        # the last piece asks for one byte more than the manifest says
        assert store.requests[name] == -(-(size + 1) // 16384), name


def test_nothing_of_a_shard_comes_to_the_disk(store, temporary, monkeypatch):
    seen: set[str] = set()
    read = remote.Remote.read

    def watched(self: remote.Remote, name: str, offset: int, count: int) -> bytes:
        seen.update(path.name for path in temporary.rglob("*"))
        return read(self, name, offset, count)

    monkeypatch.setattr(remote.Remote, "read", watched)
    assert verify_shards(store.url).ok
    assert inspect_shards(store.url).splits["train"].documents
    assert any(name.endswith(".npy") for name in seen)
    assert not any(name.endswith(".tar") or "-000000" in name for name in seen)


def test_every_kind_of_damage_at_a_url_is_named(store):
    names = tars(store)
    places = [store.folder / name for name in names]
    flip(places[1], 2048 + 40)
    os.truncate(places[2], 3000)
    with places[3].open("ab") as file:
        file.write(b"x" * 5000)
    places[4].unlink()
    for workers in (1, 2):
        problems = verify_shards(store.url, workers=workers).problems
        of = {
            name: [line for line in problems if line.startswith(f"{store.url}/{name}: ")]
            for name in names
        }
        assert not of[names[0]]
        assert "its content is not what was written" in of[names[1]][0]
        assert f"verify {store.url}` finds" in of[names[1]][1]
        assert "has 3000 bytes, the manifest says" in of[names[2]][0]
        size = places[3].stat().st_size - 5000
        assert f"is larger than the {size} bytes of the manifest" in of[names[3]][0]
        assert "missing" in of[names[4]][0]
        assert sum(map(len, of.values())) == len(problems)


def test_a_shard_that_ends_where_a_piece_ends_is_too_short_and_not_unreachable(store, monkeypatch):
    monkeypatch.setattr(remote, "_CHUNK", 16384)
    name = tars(store)[0]
    os.truncate(store.folder / name, 32768)
    problems = verify_shards(store.url).problems
    assert problems[0].startswith(f"{store.url}/{name}: has 32768 bytes, the manifest says")
    # the piece after the end is asked for once, not six times
    assert store.requests[name] == 3


def test_what_fails_for_a_while_is_tried_again(store):
    names = tars(store)
    store.failures[names[0]] = 3
    store.failures["manifest.json"] = 2
    assert verify_shards(store.url).ok
    store.failures[names[0]] = 6
    (problem,) = verify_shards(store.url).problems
    assert problem.startswith(f"{store.url}/{names[0]}: cannot be fetched, tried 6 times")


def test_inspect_gives_the_same_figures_from_a_url(shards, store, bucket):
    local = inspect_shards(shards)
    for url in (store.url, bucket):
        assert inspect_shards(url) == dataclasses.replace(local, path=url)


@pytest.mark.parametrize("command", ["verify", "inspect"])
def test_the_commands_take_urls_and_say_one_sentence_of_bad_ones(store, command, capsys):
    assert main(["data", command, store.url, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["path"] == store.url
    assert main(["data", command, f"{store.url}/elsewhere"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{store.url}/elsewhere/manifest.json: missing" in line
    store.denied = True
    assert main(["data", command, store.url]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "may not be read" in line


@pytest.mark.parametrize("read", [verify_shards, inspect_shards])
def test_a_url_with_a_credential_is_refused_and_not_repeated(read):
    with pytest.raises(ConfigError, match="a credential is written in this URL") as caught:
        read("https://someone:hunter2@example.org/shards")
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("read", [verify_shards, inspect_shards])
def test_a_damaged_manifest_or_table_at_a_url_is_called_by_its_url(store, read):
    path = store.folder / "manifest.json"
    content = json.loads(path.read_text())
    content["vocab_size"] = "many"
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match=f"{store.url}/manifest.json: damaged at vocab_size"):
        read(store.url)
    path.write_text("{")
    with pytest.raises(DataError, match=f"{store.url}/manifest.json: cannot be read as JSON"):
        read(store.url)


def test_a_damaged_table_at_a_url_is_called_by_its_url(store):
    (table,) = store.folder.glob("train.blocks-*.npy")
    flip(table, 300)
    with pytest.raises(DataError, match=f"{store.url}/{table.name}: .*SHA-256 differs"):
        verify_shards(store.url)
