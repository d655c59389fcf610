"""A push sends what an export wrote and nothing else, and says nothing of the token."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.hub_server import TOKEN, HubServer
from tests.support.toy_task import random_model

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def hub() -> Iterator[HubServer]:
    with HubServer() as server:
        yield server


@pytest.fixture(scope="module")
def written(tiny_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fine-tuned model as the command leaves it, but for its weights, which are random."""
    folder = tmp_path_factory.mktemp("written") / "model"
    tokenizer = tiny_shards.parent / "tokenizer"
    random_model(folder, "ElectraForSequenceClassification", tokenizer)
    (folder / "electra_dist.json").write_text(json.dumps({"task": "classification"}))
    (folder / "README.md").write_text("---\nlibrary_name: transformers\n---\n# A model\n")
    return folder


@pytest.fixture
def model(written: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    folder = tmp_path / "model"
    folder.mkdir()
    for file in written.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    return folder


def pushed(
    hub: HubServer, model: Path, *words: str, token: str | None = TOKEN, name: str = "jane/small"
) -> subprocess.CompletedProcess[str]:
    """`electra-dist export MODEL --push`, with a home of its own; the token shows up nowhere."""
    home = model.parent / "home"
    environment = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    environment |= {
        "PYTHONPATH": str(ROOT),
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(home),
        "HF_HUB_DISABLE_XET": "1",
        "NO_PROXY": "127.0.0.1",
    }
    if token:
        environment["HF_TOKEN"] = token
    command = [sys.executable, "-m", "electra_dist.cli", "export", str(model), "--push", name]
    done = subprocess.run(
        [*command, *words], env=environment, cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    said = done.stdout + done.stderr
    kept = [path for path in model.parent.rglob("*") if path.is_file()]
    assert TOKEN not in said
    assert not [path for path in kept if TOKEN.encode() in path.read_bytes()]
    return done


def test_a_push_sends_the_files_of_the_export_and_no_other(hub: HubServer, model: Path) -> None:
    (model / "notes.txt").write_text("mine")
    (model / ".env").write_text("SECRET=1")
    (model / "README.md").write_text("# A card that somebody has edited\n")
    done = pushed(hub, model, "--json")
    assert done.returncode == 0, done.stderr
    sent = hub.files["jane/small"]
    expected = {path.name for path in model.iterdir()} - {"notes.txt", ".env"}
    assert sent.keys() == expected
    for name, content in sent.items():
        assert content == (model / name).read_bytes()
    assert set(hub.tokens) == {TOKEN}
    assert json.loads(done.stdout)["pushed"]["files"] == sorted(expected)
    assert not hub.private["jane/small"]


def test_a_repository_that_exists_gets_another_commit_but_is_never_public_by_mistake(
    hub: HubServer, model: Path
) -> None:
    assert pushed(hub, model, "--private").returncode == 0
    assert hub.private == {"jane/small": True}
    assert pushed(hub, model, "--private").returncode == 0
    hub.private["jane/open"] = False
    done = pushed(hub, model, "--private", name="jane/open")
    assert done.returncode == 2
    assert "--private: jane/open exists on the hub and is public" in done.stderr
    assert "jane/open" not in hub.files


@pytest.mark.parametrize(
    ("request_", "status", "words"),
    [
        ("create", 401, "the hub does not know your token"),
        ("commit", 403, "your token may not write there"),
        ("commit", 409, "somebody else changes it at this moment"),
        ("commit", 412, "somebody else changed it at this moment"),
    ],
)
def test_each_refusal_of_the_hub_is_one_sentence(
    hub: HubServer, model: Path, request_: str, status: int, words: str
) -> None:
    hub.refusals[request_] = [status]
    done = pushed(hub, model)
    assert done.returncode == 2
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert line.startswith(f"error: --push jane/small: the hub answered {status}: {words}")
    assert "Traceback" not in done.stderr
    assert not hub.files


def test_a_hub_that_is_not_there_is_named(model: Path) -> None:
    with HubServer() as hub:
        pass
    done = pushed(hub, model)
    assert done.returncode == 2
    assert "--push jane/small: the hub cannot be reached" in done.stderr


def test_what_is_missing_is_said_before_the_work(hub: HubServer, model: Path) -> None:
    done = pushed(hub, model, token=None)
    assert done.returncode == 2
    assert "there is no token of the Hugging Face hub" in done.stderr
    done = pushed(hub, model, name="no-owner")
    assert "--push no-owner: expected OWNER/NAME" in done.stderr
    assert not hub.tokens


def test_a_file_that_was_changed_since_is_not_pushed(hub: HubServer, model: Path) -> None:
    files = {path.name: "0" * 32 for path in model.iterdir() if path.suffix == ".json"}
    marker = {"task": "classification", "files": files}
    (model / "electra_dist.json").write_text(json.dumps(marker))
    done = pushed(hub, model)
    assert done.returncode == 2
    assert "config.json" in done.stderr
    assert "was changed since the export" in done.stderr
    (model / "electra_dist.json").unlink()
    assert "has no electra_dist.json" in pushed(hub, model).stderr
    assert not hub.files
