"""Requests per second and latency of `electra-dist serve`, against a plain `transformers` pipeline.

    python benchmarks/serve.py --model finetuned/reviews --texts texts.txt --clients 1 16 \
        --seconds 8 --rounds 5 --json serve.json

Every server is a process of its own, with FastAPI and uvicorn, on the same model folder:

    plain     `pipeline("text-classification")` in a route, one text at a time, as people write it
    batching  one pipeline behind a queue: what waits is taken as one batch
    ours      `electra-dist serve` as it comes
    graph     the same with `--onnx`, where `--graph` is given: the folder gets its graph first

Each of `--clients` connections sends one text, waits for the answer, sends the next. The servers
take turns in every round; figures are medians over the rounds. On a machine that is shared with
other work, requests per second of the processor say more than those of the clock. The answers of
all three must be equal, else there are no figures. With `--size small` the folder gets random
weights of ELECTRA-Small's size first, which changes no speed.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
import math
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from launcher.local import free_port

#: Probabilities of two servers may differ by this much.
TOLERANCE = 1e-5
PEERS = Path(__file__).with_name("serve_peers.py")
SERVERS = ("plain", "batching", "ours")
GRAPH = "graph"
Probabilities = dict[str, float]


# --- the servers ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Server:
    """One that answers."""

    name: str
    port: int
    process: psutil.Process

    def cpu_seconds(self) -> float:
        """Of all its threads, since it started."""
        times = self.process.cpu_times()
        return float(times.user + times.system)


@contextlib.contextmanager
def running(name: str, folder: Path, extra: Sequence[str]) -> Iterator[Server]:
    """A server of its own process, until the end of the block."""
    port = free_port()
    if is_ours(name):
        graph = ["--onnx"] if name == GRAPH else []
        serve = ["-m", "electra_dist.cli", "serve", str(folder), "--port", str(port)]
        words = [*serve, *graph, *extra]
    else:
        words = [str(PEERS), name, str(folder), str(port)]
    process = subprocess.Popen(
        [sys.executable, *words],
        stdout=subprocess.DEVNULL,
        env=os.environ | {"HF_HUB_OFFLINE": "1"},
    )
    try:
        until = time.monotonic() + 120
        while not answers(name, port):
            if process.poll() is not None or time.monotonic() > until:
                raise SystemExit(f"{name}: the server does not answer")
            time.sleep(0.2)
        yield Server(name, port, psutil.Process(process.pid))
    finally:
        process.terminate()
        process.wait()


def is_ours(name: str) -> bool:
    """Whether it is `electra-dist serve`, which is asked in another way."""
    return name in ("ours", GRAPH)


def answers(name: str, port: int) -> bool:
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/predict",
        body(name, "a text"),
        {"Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=30) as response:  # noqa: S310
            return bool(response.status == 200)
    except OSError:
        return False


# --- the clients ----------------------------------------------------------------------------------


def body(name: str, text: str) -> bytes:
    content: Any = {"text": text}
    if is_ours(name):
        content = {"inputs": [text]}
    return json.dumps(content).encode()


def probabilities(name: str, content: Any) -> Probabilities:
    if is_ours(name):
        found: Probabilities = content["predictions"][0]["probabilities"]
        return found
    return {one["label"]: one["score"] for one in content}


@dataclass(frozen=True)
class Round:
    """What one server did in one round: seconds, those of its processor, latencies, the last
    answer to each text.
    """

    seconds: float
    cpu_seconds: float
    latencies: list[float]
    answers: dict[str, Probabilities]

    @property
    def rate(self) -> float:
        """Requests per second."""
        return len(self.latencies) / self.seconds

    @property
    def cpu_rate(self) -> float:
        """Requests per second of the processor."""
        return len(self.latencies) / self.cpu_seconds


async def ask(server: Server, texts: Sequence[str], clients: int, seconds: float) -> Round:
    """Ask for so many seconds, the texts in turn; what is under way then is waited for."""
    import aiohttp

    name = server.name
    url = f"http://127.0.0.1:{server.port}/predict"
    headers = {"Content-Type": "application/json"}
    latencies: list[float] = []
    found: dict[str, Probabilities] = {}
    rest = itertools.cycle(texts)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=clients)) as session:

        async def client() -> None:
            while time.perf_counter() < until:
                text = next(rest)
                begun = time.perf_counter()
                async with session.post(url, data=body(name, text), headers=headers) as reply:
                    content = await reply.json()
                latencies.append(time.perf_counter() - begun)
                found[text] = probabilities(name, content)

        before = server.cpu_seconds()
        started = time.perf_counter()
        until = started + seconds
        await asyncio.gather(*(client() for _ in range(clients)))
        taken = time.perf_counter() - started
        cpu_seconds = server.cpu_seconds() - before
    return Round(taken, cpu_seconds, latencies, found)


def check_equal(
    name: str, expected: dict[str, Probabilities], found: dict[str, Probabilities]
) -> None:
    """No figures where the answers differ."""
    for text in expected.keys() & found.keys():
        for label, probability in expected[text].items():
            if not abs(probability - found[text][label]) <= TOLERANCE:
                raise SystemExit(f"{name}: another answer to {text!r}; no figures")


def percentile(values: Sequence[float], share: float) -> float:
    return sorted(values)[math.ceil(share * len(values)) - 1]


# --- the measurement ------------------------------------------------------------------------------


def small(model: Path, out: Path) -> Path:
    """A copy of the folder with random weights of ELECTRA-Small's size."""
    import torch
    import transformers

    shutil.copytree(model, out)
    before = transformers.ElectraConfig.from_pretrained(model)
    config = transformers.ElectraConfig(
        vocab_size=before.vocab_size,
        embedding_size=128,
        hidden_size=256,
        num_hidden_layers=12,
        num_attention_heads=4,
        intermediate_size=1024,
        max_position_embeddings=512,
        id2label=before.id2label,
        label2id=before.label2id,
    )
    torch.manual_seed(0)
    transformers.ElectraForSequenceClassification(config).save_pretrained(out)
    return out


