"""The command in a process of its own: its address, its limits, its token, and how it ends."""

from __future__ import annotations

import signal
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from electra_dist.cli import main as cli
from tests.serve.conftest import Served, ask, predict, served


def wait_for(server: Served, waiting: int) -> None:
    """Until so many inputs are in the queue."""
    for _ in range(600):
        if ask(f"{server.url}/health").content["waiting_inputs"] == waiting:
            return
        time.sleep(0.05)
    raise AssertionError("the inputs never came")


def leave(server: Served) -> None:
    """Ask, and go away before the answer."""
    host, port = server.url.removeprefix("http://").split(":")
    body = b'{"inputs": ["a text"]}'
    head = (
        "POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    with socket.create_connection((host, int(port))) as client:
        client.sendall(head.encode() + body)
        wait_for(server, 1)
    wait_for(server, 0)


def test_a_signal_in_the_middle_ends_it_after_the_last_answer(models: Path, tmp_path: Path) -> None:
    """A client that went away before is not waited for."""
    words = (models / "classification", "--wait-ms", "60000", "--batch", "32")
    with served(*words, log=tmp_path / "log") as server:
        leave(server)
        expected = None
        with ThreadPoolExecutor(4) as pool:
            under_way = [pool.submit(predict, server.url, ["a text", "another"]) for _ in range(4)]
            wait_for(server, 8)
            health = ask(f"{server.url}/health").content
            assert health["ready"] is True
            assert health["task"] == "classification"
            # the 60 seconds are not over, so the end alone can bring the answers
            status, output = server.end(signal.SIGTERM)
            replies = [one.result(30) for one in under_way]
        for reply in replies:
            assert reply.status == 200
            expected = expected or reply.content
            assert reply.content == expected
        assert status == 0
        assert output == "ended; every request has its answer\n"
        with pytest.raises(OSError, match="refused"):
            ask(f"{server.url}/health")
        assert server.log.read_text() == ""


def test_limits_a_token_and_the_warning_of_an_open_address(models: Path, tmp_path: Path) -> None:
    words = (
        *(models / "classification", "--host", "0.0.0.0", "--token-env", "SECRET"),
        *("--queue", "3", "--max-inputs", "3", "--batch", "3"),
        *("--wait-ms", "60000", "--timeout", "1.5"),
    )
    environment = {"SECRET": "open sesame"}
    with served(*words, log=tmp_path / "log", environment=environment) as server:
        url = server.url
        for token in (None, "open", "wrong-secret"):
            refused = predict(url, ["a text"], token=token)
            assert refused.status == 401
            assert refused.headers["www-authenticate"] == "Bearer"
        assert ask(f"{url}/metrics").status == 401
        assert ask(f"{url}/health").status == 200
        with ThreadPoolExecutor(1) as pool:
            late = pool.submit(predict, url, ["a", "b"], token="open sesame")
            wait_for(server, 2)
            full = predict(url, ["c", "d"], token="open sesame")
            assert full.status == 503
            assert int(full.headers["retry-after"]) >= 1
            assert late.result(30).status == 504
        assert "no answer within 1.5 seconds" in late.result().content["error"]
        # what was given up leaves the queue, and a full batch needs no waiting
        assert predict(url, ["a", "b", "c"], token="open sesame").status == 200
        assert server.end(signal.SIGINT)[0] == 0
        assert "open sesame" not in server.log.read_text()


def test_an_address_in_use_is_one_line(models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert cli.main(["serve", str(models / "classification"), "--port", str(port)]) == 2
    assert capsys.readouterr().err == (
        f"error: --port {port} at 127.0.0.1: cannot be used (Address already in use); choose"
        " another one\n"
    )


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--batch", "0"], "--batch 0: expected 1 or more"),
        (["--workers", "0"], "--workers 0: expected 1 or more"),
        (["--port", "70000"], "--port 70000: expected at most 65535"),
        (["--timeout", "nan"], "--timeout nan: expected a number of seconds above 0"),
        (["--queue", "5"], "--queue 5: is smaller than the 128 inputs that one request may have"),
        (["--token-env", "NOT_SET"], "--token-env NOT_SET: this environment variable is not set"),
        (["--host", "no.such.host.invalid"], "--host no.such.host.invalid: is no address"),
    ],
)
def test_a_wrong_option_is_one_line(
    words: list[str], sentence: str, models: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["serve", str(models / "classification"), *words]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {sentence}")
    assert error.count("\n") == 1
