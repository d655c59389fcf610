"""Samples are written whole, read with a bound, and only the newest hundred stay."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from electra_dist.errors import UserError
from electra_dist.runs.directory import RunDir
from electra_dist.runs.heldout import leftovers
from electra_dist.runs.heldout.evaluations import evaluated_steps, evaluation_file, read_evaluation
from electra_dist.runs.heldout.samples import (
    SamplePassage,
    SamplePiece,
    Samples,
    read_samples,
    sampled_steps,
    write_samples,
)

PIECES = (
    SamplePiece(" rain", None, None, None, False, 0.25),
    SamplePiece(" snow", " sun", " snow", 0.5, True, 0.75),
)


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    return RunDir(tmp_path)


def test_what_is_written_is_the_documented_form_and_reads_back(run: RunDir) -> None:
    samples = Samples(20, (SamplePassage("wiki", PIECES),))
    write_samples(run, samples)
    content = json.loads((run.path / "samples/step-00000020.json").read_text())
    assert content == {
        "step": 20,
        "passages": [
            {
                "source": "wiki",
                "pieces": [
                    {
                        "text": " rain",
                        "original": None,
                        "sampled": None,
                        "generator_probability": None,
                        "replaced": False,
                        "discriminator_probability": 0.25,
                    },
                    {
                        "text": " snow",
                        "original": " sun",
                        "sampled": " snow",
                        "generator_probability": 0.5,
                        "replaced": True,
                        "discriminator_probability": 0.75,
                    },
                ],
            }
        ],
    }
    assert read_samples(run, 20) == samples


def test_the_newest_hundred_stay_and_nothing_else_is_touched(run: RunDir) -> None:
    for step in range(0, 1030, 10):
        write_samples(run, Samples(step, ()))
    (run.path / "samples/notes.txt").write_text("mine")
    write_samples(run, Samples(1030, ()))
    assert sampled_steps(run) == list(range(40, 1040, 10))
    assert (run.path / "samples/notes.txt").read_text() == "mine"


@pytest.mark.parametrize(
    "content", ["", "[]", '{"step": 20, "passages": [{"source": 3}]}', "x" * 2_000_000]
)
def test_what_is_no_sample_gets_one_sentence(run: RunDir, content: str) -> None:
    write_samples(run, Samples(20, ()))
    path = run.path / "samples/step-00000020.json"
    path.write_text(content)
    with pytest.raises(UserError, match=r"step-00000020\.json"):
        read_samples(run, 20)
    path.unlink()
    path.symlink_to("/etc/hostname")
    with pytest.raises(UserError, match=r"step-00000020\.json"):
        read_samples(run, 20)


def test_an_evaluation_of_another_step_is_none(run: RunDir) -> None:
    path = evaluation_file(run, 20)
    path.parent.mkdir()
    path.write_text('{"step": 20}')
    assert read_evaluation(run, 20) == {"step": 20}
    path.write_text('{"step": 30}')
    with pytest.raises(UserError, match="step 20"):
        read_evaluation(run, 20)


def test_files_of_later_steps_go_with_them(run: RunDir) -> None:
    leftovers.remove_later_files(run, 0)  # a new run has none
    for step in (10, 20, 30):
        write_samples(run, Samples(step, ()))
        evaluation_file(run, step).parent.mkdir(exist_ok=True)
        evaluation_file(run, step).write_text("{}")
        evaluation_file(run, step).with_suffix(".png").touch()
    leftovers.remove_later_files(run, 20)
    assert sampled_steps(run) == evaluated_steps(run) == [10, 20]
    assert not list((run.path / "evaluations").glob("*30*"))
