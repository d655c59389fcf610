"""Fine-tuning from files to a folder that transformers and `predict` use,
and nothing left where it fails.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

import electra_dist
from electra_dist.cli import main as cli
from electra_dist.errors import UserError
from electra_dist.finetune.run import Settings, finetune
from tests.support.toy_task import sentences, write_table

#: A random encoder needs more than the published numbers.
FAST = {"lr": 3e-3, "epochs": 4, "layer_decay": 1.0, "batch": 16, "max_length": 48}
OPTIONS = [
    word for name, value in FAST.items() for word in (f"--{name.replace('_', '-')}", f"{value:g}")
]


@pytest.fixture(scope="module")
def finetuned(encoder: Path, labelled: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("finetuned") / "kind"
    files = [
        "--train",
        str(labelled / "train.tsv"),
        "--dev",
        str(labelled / "dev.tsv"),
        "--device",
        "cpu",
    ]
    assert cli.main(["finetune", str(encoder), *files, "--out", str(out), *OPTIONS]) == 0
    return out


def marker(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "electra_dist.json").read_text())
    return content


def test_it_learns_the_task_and_writes_what_transformers_loads(
    finetuned: Path, labelled: Path
) -> None:
    scores = marker(finetuned)["scores"]
    assert scores["median"]["accuracy"] > 0.9
    assert scores["simple"]["accuracy"] < 0.65
    assert len(scores["epochs"]["1"]) == 4
    model = transformers.AutoModelForSequenceClassification.from_pretrained(finetuned).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(finetuned)
    rows = [line.split("\t") for line in (labelled / "dev.tsv").read_text().splitlines()[1:]]
    with torch.no_grad():
        logits = model(
            **tokenizer([text for text, _ in rows], padding=True, return_tensors="pt")
        ).logits
    predicted = [model.config.id2label[index] for index in logits.argmax(dim=1).tolist()]
    right = sum(one == label for one, (_, label) in zip(predicted, rows, strict=True))
    assert right / len(rows) == pytest.approx(scores["median"]["accuracy"])
    assert "no model" in (finetuned / "README.md").read_text()


def test_the_encoder_itself_is_trained_and_nothing_else_is_left(
    finetuned: Path, encoder: Path
) -> None:
    from safetensors.torch import load_file

    before, after = (
        load_file(encoder / "model.safetensors"),
        load_file(finetuned / "model.safetensors"),
    )
    shared = [name for name in after if name in before]
    assert len(shared) > 20
    assert all(
        not torch.equal(before[name], after[name])
        for name in shared
        if name.endswith("query.weight")
    )
    assert sorted(path.name for path in finetuned.parent.iterdir()) == [finetuned.name]


def test_predict_agrees_with_the_scores_of_the_training(
    finetuned: Path, labelled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert (
        cli.main(["predict", str(finetuned), "--input", str(labelled / "dev.tsv"), "--json"]) == 0
    )
    printed = capsys.readouterr()
    found = [json.loads(line) for line in printed.out.splitlines()]
    assert len(found) == 100
    assert all(sum(one["probabilities"].values()) == pytest.approx(1, abs=1e-5) for one in found)
    assert all(
        max(one["probabilities"], key=one["probabilities"].get) == one["predicted"] for one in found
    )
    accuracy = marker(finetuned)["scores"]["median"]["accuracy"]
    assert f"accuracy {accuracy:.4f}" in printed.err
    out = tmp_path / "predicted.tsv"
    (tmp_path / "plain.txt").write_text(
        "the film is a mess and this class is long\n", encoding="utf-8"
    )
    assert (
        cli.main(
            ["predict", str(finetuned), "--input", str(tmp_path / "plain.txt"), "--out", str(out)]
        )
        == 0
    )
    header, row = (line.split("\t") for line in out.read_text(encoding="utf-8").splitlines())
    assert header == ["predicted", "probability", "text"]
    assert (row[0], row[2]) == ("neg", "the film is a mess and this class is long")


def test_the_same_seed_gives_the_same_model_and_another_one_does_not(
    encoder: Path, labelled: Path, tmp_path: Path
) -> None:
    recipe = {**FAST, "epochs": 0.2}
    states = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        settings = Settings(
            encoder,
            labelled / "train.tsv",
            tmp_path / name,
            recipe=recipe,
            seeds=(seed,),
            device="cpu",
        )
        assert finetune(settings).median == {}
        states.append((tmp_path / name / "model.safetensors").read_bytes())
    assert states[0] == states[1]
    assert states[0] != states[2]


def test_the_best_of_several_seeds_is_kept_and_the_median_reported(
    encoder: Path, labelled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [
        "--train",
        str(labelled / "train.tsv"),
        "--dev",
        str(labelled / "dev.tsv"),
        "--out",
        str(tmp_path / "out"),
    ]
    words = [
        "finetune",
        str(encoder),
        *files,
        *OPTIONS,
        "--epochs",
        "1",
        "--seeds",
        "3",
        "--device",
        "cpu",
        "--json",
    ]
    assert cli.main(words) == 0
    report = json.loads(capsys.readouterr().out)
    accuracies = {seed: scores["accuracy"] for seed, scores in report["seeds"].items()}
    assert list(accuracies) == ["1", "2", "3"]
    assert report["median"]["accuracy"] == sorted(accuracies.values())[1]
    assert accuracies[str(report["kept"])] == max(accuracies.values())


def test_regression_of_pairs(
    encoder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def rows(seed: int, count: int) -> str:
        parts = sentences(2 * count, seed)
        lines = [
            json.dumps({"one": a, "two": b, "score": 2.5 * ((la == "pos") + (lb == "pos"))})
            for (a, la), (b, lb) in zip(parts[::2], parts[1::2], strict=True)
        ]
        return "\n".join(lines)

    (tmp_path / "train.jsonl").write_text(rows(3, 500))
    (tmp_path / "dev.jsonl").write_text(rows(4, 100))
    files = ["--train", str(tmp_path / "train.jsonl"), "--dev", str(tmp_path / "dev.jsonl")]
    named = [
        "--task",
        "regression",
        "--text",
        "one",
        "--pair",
        "two",
        "--label",
        "score",
        "--device",
        "cpu",
    ]
    assert (
        cli.main(
            ["finetune", str(encoder), *files, *named, "--out", str(tmp_path / "out"), *OPTIONS]
        )
        == 0
    )
    assert marker(tmp_path / "out")["scores"]["median"]["spearman"] > 0.7
    out = tmp_path / "predicted.tsv"
    assert cli.main(["predict", str(tmp_path / "out"), "--input", files[3], "--out", str(out)]) == 0
    first = out.read_text().splitlines()[1].split("\t")
    assert -3 < float(first[0]) < 8
    assert " | " in first[1]
    (tmp_path / "single.txt").write_text("one text\n")
    assert (
        cli.main(["predict", str(tmp_path / "out"), "--input", str(tmp_path / "single.txt")]) == 2
    )
    assert "the columns one and two" in capsys.readouterr().err


def test_what_nobody_has_labelled_is_predicted_and_left_out_of_the_scores(
    finetuned: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "half.tsv"
    file.write_text("text\tlabel\na mess\tneg\na mess\t-1\na mess\t\n", encoding="utf-8")
    assert cli.main(["predict", str(finetuned), "--input", str(file)]) == 0
    printed = capsys.readouterr()
    assert len(printed.out.splitlines()) == 4
    assert "2 of 3 examples have no label; the scores are of the others" in printed.err
    assert "accuracy" in printed.err
    file.write_text("text\tlabel\na mess\t-1\n", encoding="utf-8")
    assert cli.main(["predict", str(finetuned), "--input", str(file)]) == 0
    assert not capsys.readouterr().err


def test_each_line_has_an_answer_the_blank_ones_too(
    finetuned: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "lines.txt"
    file.write_text("a mess\n\nthis class\n \nlong", encoding="utf-8")
    assert cli.main(["predict", str(finetuned), "--input", str(file), "--json"]) == 0
    found = [json.loads(line)["text"] for line in capsys.readouterr().out.splitlines()]
    assert found == ["a mess", "", "this class", " ", "long"]


# --- heads, classes and what is written -----------------------------------------------------------


def test_a_fine_tuned_model_gets_a_new_head_unless_it_is_to_be_kept(
    finetuned: Path, labelled: Path, tmp_path: Path
) -> None:
    from safetensors.torch import load_file

    def head_after(out: str, **settings: Any) -> torch.Tensor:
        """Of a training so short that the head hardly moves."""
        recipe = {**FAST, "lr": 1e-9, "epochs": 0.05}
        files = (finetuned, labelled / "train.tsv", tmp_path / out)
        finetune(Settings(*files, recipe=recipe, device="cpu", **settings))
        return load_file(tmp_path / out / "model.safetensors")["classifier.out_proj.weight"]

    old = load_file(finetuned / "model.safetensors")["classifier.out_proj.weight"]
    assert torch.allclose(head_after("kept", keep_head=True), old, atol=1e-5)
    new = head_after("new")
    assert not torch.allclose(new, old, atol=1e-2)
    assert new.std() == pytest.approx(0.02, rel=0.5)
    assert not torch.allclose(head_after("other", seeds=(2,)), new, atol=1e-3)


def test_another_number_of_classes_needs_a_new_head(finetuned: Path, tmp_path: Path) -> None:
    three = [(f"text {index}", "abc"[index % 3]) for index in range(12)]
    train = write_table(tmp_path / "three.tsv", three)
    recipe = {**FAST, "epochs": 1}
    settings = Settings(finetuned, train, tmp_path / "out", recipe=recipe, device="cpu")
    with pytest.raises(UserError, match=r"`keep_head`: .*'neg', 'pos', but .*'a', 'b', 'c'"):
        finetune(dataclasses.replace(settings, keep_head=True))
    with pytest.raises(UserError, match=r"`keep_head`: .* classification, .* for regression"):
        finetune(dataclasses.replace(settings, keep_head=True, task="regression"))
    finetune(settings)
    assert marker(tmp_path / "out")["labels"] == ["a", "b", "c"]


def test_a_held_out_file_without_one_class_is_scored_as_the_task_is(
    encoder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [(f"text {index}", "abc"[index % 3]) for index in range(12)]
    train = write_table(tmp_path / "train.tsv", rows)
    dev = write_table(tmp_path / "dev.tsv", [row for row in rows if row[1] != "c"])
    recipe = {**FAST, "epochs": 1}
    settings = Settings(encoder, train, tmp_path / "out", dev, recipe=recipe, device="cpu")
    report = finetune(dataclasses.replace(settings, seeds=(1, 2)))
    assert set(report.median) == {"accuracy", "macro_f1", "matthews"}
    printed = capsys.readouterr()
    assert f"{train}: 3 classes: a (4), b (4), c (4)" in printed.out
    assert f"{dev}: 3 classes: a (4), b (4), c (0)" in printed.out
    assert f"{dev}: has no example of 'c'" in printed.err


def test_scores_that_cannot_be_computed_never_cost_the_model(
    encoder: Path,
    labelled: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken(*arguments: Any) -> dict[str, float]:
        raise KeyError("f1")

    monkeypatch.setattr("electra_dist.finetune.tasks.texts.labels.TextTask.scores", broken)
    files = (labelled / "train.tsv", tmp_path / "out", labelled / "dev.tsv")
    recipe = {**FAST, "epochs": 0.2}
    settings = Settings(encoder, *files, recipe=recipe, seeds=(1, 2), device="cpu")
    assert finetune(settings).median == {}
    assert "the held-out scores cannot be computed ('f1')" in capsys.readouterr().err
    transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "out")


def test_the_tokenizer_is_the_encoders_and_cuts_nothing(finetuned: Path, encoder: Path) -> None:
    names = ("tokenizer.json", "tokenizer_config.json")
    for name in names:
        assert (finetuned / name).read_bytes() == (encoder / name).read_bytes()
    content = json.loads((finetuned / "tokenizer.json").read_text())
    assert content["truncation"] is None
    assert content["padding"] is None


def test_what_an_earlier_version_left_in_a_tokenizer_is_not_handed_on(
    finetuned: Path, labelled: Path, tmp_path: Path
) -> None:
    old = tmp_path / "old"
    shutil.copytree(finetuned, old)
    content = json.loads((old / "tokenizer.json").read_text())
    cut = {"direction": "Right", "max_length": 48, "strategy": "LongestFirst", "stride": 0}
    (old / "tokenizer.json").write_text(json.dumps(content | {"truncation": cut}))
    config = json.loads((old / "tokenizer_config.json").read_text())
    config["tokenizer_class"] = "TokenizersBackend"
    (old / "tokenizer_config.json").write_text(json.dumps(config))
    recipe = {**FAST, "epochs": 0.05}
    finetune(Settings(old, labelled / "train.tsv", tmp_path / "out", recipe=recipe, device="cpu"))
    assert json.loads((tmp_path / "out" / "tokenizer.json").read_text())["truncation"] is None
    written = json.loads((tmp_path / "out" / "tokenizer_config.json").read_text())
    assert written["tokenizer_class"] == "PreTrainedTokenizerFast"


def test_weights_that_are_not_finite_are_refused(finetuned: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    damaged = tmp_path / "damaged"
    shutil.copytree(finetuned, damaged)
    state = load_file(damaged / "model.safetensors")
    state["electra.encoder.layer.1.attention.self.query.weight"][3, 2] = float("nan")
    save_file(state, damaged / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"layer.1.attention.self.query.weight holds numbers"):
        electra_dist.predict(damaged, ["a text"])


# --- mistakes -------------------------------------------------------------------------------------


def test_mistakes_are_said_in_one_line_and_leave_nothing(
    encoder: Path, labelled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train, out = str(labelled / "train.tsv"), tmp_path / "models" / "out"
    other = write_table(tmp_path / "other.tsv", [("a", "pos"), ("b", "perhaps")])
    full = tmp_path / "full"
    full.mkdir()
    (full / "file").touch()
    run = tmp_path / "run"
    (run / "checkpoints").mkdir(parents=True)
    bert = tmp_path / "bert"
    shutil.copytree(encoder, bert)
    (bert / "config.json").write_text('{"model_type": "bert"}')
    generator = tmp_path / "generator"
    shutil.copytree(encoder, generator)
    (generator / "electra_dist.json").write_text('{"network": "generator"}')
    headless = tmp_path / "headless"
    shutil.copytree(encoder, headless)
    (headless / "tokenizer.json").unlink()
    cases: list[tuple[list[str], tuple[str, ...]]] = [
        ([str(tmp_path / "none"), "--train", train], ("not the folder of a model", "config.json")),
        ([str(run), "--train", train], ("is a run", "electra-dist export")),
        ([str(bert), "--train", train], ("'bert'", "'electra'")),
        ([str(generator), "--train", train], ("generator", "discriminator")),
        ([str(headless), "--train", train], ("tokenizer.json",)),
        (
            [str(encoder), "--train", train, "--dev", str(other)],
            ("other.tsv, line 3", "'perhaps'", "'neg'"),
        ),
        ([str(encoder), "--train", train, "--seeds", "2"], ("--seeds 2", "--dev")),
        ([str(encoder), "--train", train, "--seeds", "0"], ("--seeds 0",)),
        (
            [str(encoder), "--train", train, "--max-length", "97"],
            ("--max-length 97", "from 8 to 96"),
        ),
        ([str(encoder), "--train", train, "--warmup", "-0.1"], ("--warmup -0.1", "from 0 to 1")),
        ([str(encoder), "--train", train, "--batch", "0"], ("--batch 0", "from 1")),
        ([str(encoder), "--train", train, "--lr", "0"], ("--lr 0", "above 0")),
        ([str(encoder), "--train", train, "--task", "regression"], ("line 2", "number")),
    ]
    if not torch.cuda.is_available():
        cases.append(
            ([str(encoder), "--train", train, "--device", "cuda"], ("--device cuda", "CPU"))
        )
    for words, expected in cases:
        assert cli.main(["finetune", *words, "--out", str(out)]) == 2, words
        printed = capsys.readouterr().err
        assert all(part in printed for part in expected), (words, printed)
        assert printed.count("\n") == 1, printed
    assert cli.main(["finetune", str(encoder), "--train", train, "--out", str(full)]) == 2
    assert "not empty" in capsys.readouterr().err
    inside = full / "file" / "out"
    assert cli.main(["finetune", str(encoder), "--train", train, "--out", str(inside)]) == 2
    assert "cannot be made" in capsys.readouterr().err
    assert not out.exists()
    assert not list(tmp_path.glob("models/.*"))


def test_a_loss_that_is_not_finite_ends_it_and_leaves_nothing(
    encoder: Path, labelled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forward = transformers.ElectraForSequenceClassification.forward

    @functools.wraps(forward)  # the trainer reads the names of its arguments
    def broken(*arguments: Any, **named: Any) -> Any:
        output = forward(*arguments, **named)
        output.loss = output.loss * float("nan")
        return output

    monkeypatch.setattr(transformers.ElectraForSequenceClassification, "forward", broken)
    recipe = {**FAST, "epochs": 0.2}
    with pytest.raises(UserError, match=r"seed 1: the loss is nan at step 1; take a smaller `lr`"):
        finetune(
            Settings(encoder, labelled / "train.tsv", tmp_path / "out", recipe=recipe, device="cpu")
        )
    assert list(tmp_path.iterdir()) == []


def test_weights_that_are_missing_never_start_at_random(
    encoder: Path, labelled: Path, tmp_path: Path
) -> None:
    from safetensors.torch import load_file, save_file

    damaged = tmp_path / "damaged"
    shutil.copytree(encoder, damaged)
    state = load_file(damaged / "model.safetensors")
    state.pop("electra.encoder.layer.1.attention.self.query.weight")
    save_file(state, damaged / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"no weights for electra\.encoder.layer.1.attention"):
        finetune(Settings(damaged, labelled / "train.tsv", tmp_path / "out", device="cpu"))


def test_predict_says_what_is_wrong(
    finetuned: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import io

    unknown = tmp_path / "unknown.jsonl"
    unknown.write_text('{"text": "a", "label": "pos"}\n{"text": "b", "label": "so-so"}\n')
    assert cli.main(["predict", str(finetuned), "--input", str(unknown)]) == 2
    assert "unknown.jsonl, line 2: label 'so-so'" in capsys.readouterr().err
    plain = tmp_path / "plain.txt"
    plain.write_text("a text\n")
    (tmp_path / "file").touch()
    for out, words in ((tmp_path / "file" / "x.tsv", "cannot be made"), (tmp_path, "is a folder")):
        assert cli.main(["predict", str(finetuned), "--input", str(plain), "--out", str(out)]) == 2
        assert words in capsys.readouterr().err
    damaged = tmp_path / "damaged"
    shutil.copytree(finetuned, damaged)
    for missing in ("max_length", "labels"):
        kept = {name: value for name, value in marker(finetuned).items() if name != missing}
        (damaged / "electra_dist.json").write_text(json.dumps(kept))
        assert cli.main(["predict", str(damaged), "--input", str(plain)]) == 2
        assert f"has no '{missing}'" in capsys.readouterr().err
    monkeypatch.setattr("sys.stdin", io.StringIO("\n"))
    assert cli.main(["predict", str(finetuned)]) == 2
    assert "standard input: holds no text" in capsys.readouterr().err


# --- the benchmark --------------------------------------------------------------------------------


def test_the_benchmark_prints_its_table(
    encoder: Path, labelled: Path, repo_root: Path, tmp_path: Path
) -> None:
    words = [
        "--model",
        str(encoder),
        "--train",
        str(labelled / "train.tsv"),
        "--dev",
        str(labelled / "dev.tsv"),
    ]
    words += [
        "--lr",
        "3e-3",
        "--epochs",
        "1",
        "--seeds",
        "1",
        "--device",
        "cpu",
        "--json",
        str(tmp_path / "out.json"),
    ]
    command = [sys.executable, "benchmarks/finetune.py", *words]
    done = subprocess.run(
        command, cwd=repo_root, capture_output=True, text=True, timeout=200, check=False
    )
    assert done.returncode == 0, done.stderr
    rows = {
        row["what"]: row["median"]
        for row in json.loads((tmp_path / "out.json").read_text())["rows"]
    }
    assert list(rows) == [
        "pre-trained, lr 0.003",
        "untrained, lr 0.003",
        "TF-IDF, logistic regression",
        "most frequent class",
    ]
    assert rows["TF-IDF, logistic regression"] == 1.0  # the label hangs on one word
    assert all(what in done.stdout for what in rows)
