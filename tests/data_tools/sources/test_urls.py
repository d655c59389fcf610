"""URLs: read through `fsspec`, refused where they hold a credential, which is never printed."""

from __future__ import annotations

import functools
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from data_tools.sources import ReadOptions, find_inputs
from electra_dist.errors import DataError
from tests.support.reading import parts_of, read_all


class QuietServer(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def server(samples: Path) -> Iterator[str]:
    """The address of a server of the samples."""
    handler = functools.partial(QuietServer, directory=str(samples))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as serving:
        threading.Thread(target=serving.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{serving.server_port}"
        serving.shutdown()


@pytest.fixture
def bucket(samples: Path) -> Iterator[str]:
    """A bucket in memory, with two samples and what is left out."""
    system = fsspec.filesystem("memory")
    for name in ("documents.txt", "documents.jsonl"):
        system.pipe(f"bucket/deep/{name}", (samples / name).read_bytes())
    system.pipe("bucket/readme.md", b"x")
    system.pipe("bucket/.hidden.txt", b"x")
    system.pipe("bucket/empty.txt", b"")
    yield "memory://bucket"
    system.rm("bucket", recursive=True)


def test_a_bucket_is_a_folder(bucket: str, samples: Path) -> None:
    expected = read_all(samples / "documents.jsonl", samples / "documents.txt")
    for given in (bucket, f"{bucket}/deep", f"{bucket}/**/*.*", f"{bucket}/deep/*"):
        assert read_all(given) == expected, given
    assert read_all(f"{bucket}/deep/documents.txt") == read_all(samples / "documents.txt")
    report = find_inputs([bucket]).report
    assert {(row.suffix, row.left_out) for row in report.left_out} == {
        (".md", "unknown suffix"),
        (".txt", "hidden"),
        (".txt", "empty"),
    }
    with pytest.raises(DataError, match="`strict`"):
        find_inputs([bucket], ReadOptions(strict=True))


def test_a_file_of_a_bucket_is_cut(bucket: str, samples: Path) -> None:
    given = f"{bucket}/deep/documents.txt"
    assert len(parts_of(given, part_bytes=300)) > 5
    assert read_all(given, part_bytes=300) == read_all(samples / "documents.txt")


def test_a_file_of_a_server_is_read(server: str, samples: Path) -> None:
    given = f"{server}/documents.jsonl"
    assert read_all(given) == read_all(samples / "documents.jsonl")
    assert read_all(f"{given}?version=3") == read_all(samples / "documents.jsonl")
    with pytest.raises(DataError, match=r"missing\.txt: cannot be read"):
        read_all(f"{server}/missing.txt")


def test_a_server_is_not_searched_and_a_format_can_be_named(server: str, samples: Path) -> None:
    with pytest.raises(DataError, match=r"unknown input format; expected a URL ending in \.txt"):
        find_inputs([f"{server}/README.md"])
    expected = [(samples / "README.md").read_text(encoding="utf-8")]
    assert read_all(f"{server}/README.md", format="txt", documents="file") == expected


def test_a_url_of_a_file_is_its_path(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("text")
    found = find_inputs([f"file://{tmp_path}", tmp_path / "a.txt"])
    assert [file.name for file in found.files] == [f"{tmp_path}/a.txt"]


@pytest.mark.parametrize(
    "url",
    [
        "https://user:hunter2@example.org/a.txt",
        "https://hunter2@example.org/a.txt",
        "s3://AKIA:hunter2@bucket/a.txt",
        "sftp://user:hunter2@host/a.txt",
        "https://example.org/a.txt?X-Amz-Signature=hunter2",
        "https://example.org/a.txt?sv=1&sig=hunter2",
        "https://example.org/a.txt?access_token=hunter2",
        "https://example.org/a.txt?X-Amz-Credential=hunter2",
    ],
)
def test_a_credential_in_a_url_is_refused_and_not_printed(url: str) -> None:
    with pytest.raises(DataError, match=r"credential.*environment") as caught:
        find_inputs([url])
    assert "hunter2" not in str(caught.value)


def test_parameters_of_a_url_are_not_printed() -> None:
    with pytest.raises(DataError, match=r"https://127\.0\.0\.1:9/a\.txt\?\.\.\.: ") as caught:
        find_inputs(["https://127.0.0.1:9/a.txt?unknown=hunter2"])
    assert "a.txt?unknown" not in str(caught.value).split(": ")[0]


def test_a_service_without_its_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(url: str) -> None:
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr("fsspec.core.url_to_fs", missing)
    with pytest.raises(DataError, match=r"s3://bucket/a\.txt: .*Install s3fs to access S3"):
        find_inputs(["s3://bucket/a.txt"])


def test_an_unknown_service_is_named() -> None:
    with pytest.raises(DataError, match=r"nosuch://x/a\.txt: is no URL that fsspec knows"):
        find_inputs(["nosuch://x/a.txt"])
