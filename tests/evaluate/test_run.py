"""`evaluate` gives the trainer's own numbers on the same rows,
exact scores, and one clear line for each mistake.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from electra_dist import config as configuration
from electra_dist.batch import SPECIAL_TOKENS, MicroBatch
from electra_dist.checkpoint.networks import load_networks
from electra_dist.cli import main as cli
from electra_dist.cli.networks.evaluation_tables import mark as mark_of
from electra_dist.data.shards.manifest import FORMAT, SPLITS, Manifest
from electra_dist.data.sources import RunData
from electra_dist.data.step_plan import RowFormat
from electra_dist.data.validation import deal, validation_rows
from electra_dist.errors import CheckpointError, DataError, UserError
from electra_dist.evaluate import evaluate_run
from electra_dist.evaluate.heldout import Networks, Observed, judge
from electra_dist.evaluate.passages import Piece
from electra_dist.model.inputs import rows_of_documents, to_device
from electra_dist.model.networks import build_networks
from electra_dist.runs.directory import RunDir
from electra_dist.train.heldout.passages import Answers, passages_of
from tests.evaluate.conftest import ROWS
from tests.support.shards import as_version_1


def networks_of(run: RunDir) -> tuple[configuration.Config, Networks, Manifest]:
    config = configuration.load(run.config)
    return config, Networks(*load_networks(run, config, 8)), Manifest.load(config.data.shards)


# --- the same numbers as the trainer --------------------------------------------------------------


@pytest.mark.parametrize("step", [4, 8])
def test_it_gives_what_the_trainer_logged(trained: RunDir, step: int) -> None:
    """Same rows, masks and sampling keys;
    the trainer sharded its weights with DeepSpeed, here they come from disk.
    """
    logged = next(row for row in trained.read_metrics() if row["step"] == step)
    expected = {name: value for name, value in logged.items() if name.startswith("validation/")}
    assert len(expected) == 13
    found = evaluate_run(trained, step=step)
    assert found.metrics.keys() == expected.keys()
    for name, value in expected.items():
        assert found.metrics[name] == pytest.approx(value, abs=1e-4), name
    assert (found.rows, found.step, found.own_shards) == (ROWS, step, True)
    generator, discriminator = found.generator, found.discriminator
    assert generator.loss == pytest.approx(expected["validation/loss/generator"], abs=1e-4)
    assert generator.accuracy == pytest.approx(expected["validation/generator/accuracy"], abs=1e-6)
    assert discriminator.loss == pytest.approx(expected["validation/loss/discriminator"], abs=1e-4)
    assert discriminator.accuracy == pytest.approx(
        expected["validation/discriminator/accuracy"], abs=1e-6
    )
    assert discriminator.replaced_fraction == pytest.approx(
        expected["validation/discriminator/replaced_fraction"], abs=1e-6
    )
    # The trainer's AUC counts ties inside a bin of 0.004 logits as one half.
    assert discriminator.auc == pytest.approx(expected["validation/discriminator/auc"], abs=5e-3)


def test_rows_choose_how_much_of_the_split(trained: RunDir) -> None:
    config, _, manifest = networks_of(trained)
    everything = config.model_copy(
        update={"validation": config.validation.model_copy(update={"rows": 10**9})}
    )
    row_format = RowFormat.of(everything)
    held_out = validation_rows(RunData.alone(manifest), row_format, everything.validation.rows)
    assert held_out is not None
    found = evaluate_run(trained, rows="all")
    assert found.rows == len(held_out.keys) > ROWS
    assert found.discriminator.tokens == int((held_out.packed.tokens != SPECIAL_TOKENS.pad).sum())
    assert evaluate_run(trained, rows=3).rows == 3


def test_progress_ends_with_all_rows(trained: RunDir) -> None:
    calls: list[tuple[str, int, int]] = []
    evaluate_run(trained, rows=7, progress=lambda *call: calls.append(call))
    assert calls == [("held-out rows", done, 7) for done in (0, 4, 7)]


# --- every token, against the full logits ---------------------------------------------------------


@pytest.mark.parametrize("sharing", ["shared", "disentangled", "none"])
def test_what_is_observed_is_what_the_networks_compute(trained: RunDir, sharing: str) -> None:
    """A loop over the masked slots in float64, from the logits at every position."""
    config, networks, manifest = networks_of(trained)
    if sharing != "shared":
        model = config.model.model_copy(update={"embedding_sharing": sharing})
        untrained = build_networks(
            config.model_copy(update={"model": model}), manifest.vocab_size, "cpu", seed=1
        )
        networks = Networks(*(network.eval() for network in untrained))
    batches = [to_device(batch, "cpu") for batch in held_out_batches(config, manifest)]
    seen = Observed.joined(
        [judge(networks, batch, 4 * n).observed for n, batch in enumerate(batches)]
    )
    names = ("masked_rows", "nll", "rank", "sample_probability", "masked_logits")
    expected: dict[str, list[float]] = {name: [] for name in names}
    with torch.no_grad():
        for n, batch in enumerate(batches):
            generated = networks.generator(batch)
            logits = networks.discriminator(
                generated.shared, batch, generated.corrupted, generated.replaced
            ).logits
            full = networks.generator.logits(batch).double()
            for row, slot in (batch.masked_weights > 0).nonzero().tolist():
                at = int(batch.masked_positions[row, slot])
                probabilities = full[row, at].softmax(0)
                target, sample = int(batch.tokens[row, at]), int(generated.corrupted[row, at])
                expected["masked_rows"].append(4 * n + row)
                expected["nll"].append(-float(probabilities[target].log()))
                expected["rank"].append(int((probabilities > probabilities[target]).sum()))
                expected["sample_probability"].append(float(probabilities[sample]))
                expected["masked_logits"].append(float(logits[row, at]))
    for name, values in expected.items():
        np.testing.assert_allclose(getattr(seen, name), values, rtol=1e-4, atol=1e-6, err_msg=name)
    rows = [
        4 * n + row
        for n, batch in enumerate(batches)
        for row, _ in (batch.documents >= 0).nonzero().tolist()
    ]
    assert seen.token_rows.tolist() == rows
    assert int(seen.replaced.sum()) == int((seen.samples != seen.targets).sum()) > 0


# --- the command ----------------------------------------------------------------------------------


def test_json_has_every_documented_key(
    trained: RunDir, repo_root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert (
        cli.main(["evaluate", str(trained.path), "--json", "--rows", "6", "--passages", "1"]) == 0
    )
    found = json.loads(
        capsys.readouterr().out, parse_constant=lambda name: pytest.fail(f"{name} is no JSON")
    )
    page = (repo_root / "docs/evaluate.md").read_text(encoding="utf-8")
    nested = [found["generator"], found["discriminator"], found["standard_errors"]]
    nested += [found[name][0] for name in ("bands", "convincing", "calibration", "passages")]
    nested.append(found["passages"][0]["pieces"][0])
    for key in (key for keys in (found, *nested) for key in keys):
        assert f"`{key}`" in page, key
    assert found["plot"] is None


def test_the_picture_is_whole_and_nothing_else_is_left(
    trained: RunDir, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "picture.png"
    out.write_text("an earlier one")
    assert cli.main(["evaluate", str(trained.path), "--plot", str(out)]) == 0
    printed = capsys.readouterr()
    assert f"picture: {out}" in printed.out
    assert "unigram entropy" in printed.out
    assert "rows/s" in printed.err
    from matplotlib import image

    height, width, _ = image.imread(out).shape
    assert (height, width) == (935, 1210)
    assert [entry.name for entry in tmp_path.iterdir()] == ["picture.png"]


def test_passages_mark_every_masked_token(
    trained: RunDir, capsys: pytest.CaptureFixture[str]
) -> None:
    found = evaluate_run(trained, passages=5)
    assert [passage.kind for passage in found.passages] == ["worst"] * 3 + ["typical"] * 2
    worst = [passage.loss for passage in found.passages[:3]]
    assert worst == sorted(worst, reverse=True)
    assert worst[-1] >= found.passages[3].loss
    for passage in found.passages:
        pieces = passage.pieces
        assert any(piece.proposed is not None for piece in pieces)
        assert all(piece.proposed is not None for piece in pieces if piece.replaced)
        losses = [-np.log(p.probability if p.replaced else 1 - p.probability) for p in pieces]
        assert passage.loss == pytest.approx(np.mean(losses), abs=1e-5)
    assert cli.main(["evaluate", str(trained.path), "--passages", "5"]) == 0
    printed = capsys.readouterr().out
    assert printed.count("passage, discriminator loss") == 5
    assert "\x1b[" not in printed


@pytest.mark.parametrize(
    ("piece", "mark"),
    [
        (Piece(" rain", " snow", True, 0.834), (" [rain→snow 0.83]", "green")),
        (Piece(" rain", " snow", True, 0.1), (" [rain→snow 0.10]", "red")),
        (Piece("ing", " ", True, 0.1), ("[ing→␣ 0.10]", "red")),
        (Piece(" rain", " rain", False, 0.1), (" [rain 0.10]", "cyan")),
        (Piece(" rain", " rain", False, 0.9), (" [rain 0.90]", "yellow")),
        (Piece(" rain", None, False, 0.61), (" {rain 0.61}", "yellow")),
        (Piece(" rain", None, False, 0.4), (" rain", "")),
    ],
)
def test_marks(piece: Piece, mark: tuple[str, str]) -> None:
    assert mark_of(piece) == mark


def test_a_row_is_cut_into_passages_of_one_document() -> None:
    """Two documents of 30 and 80 tokens with [CLS] and [SEP], some padding;
    a masked token in each half.
    """
    documents = [[2, *range(10, 40), 3], [2, *range(40, 120), 3]]
    packed = rows_of_documents([documents], 128, SPECIAL_TOKENS.pad)
    masked = np.array([[5, 40, 108]], np.int32)
    batch = replace(packed, masked_positions=masked, masked_weights=np.ones((1, 3), np.float32))
    corrupted = batch.tokens.astype(np.int64)
    corrupted[0, 40] = 7
    probabilities = np.array([[0.5, 0.25, 0.125]], np.float32)
    answers = Answers(corrupted, np.zeros((1, 128), np.float32), probabilities)
    found = passages_of(batch, answers)
    assert [p.tokens.tolist() for p in found] == [
        list(range(10, 40)),
        list(range(40, 104)),
        list(range(104, 120)),
    ]
    assert [p.before for p in found] == [2, 2, 103]
    assert [p.masked.sum() for p in found] == [1, 1, 1]
    assert [(p.tokens != p.corrupted).sum() for p in found] == [0, 1, 0]
    assert [p.probabilities[p.masked].tolist() for p in found] == [[0.5], [0.25], [0.125]]
    assert found[0].loss == pytest.approx(np.log(2))


def test_the_pieces_of_a_passage_spell_the_text(trained: RunDir) -> None:
    """The original tokens, put together, are what the tokenizer decodes from the rows."""
    import tokenizers

    config, _, manifest = networks_of(trained)
    tokenizer = tokenizers.Tokenizer.from_file(str(trained.tokenizer / "tokenizer.json"))
    row_format = RowFormat.of(config)
    rows = validation_rows(RunData.alone(manifest), row_format, config.validation.rows)
    assert rows is not None
    texts = [
        tokenizer.decode(batch.tokens.flatten().tolist())
        for batch in deal(rows, row_format, SPECIAL_TOKENS, 0, 1)
    ]
    for passage in evaluate_run(trained, passages=4).passages:
        text = "".join(piece.text for piece in passage.pieces).strip()
        assert any(text in whole for whole in texts) or "\ufffd" in text, text


# --- mistakes -------------------------------------------------------------------------------------


def test_steps_rows_and_devices_that_are_not_there(
    trained: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(CheckpointError, match=r"`step` 5: .* steps 4, 8"):
        evaluate_run(trained, step=5)
    with pytest.raises(UserError, match=r"`rows` 0: give a number of rows from 1 on, or `all`"):
        evaluate_run(trained, rows=0)
    with pytest.raises(UserError, match=r"`passages` -1"):
        evaluate_run(trained, passages=-1)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match=r"`device` cuda: PyTorch sees no GPU"):
        evaluate_run(trained, device="cuda")


def test_a_run_without_a_checkpoint(copied: RunDir) -> None:
    shutil.rmtree(copied.checkpoints)
    with pytest.raises(CheckpointError, match="no complete checkpoint; train until one is saved"):
        evaluate_run(copied)


def test_shards_that_cannot_be_read(trained: RunDir, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere: no manifest.json there; .* `shards`"):
        evaluate_run(trained, shards=tmp_path / "nowhere")


def held_out_batches(config: configuration.Config, manifest: Manifest) -> Iterator[MicroBatch]:
    """What the trainer validates on, on one rank."""
    row_format = RowFormat.of(config)
    rows = validation_rows(RunData.alone(manifest), row_format, config.validation.rows)
    assert rows is not None
    return deal(rows, row_format, SPECIAL_TOKENS, 0, 1)


def rebuilt(manifest: Manifest, folder: Path, **facts: Any) -> Path:
    """A copy of the shards whose manifest says something else, and agrees with itself."""
    shutil.copytree(manifest.path, folder)
    as_version_1(folder)
    content = json.loads((folder / "manifest.json").read_text()) | facts
    names = [
        [(shard["tar"]["name"], shard["tar"]["sha256"]) for shard in content[split]["shards"]]
        for split in SPLITS
    ]
    told = [FORMAT, 1, content["tokenizer_fingerprint"], names]
    content["fingerprint"] = hashlib.sha256(json.dumps(told).encode()).hexdigest()
    (folder / "manifest.json").write_text(json.dumps(content))
    return folder


def test_other_shards_must_be_of_the_same_tokenizer_and_hold_something_out(
    trained: RunDir, tmp_path: Path
) -> None:
    manifest = networks_of(trained)[2]
    foreign = rebuilt(manifest, tmp_path / "foreign", tokenizer_fingerprint="0" * 64)
    with pytest.raises(
        DataError, match=r"another tokenizer \(fingerprint 000000000000\) than .*tokenizer.json"
    ):
        evaluate_run(trained, shards=foreign)
    empty = {"shards": [], "blocks": 0, "documents": 0, "tokens": 0}
    bare = rebuilt(manifest, tmp_path / "bare", validation=empty)
    with pytest.raises(DataError, match=r"no held-out split; build shards with a validation"):
        evaluate_run(trained, shards=bare)
    train = json.loads((bare / "manifest.json").read_text())["train"]
    train["shards"][0]["tar"]["sha256"] = "1" * 64
    other = rebuilt(manifest, tmp_path / "other", train=train)
    found = evaluate_run(trained, shards=other, rows=4)
    assert (found.own_shards, found.shards) == (False, str(other))


def test_a_damaged_shard_is_named(trained: RunDir, tmp_path: Path) -> None:
    damaged = rebuilt(networks_of(trained)[2], tmp_path / "damaged")
    (damaged / "validation-00000.tar").unlink()
    with pytest.raises(DataError, match=r"validation-00000.tar"):
        evaluate_run(trained, shards=damaged)


@pytest.mark.parametrize("name", ["run.json", "tokenizer/tokenizer.json"])
def test_an_incomplete_run_directory_is_refused_by_file(copied: RunDir, name: str) -> None:
    (copied.path / name).unlink()
    with pytest.raises(UserError, match=name):
        evaluate_run(copied, rows=4)


def test_a_picture_that_cannot_be_written_is_refused_before_the_work(
    trained: RunDir, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["evaluate", str(trained.path), "--plot", str(tmp_path / "no/where.png")]) == 2
    assert f"there is no folder {tmp_path / 'no'}" in capsys.readouterr().err
    assert cli.main(["evaluate", str(trained.path), "--step", "5"]) == 2
    # and no empty progress bar before it
    assert capsys.readouterr().err.startswith("error: --step 5")
    assert cli.main(["evaluate", str(trained.path), "--plot", str(tmp_path)]) == 2
    assert "is a folder" in capsys.readouterr().err


def test_rows_that_are_no_number_are_refused(
    trained: RunDir, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        cli.main(["evaluate", str(trained.path), "--rows", "many"])
    assert "'many' is neither a number of rows nor `all`" in capsys.readouterr().err
