"""Files that somebody else may have written:
never waited for, read to a bound, never through a link.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from electra_dist.files.reading import (
    NotRegularError,
    TooLargeError,
    open_regular,
    read_bounded,
    read_json,
)
from electra_dist.files.writing import write_new


def test_a_regular_file_is_read_up_to_its_bound(tmp_path: Path) -> None:
    file = tmp_path / "a"
    file.write_bytes(b"12345")
    assert read_bounded(file, 5) == b"12345"
    with pytest.raises(TooLargeError, match="larger than 4 bytes"):
        read_bounded(file, 4)
    with file.open("r+b") as sparse:
        sparse.truncate(10**12)  # read whole, it would take all memory
    with pytest.raises(TooLargeError):
        read_bounded(file, 1000)


def test_what_is_no_regular_file_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "link").symlink_to(tmp_path / "fifo")
    (tmp_path / "round").symlink_to(tmp_path / "round")
    for path in (tmp_path / "fifo", tmp_path, Path("/dev/zero"), tmp_path / "link", Path("a\0b")):
        with pytest.raises(NotRegularError):
            open_regular(path)
    for path in (tmp_path / "link", Path("/dev/stdin")):
        with pytest.raises((NotRegularError, OSError)):
            open_regular(path, follow=True)
    with pytest.raises(OSError, match="symbolic links"):
        open_regular(tmp_path / "round", follow=True)
    with pytest.raises(FileNotFoundError):
        open_regular(tmp_path / "absent")


def test_a_link_is_followed_only_where_that_is_asked_for(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("{}")
    (tmp_path / "link").symlink_to(tmp_path / "a")
    assert read_json(tmp_path / "link", follow=True) == {}
    with pytest.raises(NotRegularError, match="is a link"):
        read_json(tmp_path / "link")


def test_json_that_is_nested_too_deeply_is_no_crash(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("[" * 100_000)
    with pytest.raises(ValueError, match="nested too deeply"):
        read_json(tmp_path / "a")


def test_a_new_file_never_replaces_one(tmp_path: Path) -> None:
    write_new(tmp_path / "a", b"1")
    with pytest.raises(FileExistsError):
        write_new(tmp_path / "a", b"2")
    assert (tmp_path / "a").read_bytes() == b"1"
