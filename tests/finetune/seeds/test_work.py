"""A killed fine-tuning goes on, and comes to the same bits as one that was not killed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from electra_dist.errors import UserError
from electra_dist.finetune.run import finetune
from electra_dist.finetune.seeds import callbacks
from electra_dist.finetune.seeds.work import History, SeedFolder, Work
from tests.support.small_finetune import settings
from tests.support.toy_task import sentences, write_table


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("small")
    write_table(folder / "train.tsv", sentences(96, seed=1))
    write_table(folder / "dev.tsv", sentences(40, seed=2))
    return folder


@pytest.fixture(scope="module")
def whole(encoder: Path, small: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of two seeds that nobody interrupted, with dropout."""
    out = tmp_path_factory.mktemp("whole") / "out"
    finetune(settings(encoder, small, out, seeds=(1, 2)))
    return out


def killed_after(epochs: int) -> callbacks.AfterEpoch:
    """Ends the process, as it looks from inside, before the checkpoint of this epoch of seed 2."""

    def kill(seed: int, epoch: float, scores: dict[str, float]) -> bool:
        if seed == 2 and epoch == epochs:
            raise KeyboardInterrupt
        return False

    return kill


def test_it_goes_on_after_the_last_epoch_that_was_saved(
    encoder: Path, small: Path, whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = settings(encoder, small, tmp_path / "out", seeds=(1, 2))
    with pytest.raises(KeyboardInterrupt):
        finetune(asked, killed_after(2))
    assert [path.name for path in tmp_path.iterdir()] == [".out.work"]
    capsys.readouterr()
    finetune(asked)
    printed = capsys.readouterr().out
    assert "seed 1  is finished; it is not repeated" in printed
    assert "seed 2  goes on after step 6" in printed
    for name in ("model.safetensors", "config.json"):
        assert (tmp_path / "out" / name).read_bytes() == (whole / name).read_bytes()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_it_goes_on_in_the_middle_of_an_epoch(
    encoder: Path, small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    finetune(settings(encoder, small, tmp_path / "whole"))
    asked = settings(encoder, small, tmp_path / "out")
    monkeypatch.setattr(callbacks, "_SAVE_SECONDS", -1.0)
    log = callbacks.Progress.on_log

    def interrupted(self: Any, args: Any, state: Any, *others: Any, **named: Any) -> None:
        if state.global_step == 9:
            raise KeyboardInterrupt
        log(self, args, state, *others, **named)

    monkeypatch.setattr(callbacks.Progress, "on_log", interrupted)
    with pytest.raises(KeyboardInterrupt):
        finetune(asked)
    monkeypatch.setattr(callbacks.Progress, "on_log", log)
    finetune(asked)
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "out")]
    assert weights[0] == weights[1]


@pytest.mark.parametrize("keep", ["best", "last"])
def test_a_seed_that_ended_early_is_not_trained_on_when_its_end_was_killed(
    encoder: Path, small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keep: str
) -> None:
    def one_epoch(seed: int, epoch: float, scores: dict[str, float]) -> bool:
        return True

    finetune(settings(encoder, small, tmp_path / "whole", keep=keep), one_epoch)
    asked = settings(encoder, small, tmp_path / "out", keep=keep)
    finish = SeedFolder.finish

    def killed(self: SeedFolder, history: History) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(SeedFolder, "finish", killed)
    with pytest.raises(KeyboardInterrupt):
        finetune(asked, one_epoch)
    monkeypatch.setattr(SeedFolder, "finish", finish)
    assert finetune(asked).epochs == {1: 1.0}
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "out")]
    assert weights[0] == weights[1]


def test_other_settings_are_refused_and_named_or_begin_anew(
    encoder: Path, small: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        finetune(settings(encoder, small, out, seeds=(2,)), killed_after(2))
    other = settings(encoder, small, out, seeds=(2,), lr=1e-3)
    with pytest.raises(UserError, match=r"`lr` was 0\.003, now 0\.001\. .*`restart`"):
        finetune(other)
    assert Work(out).leads_on()
    other = settings(encoder, small, out, seeds=(2,), lr=1e-3, epochs=0.2, restart=True)
    finetune(other)
    assert out.is_dir()


def test_one_that_was_killed_before_its_first_checkpoint_leaves_nothing(
    encoder: Path, small: Path, tmp_path: Path
) -> None:
    with pytest.raises(KeyboardInterrupt):
        finetune(settings(encoder, small, tmp_path / "out", seeds=(2,)), killed_after(1))
    assert not list(tmp_path.iterdir())


def test_two_commands_never_work_in_one_folder(encoder: Path, small: Path, tmp_path: Path) -> None:
    with (
        Work(tmp_path / "out").held(),
        pytest.raises(UserError, match="another command is fine-tuning"),
    ):
        finetune(settings(encoder, small, tmp_path / "out"))
