"""The `train` command: from a configuration to a finished or interrupted run, on one rank or on
many.

Every rank calls `train` with the same configuration. What a user got wrong is found before the
networks are built, and raised on all ranks together, so that none waits for another.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from electra_dist import plan
from electra_dist.checkpoint import loading
from electra_dist.config import NETWORKS, Config, Network, check_world, idle_rows
from electra_dist.console import human_count, say, warn
from electra_dist.data.sources import RunData, check_vocabulary, open_data
from electra_dist.health import Known, Monitor
from electra_dist.model.attention.backends import described
from electra_dist.parallel import signs
from electra_dist.parallel.collectives import broadcast_object, gather_objects, together
from electra_dist.parallel.determinism import determinism, refusals_explained
from electra_dist.parallel.ending import end_by
from electra_dist.parallel.group import (
    abort,
    close_group,
    leave,
    open_group,
    open_meeting,
    set_timeout,
)
from electra_dist.parallel.hardware import device_name
from electra_dist.parallel.meeting import Meeting, MeetingInterruptedError
from electra_dist.parallel.world import World, choose_device, detect, note_alone
from electra_dist.runs import lock
from electra_dist.runs.directory import RunDir
from electra_dist.runs.heartbeat import JOB_VARIABLE, Heartbeat
from electra_dist.runs.hooks import Hook
from electra_dist.runs.metrics_log import cut_back
from electra_dist.runs.opening.about import Machines, about_run
from electra_dist.runs.opening.going_on import PLAIN, GoingOn
from electra_dist.runs.opening.start import check_run, open_run, record_start
from electra_dist.runs.own_log import own_log
from electra_dist.tracking.sinks import Tracker
from electra_dist.tracking.wandb import choose_mode
from electra_dist.train.divergence import rollback
from electra_dist.train.ending import is_finished, say_how_it_ended, why
from electra_dist.train.faults import Interruption
from electra_dist.train.heldout.evaluator import Evaluator, check_evaluator
from electra_dist.train.initial import initial_networks
from electra_dist.train.lines import Checking
from electra_dist.train.trainer import Outcome, Trainer
from electra_dist.train.watch.hang import collective_timeout
from electra_dist.train.watch.watchdog import Watchdog
from electra_dist.zero.compatibility import prepare_deepspeed, release_deepspeed
from electra_dist.zero.engines import Engines, build_engines


def train(
    config: Config,
    environment: dict[str, str],
    *,
    how: GoingOn = PLAIN,
    evaluator: Evaluator | None = None,
) -> Outcome:
    """Train, or go on with, the run at `config.run.path`; raises `UserError` on every rank for a
    mistake on any.

    `how` goes on otherwise than before: with changed keys, from an older checkpoint, as a branch of
    another run. `evaluator` makes the evaluations of `validation.evaluate_every`.
    """
    end_by(leave)
    world = detect(environment)
    check_world(config, world.world_size)
    device = choose_device(config.train.device, world.local_rank, torch.cuda.device_count())
    world = replace(world, device=device)
    note = note_alone(world, environment)
    if note:
        warn(note)
    signs.forget()
    signs.enter("meeting")
    # a signal that comes while loading is heard at the first step
    with Interruption() as interruption:
        try:
            meeting = open_meeting(
                world, config.watchdog.meet_seconds, partial(_is_requested, interruption)
            )
        except MeetingInterruptedError:
            return _interrupted_early(world)
        with (
            determinism(config.train.deterministic),
            _watchdog(config, world, meeting, environment) as watchdog,
        ):
            try:
                open_group(
                    world,
                    collective_timeout(config.watchdog),
                    meeting,
                    config.watchdog.meet_seconds,
                )
                prepare_deepspeed(world)  # one that does not work is found before a run is touched
                outcome = _hold_run(
                    config, world, interruption, watchdog, environment, how, evaluator
                )
            except BaseException as error:
                _fail(watchdog, error)
                raise
            close_group()
            release_deepspeed()
    return outcome


def _watchdog(
    config: Config, world: World, meeting: Meeting | None, environment: Mapping[str, str]
) -> Watchdog:
    run = RunDir(config.run.path)
    hook = _hook(config, run, environment)
    every = config.tracking.every
    return Watchdog(config.watchdog, run, hook, world, meeting, every, environment)


def _hook(config: Config, run: RunDir, environment: Mapping[str, str]) -> Hook:
    return Hook(config.tracking, run, config.run.name, environment)


def _fail(watchdog: Watchdog, error: BaseException) -> None:
    """A rank that fails alone says so first, and waits for nobody then."""
    try:
        watchdog.failed(error)
    finally:
        abort()
        release_deepspeed()


def _hold_run(
    config: Config,
    world: World,
    interruption: Interruption,
    watchdog: Watchdog,
    environment: Mapping[str, str],
    how: GoingOn,
    evaluator: Evaluator | None,
) -> Outcome:
    """Check the data, take the run's lock on rank 0, and train under it."""
    if interruption.is_requested_of_any(world):
        return _interrupted_early(world)
    run = RunDir(config.run.path)
    data = None
    handle = _handle(config, world)
    with ExitStack() as held:
        with together(world):
            check_evaluator(config, evaluator)
            data = _checked_data(config, world, handle)
            if world.is_main:
                # a mistake touches nothing, not even the lock
                check_run(run, config, data.fingerprint, how)
                stop = partial(_is_requested, interruption)
                held.enter_context(lock.hold(run, environment=environment, tell=warn, stop=stop))
                open_run(config, data, warn, say, how)
                held.enter_context(own_log(run, environment, world.world_size))
        assert data is not None
        if not world.is_main:
            return _train_from_checkpoint(
                config, world, interruption, watchdog, data, environment, None, evaluator
            )[0]
        with (
            _hook(config, run, environment) as hook,
            Heartbeat(run, world.world_size, environment.get(JOB_VARIABLE)) as heartbeat,
        ):
            outcome, saved = _train_from_checkpoint(
                config, world, interruption, watchdog, data, environment, hook, evaluator
            )
            if outcome is Outcome.FINISHED:
                heartbeat.end("finished")
            else:
                heartbeat.end(
                    "interrupted",
                    f"saved at step {saved}" if saved else "before there was anything to save",
                )
    return outcome


