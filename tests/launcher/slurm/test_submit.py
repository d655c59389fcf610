"""Jobs on a real Slurm, with a stand-in for training: they end, come back, and stop when they
should.

The jobs of this module are submitted together, so that their waiting times overlap.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from electra_dist import config as configuration
from electra_dist.errors import ConfigError, UserError
from electra_dist.runs.directory import RunDir
from launcher.find import find_run
from launcher.logs import log_file, read_log
from launcher.records import Event, events, records
from launcher.slurm.submit import Submission, prepare, queue
from launcher.status import RunStatus, status
from launcher.stop import stop
from tests.support import PROGRAMS
from tests.support.disks import tiny_disk

ENDED = ("finished", "stopped", "cancelled", "failed", "unfinished")
NASTY = 'it\'s; touch PWNED & $(touch PWNED) `touch PWNED` "%j %% ${HOME}" * #x'
SITE = {
    "environment": {"NCCL_SOCKET_IFNAME": "ib0"},
    "proxy": "http://proxy:3128",
    "cores_per_task": 2,
}
SLOW = {"step_seconds": 0.25}
HOSTILE = {
    "SBATCH_TIMELIMIT": "1",
    "SBATCH_PARTITION": "urgent",
    "SBATCH_NO_REQUEUE": "1",
    "SBATCH_EXPORT": "NONE",
    "SBATCH_OUTPUT": "/dev/null",
    "SLURM_CPU_BIND": "quiet,mask_cpu:0x1",
    "SLURM_MEM_PER_CPU": "1",
    "SQUEUE_PARTITION": "urgent",
}


class Running:
    """A submitted run and what became of it."""

    def __init__(self, submission: Submission, index: int = 0) -> None:
        self.submission = submission
        self.run = RunDir(submission.runs[index])
        self.job_id = records(self.run)[-1].job_ids[0]

    @property
    def status(self) -> RunStatus:
        return status(self.run)

    @property
    def events(self) -> list[Event]:
        return events(self.run, "001")

    @property
    def kinds(self) -> list[str]:
        return [event.kind for event in self.events]

    @property
    def steps(self) -> list[int]:
        return [row["step"] for row in self.run.read_metrics()]

    def trouble(self) -> str:
        logs = [path.read_text() for path in sorted(self.run.logs.glob("*.log"))]
        return "\n".join([str(self.status), *map(str, self.events), *logs])

    def until(self, condition: Callable[[], Any], seconds: float = 60) -> Any:
        deadline = time.monotonic() + seconds
        while not (result := condition()):
            assert time.monotonic() < deadline, self.trouble()
            time.sleep(0.2)
        return result

    def ended(self, seconds: float = 120) -> RunStatus:
        self.until(lambda: self.status.state in ENDED, seconds)
        return self.status

    def reaches(self, step: int) -> None:
        self.until(lambda: (self.status.step or 0) >= step)


@pytest.fixture(scope="module")
def small_disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Room for a run and one checkpoint of the stand-in, not for two."""
    with tiny_disk(tmp_path_factory.mktemp("small-disk"), "10m") as place:
        yield place


