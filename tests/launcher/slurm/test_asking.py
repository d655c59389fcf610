"""A view of many runs asks Slurm as seldom as one of one run."""

from __future__ import annotations

import pytest

from electra_dist.errors import UserError
from launcher.slurm import asking, queue
from launcher.slurm.asking import ASK_SECONDS, SeldomAsking


class Slurm:
    """What the commands answer, and how often they were called."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, ...]] = []
        self.lines = ["7|RUNNING|None|n1|1:00|N/A|", "8_0|PENDING|Priority|||N/A|"]
        self.fails = False

    def call(self, *command: str, **_: object) -> str:
        self.asked.append(command)
        if self.fails:
            raise UserError("squeue: Unable to contact slurm controller")
        if command[0] == "sacct":
            return "TIMEOUT\n"
        return "\n".join(self.lines)


class Clock:
    now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def slurm(monkeypatch: pytest.MonkeyPatch) -> Slurm:
    made = Slurm()
    monkeypatch.setattr(queue, "call", made.call)
    monkeypatch.setattr(queue.shutil, "which", lambda name: f"/usr/bin/{name}")
    return made


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(asking, "time", made)
    return made


def test_one_question_serves_all_runs_for_a_while(slurm: Slurm, clock: Clock) -> None:
    seldom = SeldomAsking()
    seldom.expect(["7", "8", "9"])
    for _ in range(10):
        assert [job.job_id for job in seldom.queued(["7"])] == ["7"]
        assert [job.job_id for job in seldom.queued(["8"])] == ["8_0"]
        assert seldom.queued(["9"]) == []
        clock.now += (ASK_SECONDS - 1) / 10
    assert len(slurm.asked) == 1
    assert "--jobs=7,8,9" in slurm.asked[0]
    clock.now += 2
    slurm.lines = []
    assert seldom.queued(["7"]) == []
    assert len(slurm.asked) == 2


def test_a_silent_slurm_is_not_asked_more_often(slurm: Slurm, clock: Clock) -> None:
    slurm.fails = True
    seldom = SeldomAsking()
    seldom.expect(["7"])
    for _ in range(5):
        with pytest.raises(UserError, match="Unable to contact"):
            seldom.queued(["7"])
    assert len(slurm.asked) == 1
    clock.now += ASK_SECONDS + 1
    slurm.fails = False
    assert seldom.queued(["7"])[0].state == "RUNNING"


def test_a_job_that_is_new_waits_for_the_next_question(slurm: Slurm, clock: Clock) -> None:
    seldom = SeldomAsking()
    seldom.expect(["7"])
    seldom.queued(["7"])
    seldom.expect(["7", "8"])
    with pytest.raises(UserError, match="asked about this job in 15 s"):
        seldom.queued(["8"])
    clock.now += ASK_SECONDS + 1
    assert len(seldom.queued(["8"])) == 1


def test_accounting_is_asked_about_one_job_at_a_time_and_once(slurm: Slurm, clock: Clock) -> None:
    seldom = SeldomAsking()
    assert seldom.accounted("1") == "TIMEOUT"
    assert seldom.accounted("2") is None
    assert seldom.accounted("1") == "TIMEOUT"
    assert len(slurm.asked) == 1
    clock.now += ASK_SECONDS + 1
    assert seldom.accounted("2") == "TIMEOUT"
    assert len(slurm.asked) == 2
