"""A pair of networks, and a browser without a screen."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, sync_playwright

from tests.support.pairs import write_pair


@pytest.fixture(scope="session")
def pair(tiny_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """discriminator/ and generator/ of 96 positions."""
    return write_pair(tmp_path_factory.mktemp("pair"), tiny_shards.parent / "tokenizer")


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Chromium, as the system has it."""
    program = shutil.which("chromium") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("no Chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield browser
        browser.close()
