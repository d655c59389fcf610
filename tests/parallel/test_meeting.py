"""Ranks find each other, or are told who is missing; and the watchdog's lines between them."""

from __future__ import annotations

import json
import re
import resource
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from electra_dist.errors import UserError
from electra_dist.parallel.channel import HUB, Channel, Hub, Spoke
from electra_dist.parallel.meeting import (
    MeetingInterruptedError,
    launch_name,
    meet,
    raise_open_files,
)
from electra_dist.parallel.world import World
from launcher.local import free_port


def worlds(size: int) -> list[World]:
    port = free_port()
    return [
        World(rank, size, rank, master_address="127.0.0.1", master_port=port)
        for rank in range(size)
    ]


def together(calls: list[Callable[[], Any]]) -> list[Any]:
    """What each call gave or raised, all of them at the same time."""
    found: list[Any] = [None] * len(calls)

    def run(index: int) -> None:
        try:
            found[index] = calls[index]()
        except Exception as error:
            found[index] = error

    threads = [threading.Thread(target=run, args=(index,)) for index in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return found


def test_all_ranks_meet_and_know_each_others_hosts() -> None:
    met = together([lambda w=world: meet(w, 60, print) for world in worlds(3)])
    assert [len(meeting.hosts) for meeting in met] == [3, 3, 3]
    assert met[0].hub is not None
    assert {meeting.hub_at for meeting in met} == {met[0].hub.address}
    met[0].hub.close()


def test_who_is_missing_is_named_and_everybody_is_told_what_is_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("electra_dist.parallel.meeting._FIRST_LINE_SECONDS", 0.5)
    said: list[str] = []
    first, _, third, fourth = worlds(4)
    found = together([lambda w=world: meet(w, 3, said.append) for world in (first, third)])
    for error, words in zip(
        found, ("only 2 of 4 ranks came to 127.0.0.1", " of 4 ranks "), strict=True
    ):
        assert isinstance(error, UserError)
        assert words in str(error)
    assert "missing: rank 1, 3" in str(found[0])
    assert found[0].everywhere
    assert any(
        re.fullmatch(r"waiting for 4 ranks at 127\.0\.0\.1:\d+ \([12] here\)", line)
        for line in said
    )
    said.clear()
    with pytest.raises(
        UserError, match=r"rank 3 on .* found no rank 0 at .* within 1.5 s .*Connection refused"
    ):
        meet(replace(fourth, master_port=free_port()), 1.5, said.append)
    assert said[0].startswith("rank 3: waiting for rank 0 at 127.0.0.1:")


def test_a_task_of_a_larger_slurm_step_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "77")
    monkeypatch.setenv("SLURM_STEP_ID", "3")
    world = replace(worlds(2)[0], launcher="slurm")
    with pytest.raises(
        UserError, match=r"task 0 of the 2 of Slurm step 77\.3, .* env -u SLURM_STEP_ID"
    ):
        meet(world, 1, print)


def test_a_port_that_is_taken_is_said_to_be() -> None:
    with socket.create_server(("", 0)) as other:
        world = replace(worlds(2)[0], master_port=other.getsockname()[1])
        with pytest.raises(
            UserError, match=r"port \d+ of .* is taken by another process, .*MASTER_PORT"
        ):
            meet(world, 20, print)


def test_a_signal_ends_the_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("electra_dist.parallel.meeting._STOP_SECONDS", 1.0)
    asked = threading.Event()
    threading.Timer(1.0, asked.set).start()
    start = time.monotonic()
    with pytest.raises(MeetingInterruptedError):
        meet(worlds(2)[1], 300, print, asked.is_set)
    assert time.monotonic() - start < 60


def test_two_launches_at_one_port_do_not_mix() -> None:
    names = {
        launch_name({"ELECTRA_DIST_LAUNCH": "a"}),
        launch_name({"ELECTRA_DIST_LAUNCH": "b"}),
        launch_name({"SLURM_JOB_ID": "1", "SLURM_STEP_ID": "0", "SLURM_RESTART_COUNT": "0"}),
        launch_name({"SLURM_JOB_ID": "1", "SLURM_STEP_ID": "0", "SLURM_RESTART_COUNT": "1"}),
        launch_name({}),
    }
    assert len(names) == 5


def test_the_limit_of_open_files_is_raised() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, before[1]))
        assert raise_open_files() > 256
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[1] == before[1]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


# --- the channel ----------------------------------------------------------------------------------


def talk(
    channels: list[Channel], until: Callable[[], bool], seconds: float = 20
) -> list[list[tuple[int, Any]]]:
    """Let them poll in turn; what each of them received."""
    received: list[list[tuple[int, Any]]] = [[] for _ in channels]
    end = time.monotonic() + seconds
    while not until():
        assert time.monotonic() < end
        for channel, got in zip(channels, received, strict=True):
            got += channel.poll(0.01)
    return received


def connected(channel: Channel) -> set[int]:
    """The ranks at the other ends."""
    return set(channel._lines)


def test_a_message_of_the_hub_reaches_all_and_one_of_a_rank_the_hub() -> None:
    hub = Hub("127.0.0.1", "word", 3)
    spokes = [Spoke(rank, hub.address) for rank in (1, 2)]
    talk([hub, *spokes], lambda: connected(hub) == {1, 2})
    hub.send(["look", "x" * 100])
    spokes[0].send({"from": "one"})
    end = time.monotonic() + 1
    received = talk([hub, *spokes], lambda: time.monotonic() > end)
    assert received == [
        [(1, {"from": "one"})],
        [(HUB, ["look", "x" * 100])],
        [(HUB, ["look", "x" * 100])],
    ]
    spokes[1].close()
    talk([hub], lambda: 2 in hub.lost)
    assert connected(hub) == {1}
    hub.close()
    talk(spokes[:1], lambda: HUB in spokes[0].lost)
    spokes[0].close()


def test_strangers_are_not_let_in() -> None:
    hub = Hub("127.0.0.1", "word", 3)
    lines = [["wrong", 1], ["word", 0], ["word", 3], ["word", "1"], {"word": 1}, "word"]
    callers = [
        socket.create_connection(("127.0.0.1", hub.address.port)) for _ in range(len(lines) + 2)
    ]
    for caller, line in zip(callers, lines, strict=False):
        caller.sendall(json.dumps(line).encode() + b'\n["end", {}]\n')
    callers[-2].sendall(b"GET / HTTP/1.1\r\n\r\n")
    callers[-1].sendall(b"x" * 200_000)
    end = time.monotonic() + 1
    assert talk([hub], lambda: time.monotonic() > end) == [[]]
    assert connected(hub) == set()
    hub.close()


def test_a_rank_that_does_not_read_does_not_hold_up_the_hub() -> None:
    hub = Hub("127.0.0.1", "word", 2)
    spoke = Spoke(1, hub.address)
    talk([hub, spoke], lambda: connected(hub) == {1})
    start = time.monotonic()
    for _ in range(400):
        hub.send("x" * 50_000)
    assert time.monotonic() - start < 30
    spoke.close()
    hub.close()


def test_a_wake_ends_a_poll() -> None:
    channel = Channel()
    threading.Timer(0.2, channel.wake).start()
    start = time.monotonic()
    assert channel.poll(60) == []
    assert time.monotonic() - start < 30
    assert channel.woken == b"\0"
    channel.close()