@pytest.fixture(scope="module")
def jobs(
    testbed: Any, desk: Any, clusters: Callable[..., str], small_disk: Path
) -> dict[str, Running]:
    timed = clusters(time_limit="2", signal_ahead_seconds=60)
    quiet = {"exclude": "n3,n4"}  # the others are preempted and killed while these run
    started = {
        "limit": desk.launch(
            "limit", "train.steps=150", plan={"step_seconds": 0.5}, cluster=timed, **quiet
        ),
        "deaf": desk.launch(
            "deaf",
            "train.steps=9999",
            plan={"deaf": True} | SLOW,
            cluster=timed,
            nodes="1",
            **quiet,
        ),
        "plain": _from_a_hostile_shell(desk, clusters),
        "hang": desk.launch("hang", "train.steps=30", plan={"hang_at": 7}),
        "full": desk.launch(
            "full",
            f"run.dir={small_disk}",
            plan={"checkpoint": 4_000_000},
            ignore_plan=True,
            **quiet,
        ),
        "outside": desk.launch("outside", "train.steps=40", plan=SLOW),
        "killed": desk.launch("killed", "train.steps=60", plan=SLOW),
        "loop": desk.launch("loop", plan={"crash_at": 7, "always": True}, **quiet),
        "wrong": desk.launch(
            "wrong", plan={"exit": 2, "says": "error: no key train.stepz"}, nodes="1"
        ),
        "later": desk.launch("later", plan={"leave_at": 8, "exit_later": 2}, nodes="1"),
        "module": desk.launch("module", nodes="1", cluster=clusters(modules=["no-such-module"])),
        "scancel": desk.launch("scancel", "train.steps=400", plan=SLOW),
        "stop": desk.launch("stop", "train.steps=400", plan=SLOW),
        "chain": desk.launch("chain", plan={"leave_at": 8}, nodes="1", chain=3),
        "sweep": desk.launch(
            "sweep", nodes="1", sweep=("optim.lr=1e-3,5e-4",), plan={"leave_at": 8}
        ),
    }
    nasty = desk.folder / NASTY
    started["nasty"] = type(desk)(nasty, desk.cluster, desk.folder / "shards").launch("nasty")
    running = {name: Running(submission) for name, submission in started.items()}
    _disturb(testbed, running)
    return running


def _from_a_hostile_shell(desk: Any, clusters: Callable[..., str]) -> Submission:
    """Submitted where Slurm's variables say something else than the profile;
    a file of the site ends with `false`.
    """
    site = desk.folder / "site.sh"
    site.write_text("export PYTHONPATH=/site/lib:$PYTHONPATH\nfalse\n")
    profile = clusters(**SITE, node_local=str(desk.folder / "disk"), source=[str(site)])
    with pytest.MonkeyPatch.context() as shell:
        for name, value in HOSTILE.items():
            shell.setenv(name, value)
        return desk.launch("plain", cluster=profile)


def _disturb(testbed: Any, jobs: dict[str, Running]) -> None:
    """What happens to some of the jobs while all of them run."""
    jobs["outside"].reaches(10)
    testbed.run("scontrol", "requeue", jobs["outside"].job_id)
    jobs["killed"].reaches(10)
    os.kill(int((jobs["killed"].run.path / "pid-1").read_text()), signal.SIGKILL)


def test_a_job_trains_to_the_end_with_one_rank_a_task_and_a_log_for_each(
    jobs: dict[str, Running],
) -> None:
    job = jobs["plain"]
    assert job.ended().state == "finished"
    assert job.kinds == ["start", "finished"]
    assert job.steps == list(range(1, 21))
    for rank in range(2):
        assert f"rank {rank} of 2 on n" in log_file(job.run, rank).read_text()
    assert "2 ranks on" in log_file(job.run, None).read_text()
    assert "".join(read_log(log_file(job.run, 1), lines=1)).startswith("rank 1 of 2")


def test_the_ranks_get_what_the_profile_says_and_the_code_of_the_submission(
    jobs: dict[str, Running], desk: Any
) -> None:
    job = jobs["plain"]
    job.ended()
    for rank in range(2):
        seen = json.loads("".join(read_log(log_file(job.run, rank))).splitlines()[0])
        assert seen.pop("cores")
        caches = desk.folder / "disk" / f"electra-dist-{os.getuid()}"
        assert seen == {
            "TRITON_CACHE_DIR": f"{caches}/triton",
            "TORCHINDUCTOR_CACHE_DIR": f"{caches}/inductor",
            "TORCH_EXTENSIONS_DIR": f"{caches}/torch_extensions",
            "TORCH_FR_DUMP_TEMP_FILE": f"{job.run.path}/logs/job-{job.job_id}-flight-",
            "OMP_NUM_THREADS": "2",
            "NCCL_SOCKET_IFNAME": "ib0",
            "https_proxy": "http://proxy:3128",
            "PYTHONPATH": f"{job.run.path}/code/001:/site/lib:{os.environ.get('PYTHONPATH', '')}",
            "WORLD_SIZE": None,
            "SLURM_CPU_BIND": None,
            "SLURM_EXPORT_ENV": None,
        }


