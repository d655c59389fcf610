"""What a job script makes of every exit status, of a disk that is full and of the site's files: its
functions in bash.

Slurm is a stand-in that notes what it is asked; tests/launcher/slurm/test_submit.py has the real
one.
"""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from electra_dist import errors
from electra_dist.runs import lock
from electra_dist.runs.directory import RunDir
from launcher.records import Event, events
from launcher.slurm.clusters import Cluster
from launcher.slurm.job_script import Job, render
from tests.support.disks import tiny_disk

SCONTROL = """\
#!/bin/bash
echo "scontrol $*" >>"$CALLS"
case "$1 $2" in
"show job") echo "JobState=RUNNING Restarts=0 ExcNodeList=(null) Comment=(null)" ;;
"show node") echo "NodeAddr=127.0.0.1" ;;
"show hostnames") tr ',' '\\n' <<<"$3" ;;
esac
"""
SINFO = '#!/bin/bash\nprintf "n%s idle\\n" 1 2 3 4 5 6\n'
ALL_KILLED = "srun: First task exited 3s ago\nsrun: error: n1: task 0: Killed\n"


@dataclass
class Ended:
    """What came of a script: its exit code, the events that it noted,
    what it asked of Slurm, what it printed.
    """

    code: int
    noted: list[Event]
    asked: list[str]
    said: str

    @property
    def kinds(self) -> list[str]:
        return [event.kind for event in self.noted]

    @property
    def requeued(self) -> bool:
        return "scontrol requeue 7" in self.asked


class Script:
    """A script of two nodes with one rank each, whose ranks have ended as the test says."""

    def __init__(self, folder: Path, **cluster: Any) -> None:
        self.run = RunDir(folder / "a run")
        for path in (self.run.jobs, self.run.logs, folder / "bin"):
            path.mkdir(parents=True)
        for name, text in (("scontrol", SCONTROL), ("sinfo", SINFO)):
            (folder / "bin" / name).write_text(text)
            (folder / "bin" / name).chmod(0o755)
        profile = Cluster(**({"gpus_per_node": 1, "cores_per_task": 1} | cluster))
        job = Job(
            "one",
            "001",
            profile,
            (self.run.path,),
            self.run.logs,
            folder,
            (2, 2),
            (2,),
            "python3",
            "60",
        )
        self.functions, self.tail = render(job).split("\nbegin\n")
        self.folder = folder

    def bash(self, text: str, restart: int = 0, **variables: str) -> Ended:
        calls = self.folder / "calls"
        calls.unlink(missing_ok=True)
        environment = {
            "PATH": f"{self.folder}/bin:{os.environ['PATH']}",
            "HOME": str(self.folder),
            "CALLS": str(calls),
            "SLURM_JOB_ID": "7",
            "SLURM_RESTART_COUNT": str(restart),
            "SLURM_JOB_NODELIST": "n1,n2",
        } | variables
        command = ["bash", "-c", f"{self.functions}\n{text}"]
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=60, check=False
        )
        asked = calls.read_text().splitlines() if calls.exists() else []
        return Ended(done.returncode, events(self.run, "001"), asked, done.stdout + done.stderr)

    def end(
        self,
        code: int,
        messages: str = "",
        logs: tuple[str, ...] = (),
        before: str = "",
        **more: Any,
    ) -> Ended:
        """The ranks have ended: srun's code and messages, what each rank wrote into its log."""
        wrote = "\n".join(
            f"printf '%s\\n' {_quoted(text)} >>\"$run_dir/logs/job-7-rank-{rank}.log\""
            for rank, text in enumerate(logs)
        )
        return self.bash(
            f"""
            begin
            {before}
            choose_nodes
            meeting_point
            mark_logs
            note start "2 ranks"
            {wrote}
            printf '%s' {_quoted(messages)} >"$srun_messages"
            code={code}
            judge_ranks
            decide "$(suspects)"
            """,
            **more,
        )


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


@pytest.fixture
def script(tmp_path: Path) -> Script:
    return Script(tmp_path)


def exited(code: int, task: int = 1) -> str:
    return f"srun: error: n{task + 1}: task {task}: Exited with exit code {code}\n"


# --- the exit statuses ----------------------------------------------------------------------------


