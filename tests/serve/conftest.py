"""Small models of every kind with random weights, served in a process of their own or in this
one.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from electra_dist.serve.answers import open_detector, open_model
from electra_dist.serve.app import make_app
from electra_dist.serve.settings import Settings
from tests.support.toy_task import random_model

_TEXT = {"text": "text", "pair": None, "label": "label"}
MARKERS: dict[str, tuple[str, dict[str, Any]]] = {
    "classification": (
        "ElectraForSequenceClassification",
        {"task": "classification", "labels": ["no", "yes"], "columns": _TEXT, "max_length": 64},
    ),
    "pairs": (
        "ElectraForSequenceClassification",
        {
            "task": "classification",
            "labels": ["no", "yes"],
            "columns": {"text": "premise", "pair": "hypothesis", "label": "label"},
            "max_length": 64,
        },
    ),
    "question-answering": (
        "ElectraForQuestionAnswering",
        {
            "task": "question-answering",
            "max_length": 64,
            "stride": 16,
            "allow_none": False,
            "threshold": 0.0,
        },
    ),
    "multi-label": (
        "ElectraForSequenceClassification",
        {"task": "multi-label", "labels": ["no", "yes"], "columns": _TEXT, "max_length": 64},
    ),
    "token-classification": (
        "ElectraForTokenClassification",
        {
            "task": "token-classification",
            "columns": {"text": "words", "label": "labels"},
            "labels": ["B-place", "I-place"],
            "scheme": "IOB2",
            "max_length": 64,
            "stride": 16,
        },
    ),
    "multiple-choice": (
        "ElectraForMultipleChoice",
        {
            "task": "multiple-choice",
            "columns": {"text": "text", "pair": "choices", "label": "label"},
            "max_length": 64,
        },
    ),
    "ranking": (
        "ElectraForSequenceClassification",
        {
            "task": "ranking",
            "columns": {"text": "query", "pair": "candidates", "label": "relevant"},
            "max_length": 64,
        },
    ),
    "discriminator": ("ElectraForPreTraining", {"network": "discriminator"}),
    "generator": ("ElectraForMaskedLM", {"network": "generator"}),
}


@pytest.fixture(scope="session")
def models(tiny_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for each kind of model, named by it."""
    folder = tmp_path_factory.mktemp("served")
    for name, (auto_class, marker) in MARKERS.items():
        labels = 2 - (name == "ranking")
        random_model(folder / name, auto_class, tiny_shards.parent / "tokenizer", labels)
        (folder / name / "electra_dist.json").write_text(json.dumps(marker))
    return folder


@dataclass(frozen=True)
class Reply:
    """What came back."""

    status: int
    content: Any
    headers: dict[str, str]


def ask(
    url: str,
    body: bytes | None = None,
    kind: str = "application/json",
    token: str | None = None,
) -> Reply:
    """GET, or POST where there is a body; JSON is read."""
    headers = {"Content-Type": kind}
    if token is not None:
        headers["Authorization"] = f"Bearer {token}"
    request = urllib.request.Request(url, body, headers)
    try:
        with urllib.request.urlopen(request, timeout=30) as response:
            raw = response.read()
            status, found = response.status, dict(response.headers)
    except urllib.error.HTTPError as error:
        raw = error.read()
        status, found = error.code, dict(error.headers)
    if found.get("content-type") == "application/json":
        return Reply(status, json.loads(raw), found)
    return Reply(status, raw.decode(), found)


def predict(url: str, inputs: Sequence[Any], **more: Any) -> Reply:
    return ask(f"{url}/predict", json.dumps({"inputs": list(inputs)}).encode(), **more)


@dataclass
class Served:
    """A server in a process of its own."""

    process: subprocess.Popen[str]
    url: str
    log: Path

    def end(self, number: int = signal.SIGTERM) -> tuple[int, str]:
        """Exit status, and what it wrote after its first line."""
        self.process.send_signal(number)
        assert self.process.stdout is not None
        rest = self.process.stdout.read()
        return self.process.wait(30), rest


@contextmanager
def served(
    *words: str | Path, log: Path, environment: dict[str, str] | None = None
) -> Iterator[Served]:
    """`electra-dist serve` with these words, on a free port."""
    command = [sys.executable, "-m", "electra_dist.cli", "serve", *map(str, words), "--port", "0"]
    with log.open("w") as errors:
        process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env=os.environ | (environment or {}),
        )
    assert process.stdout is not None
    try:
        first = process.stdout.readline()
        found = re.search(r"http://(\S+):(\d+)", first)
        assert found, first + log.read_text()
        yield Served(process, f"http://127.0.0.1:{found[2]}", log)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


@pytest.fixture(scope="module")
def here(models: Path) -> Iterator[Callable[..., str]]:
    """Serves a kind of model in this process, and gives the address."""
    import uvicorn

    torch.set_num_threads(1)

    @contextmanager
    def running(kind: str, settings: Settings | None) -> Iterator[str]:
        device = torch.device("cpu")
        if kind == "suspects":
            model = open_detector([models / "discriminator"], models / "generator", device)
        else:
            model = open_model([models / kind], device)
        app = make_app([model], settings or Settings(folders=()))
        server = uvicorn.Server(uvicorn.Config(app, port=0, log_config=None))
        thread = threading.Thread(target=server.run)
        thread.start()
        while not server.started:
            time.sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            server.should_exit = True
            thread.join()

    with ExitStack() as stack:

        def start(kind: str, settings: Settings | None = None) -> str:
            return stack.enter_context(running(kind, settings))

        yield start