def _is_requested(interruption: Interruption) -> bool:
    return interruption.requested is not None


def _interrupted_early(world: World) -> Outcome:
    if world.is_main:
        say("interrupted before the first step; run the same command again to go on")
    return Outcome.INTERRUPTED


def _train_from_checkpoint(
    config: Config,
    world: World,
    interruption: Interruption,
    watchdog: Watchdog,
    data: RunData,
    environment: Mapping[str, str],
    hook: Hook | None,
    evaluator: Evaluator | None,
) -> tuple[Outcome, int]:
    """Train; `hook` is rank 0's. How training ended, and the step that is saved."""
    run = RunDir(config.run.path)
    rollbacks = rollback.recorded(run, world)
    step = loading.find_start(run, world, config.checkpoint.every)
    if step is not None and is_finished(config, run, step, world):
        return Outcome.FINISHED, step
    if interruption.is_requested_of_any(world):
        return _interrupted_early(world), step or 0
    _record_start(config, data, world, environment, step or 0)
    if hook:
        hook.begins(step)
    engines = _engines(config, data, world)
    set_timeout(collective_timeout(config.watchdog))
    tracker = _tracker(config, run, step or 0, world, environment)
    outcome = None
    try:
        trainer = Trainer(config, data, engines, world, tracker, rollbacks, hook, evaluator)
        if step is not None:
            signs.sign(f"loading the checkpoint of step {step:,}")
            trainer.resume(step)
        with refusals_explained():
            outcome = trainer.train_to_end(interruption)
    except BaseException as error:
        watchdog.failed(error)  # before anything below, which may wait
        raise
    finally:
        signs.enter("end")
        if tracker:
            tracker.close(failed=outcome is None, finished=outcome is Outcome.FINISHED)
    reason = why(trainer, outcome, interruption)
    if hook:
        hook.ends(outcome.value, trainer.done, reason)
    if tracker:
        say_how_it_ended(config, trainer, outcome, tracker.how_to_sync)
    engines.destroy()  # this process may go on, and train again
    return outcome, trainer.done


def _record_start(
    config: Config, data: RunData, world: World, environment: Mapping[str, str], step: int
) -> None:
    """Rank 0 notes in run.json what starts here, from `step` on; collective."""
    hosts = gather_objects(socket.gethostname(), world)
    with together(world):
        if world.is_main:
            machines = Machines(
                nodes=len(set(hosts)),
                device=device_name(world.device),
                job_id=environment.get("SLURM_JOB_ID", ""),
            )
            about = about_run(config, data, world.world_size, machines)
            record_start(RunDir(config.run.path), world.world_size, step, machines, about)