def test_the_script_knows_the_statuses_by_the_names_and_numbers_of_the_table(
    script: Script,
) -> None:
    names = ("ok", "user_error", "bad_nodes", "hang", "diverged", "storage", "unfinished")
    shown = script.bash("\n".join(f"echo $exit_{name}" for name in names)).said.split()
    assert [int(number) for number in shown] == [
        getattr(errors, f"EXIT_{name.upper()}") for name in names
    ]
    shared = script.functions.partition("# --- the same for every job")[2]
    for number in ("69", "70", "74", "75"):
        assert number not in shared.replace("${", "").split()


def test_finished_and_interrupted(script: Script) -> None:
    saved = script.end(75, exited(75))
    assert (saved.code, saved.kinds[-1], saved.requeued) == (75, "requeue", True)
    assert saved.noted[-1].detail == "not finished, nothing saved yet"
    ended = script.end(0, restart=1)
    assert (ended.code, ended.kinds[-2:], ended.requeued) == (0, ["start", "finished"], False)


def test_a_mistake_that_a_rank_names_ends_the_run_with_its_words(script: Script) -> None:
    (script.run.logs / "job-7-rank-0.log").write_text("error: what an earlier start said\n")
    ended = script.end(2, exited(2, 0), ("error: train.steps = -1: expected a number",))
    assert (ended.code, ended.kinds[-1], ended.requeued) == (2, "failed", False)
    assert ended.noted[-1].detail.startswith(
        "train.steps = -1: expected a number (exit code 2); see electra-dist logs"
    )


def test_exit_code_2_without_a_word_of_ours_is_no_mistake_of_the_user(script: Script) -> None:
    ended = script.end(
        2, "slurmstepd: error: execve(): bash: No such file or directory\n" + exited(2)
    )
    assert (ended.kinds[-2:], ended.requeued) == (["requeue", "exclude"], True)
    assert (
        "crash, exit code 2 (execve(): bash: No such file or directory), 1 of 3"
        in ended.noted[-2].detail
    )
    assert "mistake" not in ended.said


def test_a_hang_goes_on_without_the_node_that_the_watchdog_names(script: Script) -> None:
    line = (
        "hang: rank 1 on n2 has shown no sign for 300 s (last seen in phase step, step 7); the"
        " other rank waits for it"
    )
    ended = script.end(137, exited(69, 0) + ALL_KILLED, (line,))
    assert (ended.kinds, ended.requeued) == (["start", "hang", "requeue", "exclude"], True)
    assert ended.noted[1].detail.startswith("rank 1 on n2 has shown no sign for 300 s")
    assert ended.noted[2].detail.startswith("hang, exit code 69 (rank 1 on n2 has")
    assert ended.noted[3].detail == "n2"
    assert "scontrol update JobId=7 ExcNodeList=n2" in ended.asked
    elsewhere = script.end(69, exited(69, 0), ("hang: rank 1 on other-host stands still",))
    assert elsewhere.kinds[-1] == "requeue"  # a node that is not of this job is not excluded


def test_a_divergence_is_never_requeued(script: Script) -> None:
    ended = script.end(
        137, exited(70, 0) + ALL_KILLED, ("error: diverged at step 60; lower optim.lr",)
    )
    assert (ended.code, ended.kinds[-1], ended.requeued) == (70, "failed", False)
    assert "training diverged: diverged at step 60; lower optim.lr" in ended.noted[-1].detail


def test_storage_is_tried_again_later_and_blames_no_node(script: Script) -> None:
    ended = script.end(74, exited(74, 0), ("error: /r/c: cannot be written: quota exceeded",))
    assert (ended.kinds, ended.requeued) == (["start", "requeue"], True)
    said = (
        "the files of the run cannot be written, exit code 74 (/r/c: cannot be written: quota"
        " exceeded), 1 of 3"
    )
    assert said in ended.noted[-1].detail
    assert "scontrol update JobId=7 StartTime=now+600" in ended.asked
    assert not [line for line in ended.asked if "ExcNodeList=" in line]


def test_a_crash_is_told_by_the_last_line_of_the_rank_that_failed_first(script: Script) -> None:
    trace = (
        "Traceback (most recent call last):\n  File x\ntorch.OutOfMemoryError: CUDA out of memory"
    )
    ended = script.end(137, exited(1) + ALL_KILLED, ("waiting", trace))
    assert ended.kinds == ["start", "requeue", "exclude"]
    assert (
        "crash, exit code 1 (torch.OutOfMemoryError: CUDA out of memory), 1 of 3"
        in ended.noted[1].detail
    )
    killed = script.end(137, "srun: error: n2: task 1: Killed\n" + exited(1, 0))
    assert (
        "crash, exit code 137, 2 of 3"
        in [e for e in killed.noted if e.kind == "requeue"][-1].detail
    )