def test_what_slurm_reads_from_a_shell_does_not_win_over_the_profile(
    testbed: Any, jobs: dict[str, Running]
) -> None:
    job = jobs["plain"]
    job.ended()
    shown = testbed.run("scontrol", "show", "job", job.job_id)
    for field in (
        "Partition=main",
        "TimeLimit=00:10:00",
        "Requeue=1",
        f"StdOut={job.run.logs}/job-{job.job_id}.log",
    ):
        assert field in shown
    assert "its last command ended with status 1; going on" in log_file(job.run, None).read_text()


def test_a_hang_costs_the_node_that_the_watchdog_names(jobs: dict[str, Running]) -> None:
    job = jobs["hang"]
    assert job.ended().state == "finished"
    assert job.kinds == ["start", "hang", "requeue", "exclude", "start", "finished"]
    suspect = job.events[3].detail
    assert f"rank 1 on {suspect} has shown no sign for 300 s" in job.events[1].detail
    assert job.events[2].detail.startswith("hang, exit code 69 (rank 1 on")
    assert suspect not in job.events[4].detail


def test_a_full_disk_ends_a_run_after_three_starts_with_the_reason(
    jobs: dict[str, Running], small_disk: Path
) -> None:
    job = jobs["full"]
    assert job.ended(180).state == "failed"
    assert job.kinds == ["start", "requeue"] * 2 + ["start", "failed"]
    assert job.run.complete_checkpoints() == [5]
    why = job.status.why or ""
    assert why.startswith("3 crashes without a new checkpoint, the last: ")
    assert "exit code 74" in why
    assert (
        f"no space left on {small_disk}" in why
        or "a checkpoint cannot be written: no space left" in why
    )
    assert not [kind for kind in job.kinds if kind == "exclude"]


def test_a_folder_with_a_nasty_name_is_only_a_name(jobs: dict[str, Running], desk: Any) -> None:
    job = jobs["nasty"]
    assert job.ended().state == "finished"
    assert job.run.path == desk.folder / NASTY / "runs" / "nasty"
    assert sorted(path.name for path in job.run.logs.iterdir()) == [
        f"job-{job.job_id}-rank-0.log",
        f"job-{job.job_id}-rank-1.log",
        f"job-{job.job_id}.log",
    ]
    assert not list(desk.folder.glob("**/PWNED"))
    assert not Path("PWNED").exists()


def test_a_requeue_from_outside_goes_on_where_the_ranks_saved_and_is_not_repeated(
    jobs: dict[str, Running],
) -> None:
    job = jobs["outside"]
    assert job.ended().state == "finished"
    assert job.kinds == ["start", "signal", "requeued", "start", "finished"]
    assert job.steps == list(range(1, 41))
    assert job.status.restarts == 1


def test_a_running_job_tells_its_step_and_the_time_that_is_left(jobs: dict[str, Running]) -> None:
    job = jobs["stop"]
    job.reaches(8)
    now = job.status
    assert now.state == "running"
    assert now.steps == 400
    assert now.last_checkpoint is not None
    assert now.time_left
    assert now.nodes
    assert now.seconds_left == pytest.approx((400 - now.step) * 0.05)
    assert (now.generator_loss, now.real_tokens_per_s) == (pytest.approx(5 - now.step / 100), 100.0)
    assert find_run(job.job_id).path == job.run.path
    with pytest.raises(UserError, match="running already"):
        prepare(job.run.jobs / "001.yaml", [], _request(job))


