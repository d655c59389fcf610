"""The loader's process: the same steps as without it, the same errors,
and no trace of it however training ends.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

from electra_dist.batch import MicroBatch, Step
from electra_dist.config import Config
from electra_dist.data.loading import feeder, loader
from electra_dist.data.loading.loader import TrainLoader
from electra_dist.data.shards.manifest import Manifest
from electra_dist.data.sources import RunData
from electra_dist.data.step_plan import StepPlan
from electra_dist.data.steps import StepSource
from electra_dist.data.streams import LoaderState
from electra_dist.errors import EXIT_CRASH, LoaderDiedError, StorageError
from electra_dist.parallel import signs
from electra_dist.parallel.processes import ticks


def until(condition: Callable[[], object], seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def opened_with(config: Config, manifest: Manifest) -> TrainLoader:
    """The loader of one rank alone."""
    return TrainLoader(StepPlan.of(config, 0, 1), RunData.alone(manifest))


def prepared(opened: TrainLoader) -> None:
    """Wait until the process has made what it may."""
    until(lambda: opened._ring.read_note()[0])
    time.sleep(0.3)


def assert_equal(one: Step, other: Step) -> None:
    for name in ("index", "epoch", "masked_count", "real_count", "source_epochs"):
        assert getattr(one, name) == getattr(other, name)
    for a, b in zip(one.micro_batches, other.micro_batches, strict=True):
        for field in fields(MicroBatch):
            x, y = getattr(a, field.name), getattr(b, field.name)
            assert x.dtype == y.dtype
            np.testing.assert_array_equal(x, y)


def test_steps_and_states_are_those_of_the_source_and_stay_while_slots_are_used_again(
    make_config, data
):
    """Resumed in the midst of a block, as one rank of two,
    with rows passed over, in a ring of one slot.
    """
    config = make_config(
        data={"prefetch_steps": 1, "skip_steps": [[1, 2], [20, 23]]}, train={"steps": 30}
    )
    plans = [StepPlan.of(config, rank, 2) for rank in range(2)]
    begun = [StepSource(plan, data) for plan in plans]
    for source in begun:
        for _ in range(3):
            next(source)
    state = LoaderState.from_dict(
        json.loads(json.dumps(LoaderState.merge([s.state for s in begun]).to_dict()))
    )
    source = StepSource(plans[1], data, state, [(9, 11)])
    with TrainLoader(plans[1], data, state, [(9, 11)]) as opened:
        steps = [(step, opened.state) for step in opened]
        with pytest.raises(StopIteration):
            next(opened)
    assert [step.index for step, _ in steps] == list(range(3, 30))
    for step, after in steps:
        assert_equal(step, next(source))
        assert after == source.state
    assert all(array.flags.writeable for array in vars(steps[0][0].micro_batches[0]).values())


def test_the_state_is_that_of_the_last_consumed_step_not_of_what_was_prefetched(
    make_config, manifest
):
    config = make_config(data={"prefetch_steps": 4})
    with opened_with(config, manifest) as opened:
        next(opened)
        prepared(opened)
        assert opened.state.step == 1
        assert sum(position[0] for position in opened.state.streams.values()) == 8


# --- while it runs --------------------------------------------------------------------------------


def test_signals_that_ask_the_run_to_end_do_not_reach_it_not_even_while_it_starts(
    make_config, manifest
):
    with opened_with(make_config(train={"steps": 10**6}), manifest) as opened:
        for moment in range(2):
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP):
                os.kill(opened.pid, number)
            for _ in range(4):
                assert next(opened).index >= moment
    assert not signal.pthread_sigmask(signal.SIG_BLOCK, []) & {signal.SIGINT, signal.SIGTERM}


def test_who_waits_for_a_step_says_which_block_it_is_and_waits_no_longer_than_it_wants(
    make_config, manifest
):
    with opened_with(make_config(train={"steps": 10**6}), manifest) as opened:
        prepared(opened)
        os.kill(opened.pid, signal.SIGSTOP)
        signs.enter("data", 0)
        while opened.next_unless(lambda: True) is not None:
            pass
        assert "block " in signs.doing().detail
        assert str(manifest.path) in signs.doing().detail
        os.kill(opened.pid, signal.SIGCONT)
        assert next(opened).index > 0


# --- errors ---------------------------------------------------------------------------------------


def test_a_process_that_is_killed_is_one_clear_error_after_what_it_had_made(make_config, manifest):
    opened = opened_with(make_config(train={"steps": 10**6}), manifest)
    prepared(opened)
    os.kill(opened.pid, signal.SIGKILL)
    assert [next(opened).index for _ in range(2)] == [0, 1]
    with pytest.raises(
        LoaderDiedError, match=r"has ended by itself: SIGKILL; has the machine run out of memory"
    ):
        next(opened)
    with pytest.raises(StopIteration):
        next(opened)
    assert LoaderDiedError.exit_status == EXIT_CRASH


def test_an_error_of_the_process_is_rebuilt_when_it_is_ours_and_shown_when_it_is_not():
    ours = loader._rebuilt(**json.loads(feeder.error_as_json(StorageError("no space"))))
    assert isinstance(ours, StorageError)
    assert str(ours) == "no space"
    try:
        {}["missing"]
    except KeyError as error:
        other = loader._rebuilt(**json.loads(feeder.error_as_json(error)))
    assert isinstance(other, RuntimeError)
    assert "KeyError: 'missing'" in str(other)
    assert Path(__file__).name in str(other)


# --- the end --------------------------------------------------------------------------------------


def test_closing_early_ends_the_process_at_once_and_one_that_does_not_hear_it_is_killed(
    make_config, manifest, monkeypatch
):
    for stopped in (False, True):
        opened = opened_with(make_config(train={"steps": 10**6}), manifest)
        next(opened)
        if stopped:
            monkeypatch.setattr(loader, "_CLOSE_SECONDS", 0.3)
            os.kill(opened.pid, signal.SIGSTOP)
        start = time.perf_counter()
        opened.close()
        opened.close()
        assert time.perf_counter() - start < 1.5
        assert ticks(opened.pid) is None
        with pytest.raises(StopIteration):
            next(opened)


PARENT = """
import json, os, signal, sys, time
from electra_dist import config as configuration
from electra_dist.data.loading.loader import TrainLoader
from electra_dist.data.sources import open_data
from electra_dist.data.step_plan import StepPlan
config = configuration.build(json.loads(sys.argv[1]))
plan = StepPlan.of(config, 0, 1)
loaders = [TrainLoader(plan, open_data(config)) for _ in range(2)]
for loader in loaders:
    next(loader)
if os.fork() == 0:  # it holds the sockets open
    time.sleep(30)
    os._exit(0)
os.kill(loaders[1].pid, signal.SIGSTOP)
print(*(loader.pid for loader in loaders), flush=True)
time.sleep(60)
"""


def test_nothing_is_left_of_it_when_the_process_that_trains_is_killed(make_config, manifest):
    """Not even of one that is stopped, nor while another child of the
    trainer holds what the loader hears it by.
    """
    config = make_config(train={"steps": 10**6}).model_dump(mode="json")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    words = [sys.executable, "-c", PARENT, json.dumps(config)]
    with subprocess.Popen(
        words, stdout=subprocess.PIPE, text=True, env=environment, process_group=0
    ) as parent:
        assert parent.stdout is not None
        children = [int(word) for word in parent.stdout.readline().split()]
        assert len(children) == 2
        assert all(ticks(child) is not None for child in children)
        for process in (parent.pid, children[0]):
            # memory without a name
            assert "/dev/shm/" not in Path(f"/proc/{process}/maps").read_text()
        parent.kill()
        try:
            until(lambda: all(ticks(child) is None for child in children), 10)
        finally:
            os.killpg(parent.pid, signal.SIGKILL)