def with_graph(folder: Path, out: Path) -> Path:
    """A copy of the folder with its graph for onnxruntime."""
    shutil.copytree(folder, out)
    shutil.rmtree(out / "onnx", ignore_errors=True)
    export = [sys.executable, "-m", "electra_dist.cli", "export", str(out), "--onnx"]
    subprocess.run(export, check=True, stdout=subprocess.DEVNULL)
    return out


def measure(
    options: argparse.Namespace, folder: Path, texts: Sequence[str]
) -> list[dict[str, Any]]:
    rows = []
    names = (*SERVERS, GRAPH) if options.graph else SERVERS
    with contextlib.ExitStack() as stack:
        servers = [stack.enter_context(running(name, folder, options.ours)) for name in names]
        for clients in options.clients:
            rounds: dict[str, list[Round]] = {name: [] for name in names}
            for _ in range(options.rounds):
                for server in servers:
                    done = asyncio.run(ask(server, texts, clients, options.seconds))
                    rounds[server.name].append(done)
                    check_equal(server.name, rounds["plain"][-1].answers, done.answers)
            rows += [row(name, clients, rounds[name], rounds["plain"]) for name in names]
    return rows


def row(name: str, clients: int, rounds: list[Round], plain: list[Round]) -> dict[str, Any]:
    ratios = [own.rate / base.rate for base, own in zip(plain, rounds, strict=True)]
    cpu_ratios = [own.cpu_rate / base.cpu_rate for base, own in zip(plain, rounds, strict=True)]
    return {
        "server": name,
        "clients": clients,
        "requests_per_second": statistics.median(one.rate for one in rounds),
        "p50_ms": 1000 * statistics.median(percentile(one.latencies, 0.5) for one in rounds),
        "p99_ms": 1000 * statistics.median(percentile(one.latencies, 0.99) for one in rounds),
        "ratio": statistics.median(ratios),
        "ratio_low": min(ratios),
        "ratio_high": max(ratios),
        "requests_per_cpu_second": statistics.median(one.cpu_rate for one in rounds),
        "cpu_ratio": statistics.median(cpu_ratios),
        "cpu_ratio_low": min(cpu_ratios),
        "cpu_ratio_high": max(cpu_ratios),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--model", type=Path, required=True, help="folder of a classification of single texts"
    )
    parser.add_argument("--texts", type=Path, required=True, help="one text per line")
    parser.add_argument("--size", choices=("own", "small"), default="own")
    parser.add_argument("--graph", action="store_true", help="`serve --onnx` too")
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--seconds", type=float, default=8, help="of each server in a round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--ours", nargs=argparse.REMAINDER, default=[], help="options of `serve`")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    lines = options.texts.read_text(encoding="utf-8").splitlines()
    texts = [line for line in lines if line.strip()]
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.model
        if options.size == "small":
            folder = small(options.model, Path(scratch) / "small")
        if options.graph:
            folder = with_graph(folder, Path(scratch) / "graph")
        rows = measure(options, folder, texts)
    print(
        f"{'server':10}{'clients':>8}{'requests/s':>12}{'p50 ms':>9}{'p99 ms':>9}"
        f"{'times plain':>13}{'low':>7}{'high':>7}{'per CPU s':>11}{'times plain':>13}"
        f"{'low':>7}{'high':>7}"
    )
    for one in rows:
        print(
            f"{one['server']:10}{one['clients']:>8}{one['requests_per_second']:>12.0f}"
            f"{one['p50_ms']:>9.1f}{one['p99_ms']:>9.1f}{one['ratio']:>13.2f}"
            f"{one['ratio_low']:>7.2f}{one['ratio_high']:>7.2f}"
            f"{one['requests_per_cpu_second']:>11.0f}{one['cpu_ratio']:>13.2f}"
            f"{one['cpu_ratio_low']:>7.2f}{one['cpu_ratio_high']:>7.2f}"
        )
    if options.json:
        options.json.write_text(json.dumps({"rows": rows}, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