def test_three_crashes_end_the_run_and_a_new_checkpoint_starts_the_count_again(
    script: Script,
) -> None:
    for restart in range(2):
        assert script.end(1, exited(1), restart=restart).requeued
    (script.run.checkpoint(5)).mkdir(parents=True)
    (script.run.checkpoint(5) / "COMPLETE").touch()
    for restart in range(2, 4):
        assert script.end(1, exited(1), restart=restart).requeued
    ended = script.end(1, exited(1), restart=4)
    assert (ended.code, ended.requeued, ended.kinds[-1]) == (1, False, "failed")
    assert (
        "3 crashes without a new checkpoint, the last: crash, exit code 1" in ended.noted[-1].detail
    )


def test_a_taken_port_is_not_the_fault_of_a_node(script: Script) -> None:
    line = "error: port 20112 of n1 is taken by another process, so the ranks cannot meet there"
    ended = script.end(2, exited(2, 0), (line,))
    assert (ended.kinds, ended.requeued) == (["start", "requeue"], True)
    assert "of n1 was taken by another program" in ended.noted[-1].detail


def test_the_ports_that_somebody_listens_on_are_passed_over(script: Script) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 20000 + 7 * 16))
        other.listen()
        shown = script.bash("begin\nchoose_nodes\nmeeting_point\necho port $MASTER_PORT")
    assert "port 20112 of n1 is taken by another program" in shown.said
    assert "port 20113" in shown.said
    again = script.bash("begin\nchoose_nodes\nmeeting_point\necho port $MASTER_PORT", restart=1)
    assert "port 20113" in again.said  # the next start has another one anyway


@pytest.mark.parametrize(
    ("inner", "kind"), [(75, "requeue"), (69, "requeue"), (70, "failed"), (-9, "requeue")]
)
def test_torchrun_turns_all_statuses_into_one_and_its_report_has_them(
    script: Script, inner: int, kind: str
) -> None:
    report = (
        "ValueError: why\ntorch.distributed.elastic.multiprocessing.errors.ChildFailedError: \n"
        "Root Cause (first observed failure):\n[0]:\n  rank      : 1 (local_rank: 0)\n"
        f"  exitcode  : {inner} (pid: 9) \n  error_file: <N/A>"
    )
    ended = script.end(1, exited(1, 0), (report,), before="torchrun=yes")
    assert [event.kind for event in ended.noted if event.kind in ("requeue", "failed")] == [kind]
    code = {
        -9: "exit code 137",
        75: "not finished",
        69: "hang, exit code 69",
        70: "training diverged",
    }[inner]
    detail = next(event.detail for event in ended.noted if event.kind == kind)
    assert code in detail
    assert ("ValueError: why" in detail) == (inner != 75)


# --- a disk that cannot be written ----------------------------------------------------------------


def test_the_bound_holds_and_slurm_is_told_where_nothing_can_be_written(script: Script) -> None:
    """Neither events nor counts can be written;
    what the script remembers is Slurm's own count of its starts.
    """
    nowhere = (
        "events=/dev/full counts=/nowhere/counts reserve=/nowhere/reserve over_file=/nowhere/over"
    )
    for restart in range(3):
        ended = script.end(74, exited(74, 0), before=nowhere, restart=restart)
        assert ended.requeued == (restart < 2)
        comment = next(line for line in ended.asked if "Comment=" in line)
        assert f" {restart} " in comment
    assert ended.code == 74
    assert (
        "failed: 3 crashes without a new checkpoint, the last: the files of the run cannot be"
        " written" in comment
    )


def test_starts_that_slurm_itself_ended_do_not_count_where_the_disk_is_well(script: Script) -> None:
    for restart in (0, 1, 2, 5, 6):  # their nodes died: begun and not ended
        script.bash("begin\nexit 0", restart=restart)
    ended = script.end(1, exited(1), restart=7)
    assert "1 of 3 at most" in next(
        event.detail for event in ended.noted if event.kind == "requeue"
    )


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    with tiny_disk(tmp_path / "disk", "512k") as place:
        yield place


