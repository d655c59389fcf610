"""A small file system of its own, in memory: a disk that is soon full, or read-only."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


def mount(place: Path, options: str) -> None:
    """Mount one at `place`, or change the one there with `remount,...`.

    Skips the test where the system allows no mounts: without root, and in some containers.
    """
    if options.startswith("remount"):
        kind = []
    else:
        kind = ["-t", "tmpfs", "tmpfs"]
    command = ["mount", "-o", options, *kind, str(place)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        reason = done.stderr.partition("\n")[0]
        pytest.skip(f"no file system can be mounted here: {reason}")


@contextmanager
def tiny_disk(place: Path, size: str) -> Iterator[Path]:
    """The folder `place`, made where it is missing, with `size` of room, as "64k" or "8m"."""
    place.mkdir(exist_ok=True)
    mount(place, f"size={size}")
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)