def without_extras(*words: str) -> str:
    """What `electra-dist` prints on a login node, where torch cannot be imported."""
    command = [sys.executable, str(PROGRAMS / "without_extras.py"), *words]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parents[3])}
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_login_node_without_torch_sees_the_live_job(jobs: dict[str, Running]) -> None:
    job = jobs["stop"]
    job.reaches(8)
    for target in (job.job_id, str(job.run.path)):
        seen = json.loads(without_extras("status", target, "--json"))
        assert (seen["state"], seen["job_id"], seen["steps"]) == ("running", job.job_id, 400)
        assert seen["step"] >= 8
    shown = without_extras("status", job.job_id)
    for word in (
        "state:",
        "running",
        "time slot left:",
        "losses:",
        "real tokens/s",
        "checkpoint:",
        "restarts:",
    ):
        assert word in shown
    log = json.loads(
        without_extras("logs", str(job.run.path), "--rank", "1", "--lines", "1", "--json")
    )
    assert log["text"].startswith("rank 1 of 2 on ")
    assert "2 ranks on" in without_extras("logs", job.job_id, "--script")


def test_a_log_can_be_followed(jobs: dict[str, Running]) -> None:
    log = log_file(jobs["stop"].run, 0)
    text = read_log(log, lines=1, follow=True)
    assert next(text).startswith("rank 0 of 2 on ")
    with log.open("a") as file:
        file.write("appended\n")
    assert next(text) == "appended\n"


def _request(job: Running) -> Any:
    from launcher.slurm.submit import Request

    return Request(cluster=records(job.run)[-1].cluster)


def test_stop_saves_and_does_not_requeue(jobs: dict[str, Running]) -> None:
    job = jobs["stop"]
    job.reaches(8)
    assert json.loads(without_extras("stop", str(job.run.path), "--json"))["told"] == [job.job_id]
    assert job.ended().state == "stopped"
    assert job.kinds == ["start", "stopped"]
    assert job.run.complete_checkpoints()[-1] == job.steps[-1]
    with pytest.raises(UserError, match="no job of this run is in the queue"):
        stop(job.run)


def test_scancel_saves_and_stops_for_good(testbed: Any, jobs: dict[str, Running]) -> None:
    job = jobs["scancel"]
    job.reaches(8)
    testbed.run("scancel", job.job_id)
    assert job.ended().state == "cancelled"
    assert job.run.complete_checkpoints()[-1] == job.steps[-1]
    assert not [entry for entry in queue.queued([job.job_id]) if entry.is_active]


def test_a_mistake_of_the_user_ends_the_run_at_once(jobs: dict[str, Running]) -> None:
    job = jobs["wrong"]
    assert job.ended().state == "failed"
    assert job.kinds == ["start", "failed"]
    assert "no key train.stepz (exit code 2)" in (job.status.why or "")


def test_the_same_exit_code_of_a_run_that_has_trained_before_is_tried_again(
    jobs: dict[str, Running],
) -> None:
    job = jobs["later"]
    assert job.ended(180).state == "failed"
    assert job.kinds == ["start", "requeue"] * 3 + ["start", "failed"]
    assert "3 crashes without a new checkpoint, the last: crash, exit code 2" in (
        job.status.why or ""
    )
    assert job.run.complete_checkpoints()[-1] == 8


def test_a_module_that_is_not_there_ends_the_run_at_once(jobs: dict[str, Running]) -> None:
    job = jobs["module"]
    assert job.ended().state == "failed"
    assert job.kinds == ["failed"]
    assert job.status.why == "cannot load module no-such-module (cluster profile, modules)"


def test_a_chain_goes_on_until_the_run_is_finished(jobs: dict[str, Running]) -> None:
    job = jobs["chain"]
    assert job.ended().state == "finished"
    assert job.kinds == ["start", "unfinished", "start", "finished"]
    assert job.steps == list(range(1, 21))
    first, second, third = job.submission.job_ids
    assert [event.job_id for event in job.events] == [first, first, second, second]
    job.until(lambda: not [entry for entry in queue.queued([third]) if entry.is_active])


