"""What a launch will cost, before it is submitted: does it fit, how many days and time slots, is
there time to save.

Comes in: a configuration, the facts of its shards, a cluster profile, the numbers of nodes. Goes
out: a `Forecast`, whose problems forbid the submission. The arithmetic is `electra_dist.plan`; here
it meets the time limit and the disk.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from electra_dist.config import Config
from electra_dist.console import human_bytes, human_duration
from electra_dist.errors import ConfigError, UserError, nearest
from electra_dist.plan import DEVICES, NETWORK_GBIT, UTILISATION, Plan, plan_run, room_to_come
from launcher.slurm.clusters import Cluster

#: From the start of a job to its first step: preflight, imports, compilation.
START_SECONDS = 180


@dataclass(frozen=True)
class Data:
    """What the shards say: size of the vocabulary,
    mean length of a document with its special tokens.
    """

    vocab_size: int
    document_length: int | None


@dataclass(frozen=True)
class Forecast:
    """The plan in words, and in numbers for programs.

    days, slots       of training, and time slots that it takes; most and fewest for a range of
                      nodes, None without a
                      known kind of GPU, without a time limit, or on a CPU, whose speed nobody
                      guesses
    checkpoint_bytes, save_seconds   size of a checkpoint, and how long it takes to write at the
                                     profile's rate
    problems          what forbids the submission
    """

    lines: tuple[str, ...]
    warnings: tuple[str, ...]
    problems: tuple[str, ...]
    days: tuple[float, float] | None
    slots: tuple[int, int] | None
    checkpoint_bytes: int
    save_seconds: float

    def text(self) -> str:
        """One line a fact."""
        return "\n".join(
            [
                *(f"plan: {line}" for line in self.lines),
                *(f"warning: {word}" for word in self.warnings),
            ]
        )


@dataclass(frozen=True)
class Slots:
    """The time that one job gets, in seconds (None:
    no limit), how many were asked for, and whether jobs come back.
    """

    limit: int | None
    chain: int
    requeue: bool


@dataclass(frozen=True)
class Disk:
    """Free bytes on the file system of the run,
    and the whole checkpoints that are there already.
    """

    free: int
    checkpoints: int


def forecast(
    config: Config,
    data: Data,
    cluster: Cluster,
    counts: Sequence[int],
    slots: Slots,
    steps_done: int = 0,
    disk: Disk | None = None,
) -> Forecast:
    """Plan `config` on `counts` nodes (ascending) from step `steps_done` on; raises `UserError` for
    an unknown GPU.

    Without `disk` the room for the checkpoints is not looked at.
    """
    kind = gpu_kind(cluster, config)
    few = _plan(config, data, cluster, counts[0], kind or "cpu")
    many = _plan(config, data, cluster, counts[-1], kind or "cpu")
    left = max(0, config.train.steps - steps_done) / config.train.steps
    training = _training(kind, few, many, left, cluster, slots)
    save = few.checkpoint_bytes / (cluster.checkpoint_write_mb_s * 1e6)
    lines = list(training.lines)
    lines.append(
        f"a checkpoint: {human_bytes(few.checkpoint_bytes)}, {save:.0f} s at"
        f" {cluster.checkpoint_write_mb_s} MB/s; the ranks have {cluster.signal_ahead_seconds} s"
        " from the signal to the time limit"
    )
    problems = list(training.problems)
    if disk is not None:
        needed = room_to_come(config, data.vocab_size, disk.checkpoints)
        lines.append(
            f"disk: {human_bytes(needed)} for the checkpoints to come, {human_bytes(disk.free)}"
            f" free"
        )
        problems += _room(needed, disk)
    grace_problems, grace_warnings = _grace(save, training.step_seconds, cluster)
    return Forecast(
        tuple(lines),
        (*training.warnings, *grace_warnings),
        (*problems, *grace_problems),
        training.days,
        training.slots,
        few.checkpoint_bytes,
        save,
    )


@dataclass(frozen=True)
class _Training:
    """Memory and time of the training itself, in words and in numbers.

    step_seconds   0 where nobody guesses the speed
    """

    lines: tuple[str, ...]
    warnings: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    days: tuple[float, float] | None = None
    slots: tuple[int, int] | None = None
    step_seconds: float = 0.0


def _training(
    kind: str | None, few: Plan, many: Plan, left: float, cluster: Cluster, slots: Slots
) -> _Training:
    """From the plans on the fewest and the most nodes; `left` is the fraction of the steps that is
    still to come.
    """
    if kind is None:
        return _Training(
            (
                "memory and days: unknown; set gpu in the cluster profile, one of "
                + ", ".join(DEVICES),
            )
        )
    if kind == "cpu":
        return _Training(
            ("memory and days: not planned for a CPU; `electra-dist bench step` measures",)
        )
    counts = (few.nodes, many.nodes)
    is_range = few.nodes < many.nodes
    days = (few.configured.days * left, many.configured.days * left)
    number = _count_slots(days, cluster, slots)
    warnings = _chain_warning(number, slots)
    if is_range and days[1] >= days[0]:
        warnings.append(
            f"{many.nodes} nodes are no faster than {few.nodes}: the network takes what they gain"
        )
    return _Training(
        (_memory(few), _time(days, number, slots, counts, is_range)),
        tuple(warnings),
        tuple(few.warnings),
        days,
        number,
        few.configured.step_seconds,
    )


def gpu_kind(cluster: Cluster, config: Config) -> str | None:
    """The kind of GPU to plan for;
    the site's own name of its GPUs is taken where the profile says no more.
    """
    if cluster.gpus_per_node == 0 or config.train.device == "cpu":
        return "cpu"
    if cluster.gpu is None:
        named = (cluster.gpu_type or "").lower()
        if named in DEVICES:
            return named
        return None
    if cluster.gpu.lower() not in DEVICES:
        raise ConfigError(
            f"gpu = {cluster.gpu} in the cluster profile: not"
            f" known{nearest(cluster.gpu.lower(), DEVICES)}; known: {', '.join(DEVICES)}. Take the"
            " nearest in memory and speed, or leave it out"
        )
    return cluster.gpu.lower()


def refuse(found: Sequence[Forecast]) -> None:
    """Raise `UserError` with every problem that was found; `ignore_plan` is the way around."""
    problems = list(dict.fromkeys(problem for one in found for problem in one.problems))
    if problems:
        raise UserError(f"{'; '.join(problems)}. `ignore_plan` submits it nevertheless")


def _plan(config: Config, data: Data, cluster: Cluster, nodes: int, kind: str) -> Plan:
    return plan_run(
        config,
        data.vocab_size,
        nodes,
        cluster.tasks,
        kind,
        document_length=data.document_length,
        network_gbit=cluster.network_gbit or NETWORK_GBIT,
    )


def _memory(plan: Plan) -> str:
    stage = plan.configured
    if stage.fits is None:
        fits = "not known"
    elif stage.fits:
        fits = "fits"
    else:
        fits = "DOES NOT FIT"
    if plan.memory_bytes:
        has = f" of {plan.memory_bytes / 1e9:.0f} GB"
    else:
        has = ""
    return (
        f"{plan.nodes} x {plan.gpus_per_node} {plan.device.name}:"
        f" {human_bytes(stage.needed_bytes)}{has} a GPU, {fits}"
    )


def _count_slots(
    days: tuple[float, float], cluster: Cluster, slots: Slots
) -> tuple[int, int] | None:
    if slots.limit is None:
        return None
    usable = max(1.0, slots.limit - cluster.signal_ahead_seconds - START_SECONDS)
    most, fewest = (max(1, math.ceil(count * 86400 / usable)) for count in days)
    return most, fewest


def _time(
    days: tuple[float, float],
    number: tuple[int, int] | None,
    slots: Slots,
    counts: Sequence[int],
    is_range: bool,
) -> str:
    text = f"training: {human_duration(days[0] * 86400)}"
    if number and slots.limit:
        text += f", {_count(number[0])}"
    if is_range:
        text += f" on {counts[0]} of the nodes; {human_duration(days[1] * 86400)}"
        if number:
            text += f", {_count(number[1])}"
        text += f" on {counts[-1]}"
    return f"{text} (at {UTILISATION:.0%} of the GPU's rate; `electra-dist bench step` measures)"


def _chain_warning(number: tuple[int, int] | None, slots: Slots) -> list[str]:
    if number is None:
        return []
    if slots.chain > 1 and slots.chain < number[0]:
        return [
            f"`chain` {slots.chain}: the run takes about {_count(number[0])}; submit it again when"
            " they are used up"
        ]
    if slots.chain == 1 and not slots.requeue and number[0] > 1:
        return [
            f"this cluster forbids requeueing and the run takes about {_count(number[0])}:"
            f" `chain` {number[0]}"
        ]
    return []


def _room(needed: int, disk: Disk) -> list[str]:
    if needed <= disk.free:
        return []
    return [
        f"the file system of run.dir has {human_bytes(disk.free)} free and the checkpoints of this"
        f" run need {human_bytes(needed)} (checkpoint.keep + 1 of them, and the milestones): make"
        " room, lower checkpoint.keep, or set run.dir to another place"
    ]


def _grace(save: float, step_seconds: float, cluster: Cluster) -> tuple[list[str], list[str]]:
    """Problems and warnings: the step that runs when the signal comes, then the checkpoint, before
    the time limit.

    A validation is interrupted after one micro-batch, which takes no longer than a step.
    """
    needed = math.ceil(save + step_seconds)
    given = cluster.signal_ahead_seconds
    what = (
        f"a step, or one micro-batch of a validation ({step_seconds:.0f} s), and a checkpoint"
        f" ({save:.0f} s at {cluster.checkpoint_write_mb_s} MB/s)"
    )
    if needed > given:
        return [
            f"signal_ahead_seconds = {given} in the cluster profile: {what} do not fit between the"
            f" signal and the time limit; set it to {2 * needed} or more, or checkpoint_write_mb_s"
            " to what the preflight measures"
        ], []
    if 2 * needed > given:
        return [], [
            f"signal_ahead_seconds = {given}: {what} just fit between the signal and the time"
            f" limit; {2 * needed} is safer"
        ]
    return [], []


def _count(slots: int) -> str:
    return f"{slots:,} time slot{'s' if slots > 1 else ''}"