def test_the_last_words_fit_on_a_full_disk(small_disk: Path) -> None:
    """The script gives up what it had reserved:
    the reason is in the run directory, and the counts hold.
    """
    script = Script(small_disk)
    fill = f"head -c 1M /dev/zero >>{small_disk}/filler 2>/dev/null"
    for restart in range(3):
        ended = script.end(1, exited(1), before=fill, restart=restart)
        assert ended.requeued == (restart < 2), ended.said
    assert ended.kinds.count("start") == 3
    assert ended.kinds[-1] == "failed"
    assert f"crash; no space left on {small_disk}, exit code 1" in ended.noted[-1].detail
    assert not [line for line in ended.asked if "Comment=" in line]


# --- what the site gives --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "fails"),
    [
        ("export SITE=1\nfalse", ""),
        ("export SITE=1\nreturn 1", ""),
        ("export SITE=1\n[[ $- == *i* ]] || return", ""),
        ("export SITE=1\nset -eu -o pipefail\nfalse", ""),
        ("declare -x SITE=1; trap - TERM; IFS=:; python=/other", ""),
        ("export SITE=1\nif then", "syntax error"),
        ("exit 3", "ended the job script"),
        (None, "cannot be read"),
    ],
)
def test_a_sourced_file_fails_by_what_it_cannot_do_and_not_by_its_last_command(
    tmp_path: Path, text: str | None, fails: str
) -> None:
    site = tmp_path / "the site.sh"
    script = Script(tmp_path / "x", source=(str(site),))
    if text is not None:
        site.write_text(text)
    shown = 'main() { set_up; false; echo "SITE=$SITE python=$python [$IFS] $-"; trap; exit 0; }'
    ended = script.bash(f"{shown}\nbegin\n{script.tail}")
    if fails:
        assert (ended.code, ended.kinds) == (1, ["failed"])
        assert f"{site}: {fails}" in ended.noted[0].detail
    else:
        assert ended.code == 0, ended.said
        assert "SITE=1 python=python3 [ \t\n] " in ended.said
        assert "trap -- 'on_terminate' SIGTERM" in ended.said


def test_what_a_shell_left_for_slurm_does_not_reach_the_ranks(script: Script) -> None:
    left = {"SLURM_CPU_BIND": "quiet,mask_cpu:0x1", "SLURM_CPU_BIND_LIST": "0x1",
            "SBATCH_TIMELIMIT": "1", "SRUN_CPUS_PER_TASK": "1", "SLURM_EXPORT_ENV": "NONE",
            "SLURM_MEM_PER_NODE": "500"}  # fmt: skip
    shown = script.bash("begin\nenv", **left)
    assert "SBATCH_TIMELIMIT: may have won over the #SBATCH lines" in shown.said
    # Slurm's own for this job
    assert [name for name in left if f"\n{name}=" in shown.said] == ["SLURM_MEM_PER_NODE"]


def test_what_modules_need_stays_behind_the_code_of_the_submission(script: Script) -> None:
    shown = script.bash(
        'begin\nset_up\necho "PYTHONPATH=$PYTHONPATH"', PYTHONPATH="/site/lib:/more"
    )
    assert f"PYTHONPATH={script.run.path}/code/001:/site/lib:/more" in shown.said


# --- another writer -------------------------------------------------------------------------------


@pytest.mark.parametrize("restart", [0, 1])
def test_a_run_that_somebody_else_trains_is_not_tried_again_and_again(
    script: Script, restart: int
) -> None:
    """His checkpoints look like progress of ours, so that no bound would ever be reached."""
    with lock.hold(script.run), pytest.raises(errors.LockedError) as refused, lock.hold(script.run):
        pass
    with lock.hold(script.run):
        for lease in (script.run.path / "lock").iterdir():
            lease.unlink()
        with pytest.raises(errors.LostLockError) as lost:
            lock.check(script.run, fresh=True)
    taken = str(lost.value).replace(
        "its lock was removed while it trained", "its lock was taken over by process 7"
    )
    said = taken if restart else str(refused.value)
    ended = script.end(2, exited(2), (f"error: {said}", ""), restart=restart)
    assert (ended.code, ended.kinds[-1], ended.requeued) == (2, "failed", False)
    assert said[:100] in ended.noted[-1].detail
    assert "submit again when that one has ended" in ended.noted[-1].detail