def _handle(config: Config, world: World) -> dict[str, Any]:
    """The handle of the data, whose manifests rank 0 alone reads, for all ranks."""
    handle = None
    with together(world):
        if world.is_main:
            signs.sign("opening the data")
            handle = open_data(config).to_handle()
    found: dict[str, Any] = broadcast_object(handle, world)
    return found


def _checked_data(config: Config, world: World, handle: dict[str, Any]) -> RunData:
    """The data; the ranks share out the check of the files that `data.verify` asks for."""
    data = RunData.from_handle(handle)
    check_vocabulary(config, data)
    data.check_files(
        config.data.verify,
        share=(world.rank, world.world_size),
        progress=lambda manifest: Checking(f"{manifest.path}: checking files", aloud=world.is_main),
    )
    if world.is_main:
        _say_about_data(config, data, world)
    return data


def _say_about_data(config: Config, data: RunData, world: World) -> None:
    """What to know before a long run on these data."""
    for manifest in data.manifests:
        if manifest.facts.block_checksums is None:
            warn(
                f"{manifest.path}: made by an earlier version, without checksums of its blocks:"
                " damage that changes no count is not seen while training. Add them once:"
                f" electra-dist data upgrade {manifest.path}"
            )
        blocks = manifest.facts.train.blocks
        streams = config.data.streams
        if streams > blocks:
            warn(
                f"data.streams = {streams} is more than the {blocks} blocks of {manifest.path}:"
                " some streams begin in a later epoch; a divisor of train.global_rows up to"
                f" {blocks} keeps epochs apart"
            )
    positions = config.model.max_positions
    if config.data.row_length < positions:
        warn(
            f"model.max_positions = {positions}, but rows of data.row_length ="
            f" {config.data.row_length} train the first {config.data.row_length} of them alone: an"
            " export takes texts of that length. Train on longer rows to use the others"
        )
    if data.is_mixed:
        say(f"mixed data: {data.described}")
    idle = config.idle_share(world.world_size)
    if idle:
        say(idle_rows(config, world.world_size))


def _engines(config: Config, data: RunData, world: World) -> Engines:
    signs.sign("building the networks")
    generator, discriminator = initial_networks(config, data, world.device)
    if world.is_main:
        count = plan.parameters(config, data.vocab_size)
        sharding = " and ".join(
            dict.fromkeys(_sharding(config, network, world) for network in NETWORKS)
        )
        say(
            f"{config.run.path}: {human_count(count.total)} parameters (generator"
            f" {human_count(count.generator)} with the embeddings, discriminator"
            f" {human_count(count.discriminator)}), {world.world_size} ranks on"
            f" {world.device.type}, ZeRO {sharding}, {config.precision_mode('discriminator')},"
            f" attention {described(generator.attention_backend)}, generator head"
            f" {generator.head_backend},"
            f" {'compiled' if config.compiles(world.device.type) else 'not compiled'}"
        )
    signs.sign("building the engines")
    return build_engines(config, generator, discriminator, world)


def _sharding(config: Config, network: Network, world: World) -> str:
    """`stage 3, optimizer in CPU memory`"""
    zero = config.sharding(network)
    hpz = config.hpz_partition_size(network, world.world_size)
    kept = ["optimizer"] * zero.offload_optimizer + ["parameters"] * zero.offload_parameters
    words = [f"stage {zero.stage}"]
    if kept:
        words += [f"{' and '.join(kept)} in CPU memory"]
    else:
        words += []
    if hpz:
        words += [f"second partition over {hpz} ranks"]
    else:
        words += []
    return ", ".join(words)


def _tracker(
    config: Config, run: RunDir, step: int, world: World, environment: Mapping[str, str]
) -> Tracker | None:
    """Rank 0's tracker, the metrics cut back to the step that is resumed."""
    tracker = None
    with together(world):
        if world.is_main:
            cut = cut_back(run.metrics, step)
            if cut.later:
                say(f"{run.metrics}: {cut.later} rows after step {step} moved to a file beside it")
            if cut.broken:
                warn(
                    f"{run.metrics}: {cut.broken} broken pieces that are no rows moved to a file"
                    " beside it"
                )
            signs.sign("opening the tracking")
            choice = choose_mode(config.tracking.wandb, environment)
            for sentence in choice.said:
                say(sentence)
            monitor = None
            if config.tracking.health:
                monitor = partial(_monitor, config, run)
            tracker = Tracker(run, choice.mode, warn, config.tracking.sinks, environment, monitor)
    return tracker


def _monitor(config: Config, run: RunDir) -> Monitor:
    """The rules of health, which have heard nothing yet."""
    return Monitor(Known.of(config, run.read_facts()), config.tracking.health_ignore)