def test_a_sweep_is_one_array_of_runs(jobs: dict[str, Running]) -> None:
    submission = jobs["sweep"].submission
    assert [path.name for path in submission.runs] == ["lr-1e-3", "lr-5e-4"]
    runs = [Running(submission, index) for index in range(2)]
    assert [run.ended().state for run in runs] == ["finished", "finished"]
    assert [run.job_id for run in runs] == [
        f"{submission.job_ids[0]}_{index}" for index in range(2)
    ]
    assert [len(run.steps) for run in runs] == [20, 20]
    assert [run.kinds for run in runs] == [
        ["start", "requeue", "start", "finished"]
    ] * 2  # each by itself
    for run, rate in zip(runs, ("0.001", "0.0005"), strict=True):
        config = configuration.load(run.run.jobs / "001.yaml")
        assert config.optim.lr == float(rate)
        assert config.tracking.group == "sweep"


def test_a_killed_rank_is_a_crash_and_its_node_is_left_out(jobs: dict[str, Running]) -> None:
    job = jobs["killed"]
    assert job.ended().state == "finished"
    kinds = job.kinds
    assert kinds[0] == "start"
    assert kinds[-2:] == ["start", "finished"]
    assert [kind for kind in kinds if kind == "requeue"] == ["requeue"]
    suspect = next(event.detail for event in job.events if event.kind == "exclude")
    first, second = (event.detail for event in job.events if event.kind == "start")
    assert suspect in first
    assert suspect not in second
    assert sorted(set(job.steps)) == list(range(1, 61))


def test_a_waiting_job_says_why_and_can_be_taken_back(testbed: Any, desk: Any) -> None:
    job = Running(desk.launch("waiting", cluster=desk.cluster, after=_held(testbed)))
    assert (job.status.state, job.status.why) == ("waiting", "Dependency")
    assert stop(job.run).cancelled == (job.job_id,)
    job.until(lambda: job.status.state not in ("waiting", "ending"))
    assert job.status.state in ("cancelled", "unfinished")
    testbed.run("scancel", "--user=root", "--name=held")


def _held(testbed: Any) -> str:
    return str(
        testbed.run(
            "sbatch", "--parsable", "--hold", "--job-name=held", "--output=/dev/null", "--wrap=true"
        )
    )


def test_a_preempted_job_comes_back_by_itself(testbed: Any, desk: Any) -> None:
    job = Running(desk.launch("preempted", "train.steps=40", plan=SLOW, exclude="n1,n2"))
    # such jobs are not requeued: the next one goes on
    once = {
        "nodes": "1",
        "exclude": "n[1-3]",
        "chain": 2,
    }
    chain = Running(desk.launch("preempted-chain", "train.steps=40", plan=SLOW, **once))
    job.reaches(5)
    chain.reaches(5)
    nodes = job.status.nodes
    testbed.run(
        "sbatch",
        "-p",
        "urgent",
        f"-w{nodes}",
        "-N2",
        "--exclusive",
        "-o",
        "/dev/null",
        "--wrap=sleep 1",
    )
    assert job.ended().state == "finished"
    assert job.kinds == ["start", "signal", "requeued", "start", "finished"]
    assert job.steps == list(range(1, 41))
    assert chain.ended().state == "finished"
    assert chain.kinds == ["start", "signal", "unfinished", "start", "finished"]
    assert "preempted" in chain.events[2].detail
    assert chain.steps == list(range(1, 41))


def test_a_dead_node_costs_a_restart_with_fewer_ranks(testbed: Any, desk: Any) -> None:
    job = Running(
        desk.launch(
            "node", "train.steps=200", plan={"step_seconds": 0.2}, nodes="2-3", exclude="n1"
        )
    )
    alone = Running(
        desk.launch(
            "alone", "train.steps=60", plan={"step_seconds": 0.2}, nodes="1", exclude="n[1-3]"
        )
    )
    job.reaches(10)
    alone.reaches(10)
    assert [row["world"] for row in job.run.read_metrics()][-1] == 3
    testbed.kill_node("n4")
    try:
        assert job.ended(180).state == "finished"
        assert [row["world"] for row in job.run.read_metrics()][-1] == 2
        assert sorted(set(job.steps)) == list(range(1, 201))
        assert "n4" not in [event for event in job.events if event.kind == "start"][-1].detail
        # the other job lost the node of its batch script too, and may run nowhere else
        assert (alone.status.state, alone.kinds) == ("waiting", ["start"])
        assert alone.status.why
    finally:
        testbed.start_node("n4")
    assert alone.ended().state == "finished"
    assert alone.kinds == ["start", "start", "finished"]
    assert sorted(set(alone.steps)) == list(range(1, 61))


def test_a_crash_loop_stops_with_the_reason(jobs: dict[str, Running]) -> None:
    job = jobs["loop"]
    assert job.ended(180).state == "failed"
    assert job.kinds.count("start") == 3
    assert "too few nodes are left" in next(
        event.detail for event in job.events if event.kind == "keep"
    )
    assert "3 crashes without a new checkpoint, the last: crash, exit code 1" in (
        job.status.why or ""
    )


def test_ranks_that_do_not_save_in_time_cost_what_they_did_since_the_last_checkpoint(
    jobs: dict[str, Running],
) -> None:
    job = jobs["deaf"]
    job.until(lambda: job.kinds.count("start") == 2, 240)
    stop(job.run)
    assert job.ended().state == "stopped"
    assert job.kinds == ["start", "signal", "late", "requeue", "start", "stopped"]
    assert (
        "not saved in time, exit code 124, 1 of 3 at most without a new checkpoint"
        in job.events[3].detail
    )


def test_the_time_limit_saves_requeues_and_goes_on(jobs: dict[str, Running]) -> None:
    job = jobs["limit"]
    assert job.ended(240).state == "finished"
    assert job.kinds == ["start", "signal", "requeue", "start", "finished"]
    assert job.steps == list(range(1, 151))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"partition": "gpuu"},
            "partition gpuu: this cluster has none of this name.*it has: main, urgent",
        ),
        (
            {"gpus_per_node": 4, "gpu_request": "gres"},
            "gpus_per_node = 4: the nodes of partition main have 2",
        ),
        ({"cores_per_task": 64}, "cores_per_task = 64 x 1 tasks a node: .* have 8 cores"),
        ({"time_limit": "3:00:00"}, "time limit 3:00:00: partition main allows 1:00:00"),
        ({"time_limit": "1"}, "time limit 1: the ranks are told to save 30 s ahead"),
        ({"time_limit": "1", "account": "x y"}, "key account = 'x y'"),
        ({"shared_paths": ["/nowhere"]}, "the compute nodes do not see it"),
        (
            {"python": None, "venv": "/nowhere/.venv"},
            "venv of the cluster profile: /nowhere/.venv/bin/python is not",
        ),
    ],
)
def test_what_slurm_could_never_run_is_refused_before_submission(
    testbed: Any, desk: Any, clusters: Callable[..., str], changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        desk.launch("refused", cluster=clusters(**changes), nodes="1")
    assert not (desk.folder / "runs" / "refused").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"nodes": "13"},
            r"`nodes` 13 with 1 ranks a node: world size 13: .*without idle rows: \[1, 2, 3, 4, 6,"
            r" 12\]",
        ),
        ({"nodes": "6"}, "`nodes` 6: partition main has 4 nodes"),
        ({"nodes": "2-1"}, "`nodes` 2-1: expected a number, or a range"),
        ({"after": "1; rm"}, "`after` '1; rm': expected the id of a job"),
        ({"cluster": "testbde"}, "no such profile .did you mean 'testbed'"),
    ],
)
def test_impossible_requests_are_refused_with_what_to_do(
    testbed: Any, desk: Any, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError if "partition" not in message else UserError, match=message):
        desk.launch("refused", **changes)


def test_a_refusal_by_slurm_leaves_nothing_to_trip_over(
    testbed: Any, desk: Any, clusters: Callable[..., str]
) -> None:
    with pytest.raises(UserError, match="sbatch: "):
        desk.launch("refused-late", cluster=clusters(sbatch_options=["--licenses=none:1"]))
    jobs = Path(desk.folder / "runs" / "refused-late" / "jobs")
    assert not list(jobs.glob("0*"))
