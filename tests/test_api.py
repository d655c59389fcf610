"""The library: each function does what its command does, in this process, and prints nothing."""

from __future__ import annotations

import ast
import doctest
import inspect
import io
import itertools
import json
import subprocess
import sys
import tarfile
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tokenizers
import torch
from torch import nn

import electra_dist
from electra_dist import api
from electra_dist import config as configuration
from electra_dist.api import TrainedRun
from electra_dist.batch import SPECIAL_TOKENS, SpecialTokens, Step
from electra_dist.cli import main as cli
from electra_dist.config import Config
from electra_dist.data.loading.loader import TrainLoader
from electra_dist.data.shards.manifest import SPLITS
from electra_dist.data.sources import open_data
from electra_dist.data.step_plan import RowFormat, StepPlan
from electra_dist.data.validation import deal, validation_rows
from electra_dist.errors import CheckpointError, ConfigError, DataError, UserError
from tests.support.toy_task import questions, random_model, sentences, write_table

FUNCTIONS = {name: getattr(api, name) for name in api.__all__ if name[0].islower()}


def tree(shards: Path, folder: Path, name: str = "one") -> dict[str, Any]:
    """A very small run of 4 steps in fp32, validated at steps 0, 2 and 4."""
    network = {"layers": 1, "hidden_size": 32, "heads": 1, "ffn_size": 64}
    return {
        "run": {"dir": str(folder), "name": name},
        "data": {"shards": str(shards), "row_length": 64, "streams": 4},
        "model": {
            "preset": "tiny",
            "embedding_size": 32,
            "max_positions": 64,
            "initializer_range": 0.2,
            "generator": network,
            "discriminator": network,
        },
        "train": {"steps": 4, "global_rows": 8, "micro_rows": 4, "device": "cpu"},
        "optim": {"lr": 5e-3, "warmup_steps": 1},
        "zero": {"stage": 3},
        "precision": {"mode": "fp32"},
        "checkpoint": {"every": 2},
        "validation": {"every": 2, "rows": 8},
        "tracking": {"every": 1, "wandb": "disabled"},
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the runs of this file are."""
    return tmp_path_factory.mktemp("api")


@pytest.fixture(scope="module")
def config(tiny_shards: Path, folder: Path) -> Config:
    """The configuration of the run `one`."""
    return electra_dist.load_config(tree(tiny_shards, folder))


@pytest.fixture(scope="module")
def trained(config: Config) -> TrainedRun:
    """The run `one`, trained in this process."""
    return electra_dist.train_run(config)


@pytest.fixture(scope="module")
def exported(trained: TrainedRun, folder: Path) -> Path:
    """generator/ and discriminator/ of the run, for transformers."""
    electra_dist.export_run(trained.path, folder / "exported/generator", "generator")
    electra_dist.export_run(str(trained.path), str(folder / "exported/discriminator"))
    return folder / "exported"


# --- the package ----------------------------------------------------------------------------------


def test_the_package_offers_the_library_and_nothing_else() -> None:
    assert set(electra_dist.__all__) == {*api.__all__, "__version__"}
    assert {*electra_dist.__all__} <= {*dir(electra_dist)}
    for name in api.__all__:
        assert getattr(electra_dist, name) is getattr(api, name)
    with pytest.raises(AttributeError, match="has no attribute 'nonsense'"):
        electra_dist.nonsense  # type: ignore[attr-defined]  # noqa: B018


def test_no_name_of_the_library_is_one_of_a_room() -> None:
    """The import of a room would put the room in its place."""
    rooms = {path.stem for path in Path(electra_dist.__file__).parent.iterdir()}
    assert not rooms & {*api.__all__}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_says_what_it_takes_gives_and_raises(name: str) -> None:
    function = FUNCTIONS[name]
    text = inspect.getdoc(function) or ""
    signature = inspect.signature(function)
    assert all(p.annotation is not p.empty for p in signature.parameters.values())
    assert signature.return_annotation is not signature.empty
    for section in ("Args:", "Returns:", "Examples:"):
        assert section in text
    described = text.partition("Args:")[2].partition("Returns:")[0]
    for parameter in signature.parameters:
        assert f"    {parameter}: " in described, f"{name}: {parameter} is not described"
    examples = doctest.DocTestParser().get_examples(text)
    assert any(f"electra_dist.{name}(" in example.source for example in examples)
    ast.parse("".join(example.source for example in examples))


# --- configuration --------------------------------------------------------------------------------


def test_a_configuration_comes_from_a_file_a_recipe_or_a_dictionary(
    repo_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = repo_root / "configs/quickstart.yaml"
    by_command = configuration.load(path, ["optim.lr=0.002", "run.name=mine"])
    overrides = {"optim.lr": 2e-3, "run.name": "mine"}
    assert electra_dist.load_config(path, overrides) == by_command
    assert electra_dist.load_config(str(path), ["optim.lr=0.002", "run.name=mine"]) == by_command
    assert electra_dist.load_config("quickstart", overrides) == by_command
    content = configuration.read_yaml(path)
    assert electra_dist.load_config(content, overrides) == by_command
    assert electra_dist.load_config(by_command.model_dump(mode="json")) == by_command


def test_values_of_overrides_may_be_paths_lists_and_none(tmp_path: Path) -> None:
    overrides = {"data.shards": tmp_path, "data.streams": None, "data.skip_steps": [[2, 3]]}
    config = electra_dist.load_config("quickstart", overrides)
    assert str(config.data.shards) == str(tmp_path)
    assert config.data.streams == 16
    assert len(config.data.skip_steps) == 1


@pytest.mark.parametrize(
    ("source", "overrides", "message"),
    [
        ("quikstart", (), "`source` 'quikstart': neither a file nor a recipe; .*quickstart"),
        ("nowhere.yaml", (), "nowhere.yaml: no such configuration file"),
        ("quickstart", "optim.lr=1", "`overrides` 'optim.lr=1': expected a list"),
        ("quickstart", {"optim.lrr": 1}, "unknown key optim.lrr .*did you mean 'lr'"),
        ("quickstart", {"optim.lr": object()}, "`overrides`: "),
        ({"run": {"name": object()}}, (), "`source`: holds what a YAML file cannot hold"),
    ],
)
def test_a_wrong_configuration_is_a_configuration_error(
    source: Any, overrides: Any, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        electra_dist.load_config(source, overrides)


# --- shards ---------------------------------------------------------------------------------------


def documents_of(shards: Path, split: str) -> list[list[int]]:
    """The ids of every document, read with nothing but tarfile and numpy."""
    found = []
    for path in sorted(shards.glob(f"{split}-*.tar")):
        members: dict[str, dict[str, Any]] = {}
        with tarfile.open(path) as file:
            for member in file:
                block, _, name = member.name.partition(".")
                content = file.extractfile(member)
                assert content is not None
                members.setdefault(block, {})[name] = np.load(io.BytesIO(content.read()))
        for block in sorted(members):
            ends = np.cumsum(members[block]["lengths.npy"])[:-1]
            found += [part.tolist() for part in np.split(members[block]["tokens.npy"], ends)]
    return found


@pytest.mark.parametrize("split", SPLITS)
def test_shards_give_their_documents_as_tokens_and_text(tiny_shards: Path, split: Any) -> None:
    shards = electra_dist.open_shards(str(tiny_shards), check="checksums")
    expected = documents_of(tiny_shards, split)
    documents = list(shards.documents(split))
    assert [document.tokens.tolist() for document in documents] == expected
    plain = tokenizers.Tokenizer.from_file(str(tiny_shards / "tokenizer/tokenizer.json"))
    assert documents[0].text == plain.decode(expected[0], skip_special_tokens=False)
    counts = shards.splits[split]
    assert (counts.name, counts.documents) == (split, len(expected))
    assert counts.tokens == sum(map(len, expected))
    assert counts.shards == len(list(tiny_shards.glob(f"{split}-*.tar")))


def test_shards_name_themselves(tiny_shards: Path) -> None:
    shards = electra_dist.open_shards(tiny_shards)
    assert (shards.path, shards.vocab_size) == (tiny_shards, 512)
    assert shards.special_tokens == SpecialTokens(pad=0, unk=1, cls=2, sep=3, mask=4)
    assert (
        shards.fingerprint == json.loads((tiny_shards / "manifest.json").read_text())["fingerprint"]
    )
    assert 0 < shards.unigram_entropy < np.log(512)


def test_shards_that_are_not_there_are_a_data_error(tiny_shards: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no manifest\.json there"):
        electra_dist.open_shards(tmp_path)
    with pytest.raises(DataError, match="`split` 'test': expected one of train, validation"):
        electra_dist.open_shards(tiny_shards, check=None).documents("test")  # type: ignore[arg-type]


# --- steps ----------------------------------------------------------------------------------------


def assert_equal(one: Step, other: Step) -> None:
    assert (one.index, one.epoch, one.masked_count) == (
        other.index,
        other.epoch,
        other.masked_count,
    )
    for mine, theirs in zip(one.micro_batches, other.micro_batches, strict=True):
        for name, array in vars(mine).items():
            np.testing.assert_array_equal(array, getattr(theirs, name), err_msg=name)


@pytest.mark.parametrize(("rank", "world_size"), [(0, 1), (1, 2)])
def test_steps_are_those_that_training_takes(config: Config, rank: int, world_size: int) -> None:
    plan = StepPlan.of(config, rank, world_size)
    with TrainLoader(plan, open_data(config)) as loader:
        expected = list(loader)
    found = list(electra_dist.stream_steps(config, rank, world_size))
    assert len(found) == len(expected) == config.train.steps
    for one, other in zip(found, expected, strict=True):
        assert_equal(one, other)


def test_ranks_share_out_the_rows_of_a_step(config: Config) -> None:
    def rows(steps: list[Step]) -> list[Any]:
        return sorted(
            row.tolist()
            for step in steps
            for batch in step.micro_batches
            for row in np.concatenate([batch.tokens, batch.inputs], axis=1)
        )

    alone = next(electra_dist.stream_steps(config))
    shared = [next(electra_dist.stream_steps(config, rank, 2)) for rank in range(2)]
    assert rows(shared) == rows([alone])


def test_steps_may_start_later(config: Config) -> None:
    later = next(electra_dist.stream_steps(config, start=2))
    assert_equal(later, next(itertools.islice(electra_dist.stream_steps(config), 2, None)))
    assert later.index == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rank": 2, "world_size": 2}, "`rank` 2"),
        ({"rank": 0, "world_size": 1000}, "possible world sizes: 1 to"),
        ({"start": -1}, "`start` -1"),
    ],
)
def test_ranks_that_cannot_be_are_refused_at_once(
    config: Config, arguments: dict[str, int], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        electra_dist.stream_steps(config, **arguments)


# --- training -------------------------------------------------------------------------------------


def losses(rows: list[dict[str, Any]]) -> list[tuple[int, Any]]:
    """(step, losses) of every row, without what depends on the clock."""
    return [(row["step"], {k: v for k, v in row.items() if "loss/" in k}) for row in rows]


def test_a_run_is_trained_quietly_and_another_one_after_it(
    config: Config, trained: TrainedRun, capfd: pytest.CaptureFixture[str]
) -> None:
    assert (trained.path, trained.finished, trained.step) == (config.run.path, True, 4)
    other = electra_dist.load_config(config.model_dump(mode="json"), {"run.name": "two"})
    second = electra_dist.train_run(other)
    assert second.path != trained.path
    assert second.finished
    assert capfd.readouterr().out == ""
    rows = electra_dist.read_metrics(trained.path)
    assert losses(electra_dist.read_metrics(str(second.path))) == losses(rows)
    assert [row["step"] for row in rows if "loss/generator" in row] == [1, 2, 3, 4]
    log = (second.path / "logs/rank-0.log").read_text()
    assert "finished at step 4" in log


def test_a_run_of_another_stage_follows_one_that_failed(
    config: Config, trained: TrainedRun, capfd: pytest.CaptureFixture[str]
) -> None:
    changed = electra_dist.load_config(config.model_dump(mode="json"), {"train.seed": 7})
    with pytest.raises(ConfigError, match="holds a run of another configuration"):
        electra_dist.train_run(changed)
    overrides = {"run.name": "three", "zero.stage": 0, "train.steps": 2}
    third = electra_dist.load_config(config.model_dump(mode="json"), overrides)
    assert electra_dist.train_run(third, verbose=True).step == 2
    assert "finished at step 2" in capfd.readouterr().out


def test_a_run_follows_one_that_crashed_in_the_middle(
    config: Config, trained: TrainedRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    from electra_dist.train import trainer

    def crash(*_: Any) -> None:
        raise RuntimeError("a bug in the step")

    overrides = {"run.name": "four", "train.steps": 2}
    fourth = electra_dist.load_config(config.model_dump(mode="json"), overrides)
    with monkeypatch.context() as patched:
        patched.setattr(trainer, "train_step", crash)
        with pytest.raises(RuntimeError, match="a bug in the step"):
            electra_dist.train_run(fourth)
    assert electra_dist.train_run(fourth).finished


def test_a_run_goes_on_and_branches(config: Config, trained: TrainedRun) -> None:
    base = electra_dist.load_config(config.model_dump(mode="json"), {"run.name": "five"})
    electra_dist.train_run(base)
    longer = electra_dist.load_config(base.model_dump(mode="json"), {"train.steps": 6})
    with pytest.raises(ConfigError, match="add `from_here`"):
        electra_dist.train_run(longer)
    assert electra_dist.train_run(longer, from_here=True).step == 6
    branched = electra_dist.train_run(longer, branch="six", from_step=2)
    assert (branched.path.name, branched.step) == ("six", 6)
    with pytest.raises(ConfigError, match="`branch` five: is the run itself"):
        electra_dist.train_run(longer, branch="five")
    with pytest.raises(ConfigError, match="`again`: goes with `from_step`"):
        electra_dist.train_run(longer, again=True)
    with pytest.raises(CheckpointError, match=r"`from_step` 3: .* no checkpoint of this step"):
        electra_dist.train_run(longer, from_step=3)


def test_the_command_line_makes_options_of_the_arguments(
    config: Config, trained: TrainedRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(configuration.resolved_yaml(config))
    assert cli.main(["train", str(path), "--from-step", "3"]) == 2
    assert capsys.readouterr().err.startswith("error: --from-step 3: ")
    assert cli.main(["export", str(trained.path), "--out", str(path)]) == 2
    assert capsys.readouterr().err == f"error: --out {path}: is a file; give a folder\n"


def test_training_needs_the_main_thread(config: Config) -> None:
    raised: list[BaseException] = []

    def train() -> None:
        try:
            electra_dist.train_run(config)
        except UserError as error:
            raised.append(error)

    thread = threading.Thread(target=train)
    thread.start()
    thread.join()
    assert "main thread" in str(raised[0])


SCRIPT = """
import gc

import electra_dist

for name in ("a", "b"):
    config = electra_dist.load_config({tree!r}, {{"run.name": name, "train.steps": 2}})
    assert electra_dist.train_run(config).finished
    gc.collect()
    kinds = {{f"{{type(thing).__module__}}.{{type(thing).__name__}}" for thing in gc.get_objects()}}
    assert "torch.nn.modules.linear.Linear" not in kinds
    assert "deepspeed.runtime.engine.DeepSpeedEngine" not in kinds
networks = electra_dist.load_networks(config.run.path)
assert networks.step == 2
"""


def test_a_script_trains_twice_and_ends_well(tiny_shards: Path, tmp_path: Path) -> None:
    """No guard of `__main__`, no folder of ours: what a user writes first."""
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(tree=tree(tiny_shards, tmp_path / "runs")))
    done = subprocess.run(
        [sys.executable, str(script)], cwd=tmp_path, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""


# --- networks -------------------------------------------------------------------------------------


def held_out_losses(networks: electra_dist.Networks) -> tuple[float, float]:
    """Mean losses of the generator and the discriminator over the validation rows."""
    row_format = RowFormat.of(networks.config)
    count = networks.config.validation.rows
    rows = validation_rows(open_data(networks.config), row_format, count)
    assert rows is not None
    sums = np.zeros(4)
    for batch in deal(rows, row_format, SPECIAL_TOKENS, 0, 1):
        seen = electra_dist.judge(networks, batch).observed
        nats = np.logaddexp(0, seen.logits.astype(np.float64)) - seen.logits * seen.replaced
        sums += (seen.nll.sum(), len(seen.nll), nats.sum(), len(nats))
    return sums[0] / sums[1], sums[2] / sums[3]


@pytest.mark.parametrize("step", [0, 2, 4])
def test_networks_have_the_losses_that_training_logged(
    config: Config, trained: TrainedRun, step: int
) -> None:
    if step == 0:
        networks = electra_dist.build_networks(config)
    else:
        networks = electra_dist.load_networks(str(trained.path), step)
    assert networks.step == step
    rows = {row["step"]: row for row in electra_dist.read_metrics(trained.path)}
    logged = [rows[step][f"validation/loss/{name}"] for name in ("generator", "discriminator")]
    np.testing.assert_allclose(held_out_losses(networks), logged, rtol=1e-5)


def test_networks_are_plain_modules_of_the_newest_checkpoint(trained: TrainedRun) -> None:
    networks = electra_dist.load_networks(trained.path)
    assert networks.step == 4
    for network in (networks.generator, networks.discriminator):
        assert isinstance(network, nn.Module)
        assert not network.training
        assert {parameter.dtype for parameter in network.parameters()} == {torch.float32}


def test_networks_that_are_not_there_are_refused(
    config: Config, trained: TrainedRun, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="not a run directory"):
        electra_dist.load_networks(tmp_path)
    with pytest.raises(CheckpointError, match=r"`step` 3: .* steps 2, 4"):
        electra_dist.load_networks(trained.path, step=3)
    with pytest.raises(UserError, match="`device` cuda"):
        electra_dist.build_networks(config, device="cuda")
    elsewhere = electra_dist.load_config(config.model_dump(mode="json"), {"data.shards": tmp_path})
    with pytest.raises(DataError, match=r"no manifest\.json there"):
        electra_dist.build_networks(elsewhere)


# --- evaluation, export, tasks --------------------------------------------------------------------


def test_an_evaluation_has_the_losses_that_training_logged(
    trained: TrainedRun, capfd: pytest.CaptureFixture[str]
) -> None:
    stages: list[tuple[str, int, int]] = []
    evaluation = electra_dist.evaluate_run(
        str(trained.path), passages=2, progress=lambda *at: stages.append(at)
    )
    last = electra_dist.read_metrics(trained.path)[-1]
    assert evaluation.step == 4
    assert evaluation.generator.loss == pytest.approx(last["validation/loss/generator"], rel=1e-5)
    assert len(evaluation.passages) == 2
    assert stages[-1] == ("held-out rows", 8, 8)
    assert capfd.readouterr().out == ""
    with pytest.raises(UserError, match="`rows` 0"):
        electra_dist.evaluate_run(trained.path, rows=0)


def test_an_export_is_a_model_of_transformers(
    exported: Path, trained: TrainedRun, folder: Path
) -> None:
    import transformers

    networks = electra_dist.load_networks(trained.path)
    model = transformers.AutoModelForMaskedLM.from_pretrained(exported / "generator")
    words = model.get_input_embeddings().weight
    torch.testing.assert_close(words, networks.generator.embeddings.word.weight)
    with pytest.raises(UserError, match=r"`out` .*: holds the generator"):
        electra_dist.export_run(trained.path, exported / "generator")
    with pytest.raises(UserError, match="`network` 'both'"):
        electra_dist.export_run(trained.path, folder / "x", "both")  # type: ignore[arg-type]


def test_both_networks_predict(exported: Path, capfd: pytest.CaptureFixture[str]) -> None:
    text = "The value of the [MASK] is a number."
    filled = electra_dist.predict(exported / "generator", [text], count=3, device="cpu")
    assert filled.kind == "generator"
    assert [len(mask) for mask in filled.items[0]["masks"]] == [3]
    judged = electra_dist.predict(str(exported / "discriminator"), ["one text", "another"])
    assert judged.kind == "discriminator"
    assert [item["text"] for item in judged.items] == ["one text", "another"]
    assert all(0 <= token["replaced"] <= 1 for token in judged.items[0]["tokens"])
    assert judged.scores == {}
    assert capfd.readouterr().out == ""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "`texts` or `file`: give one of them"),
        ({"texts": ["a"], "file": "b.txt"}, "`texts` or `file`: give one of them"),
        ({"texts": "a text"}, "expected lists of texts"),
        ({"texts": []}, "`texts`: expected one or more"),
        ({"texts": ["a"], "pairs": ["b", "c"]}, "`pairs`: 2 of them for 1 texts"),
        ({"texts": ["a"], "count": 0}, "`count` 0"),
        ({"texts": ["a"]}, "not the folder of a model"),
    ],
)
def test_what_cannot_be_predicted_is_refused(
    arguments: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=message):
        electra_dist.predict(tmp_path, **arguments)


def test_a_model_learns_a_task_quietly_and_predicts(
    tiny_shards: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    encoder = random_model(
        tmp_path / "encoder", "ElectraForPreTraining", tiny_shards.parent / "tokenizer"
    )
    train = write_table(tmp_path / "train.tsv", sentences(48, seed=1))
    dev = write_table(tmp_path / "dev.tsv", sentences(16, seed=2))
    out = tmp_path / "tuned"
    capfd.readouterr()
    report = electra_dist.finetune_model(
        encoder, train, str(out), dev=dev, epochs=1, lr=1e-3, seeds=[3], device="cpu"
    )
    assert (report.recipe.epochs, report.recipe.lr, report.kept) == (1, 1e-3, 3)
    assert report.examples == {"to train on": 48, "held out": 16}
    found = electra_dist.predict(out, file=dev, device="cpu")
    assert len(found.items) == 16
    assert found.scores["accuracy"] == pytest.approx(report.median["accuracy"])
    texts = [item["text"] for item in found.items]
    again = electra_dist.predict(out, texts, device="cpu")
    assert [one["predicted"] for one in again.items] == [one["predicted"] for one in found.items]
    assert capfd.readouterr().out == ""
    with pytest.raises(UserError, match=r"`out` .*: exists and is not empty"):
        electra_dist.finetune_model(encoder, train, out)
    with pytest.raises(UserError, match="`layer_decay` 2: expected"):
        electra_dist.finetune_model(encoder, train, tmp_path / "new", layer_decay=2)
    with pytest.raises(UserError, match="`seeds`: expected one or more"):
        electra_dist.finetune_model(encoder, train, tmp_path / "new", seeds=[])


def test_a_model_for_questions_takes_them_from_a_file(tiny_shards: Path, tmp_path: Path) -> None:
    encoder = random_model(
        tmp_path / "encoder", "ElectraForPreTraining", tiny_shards.parent / "tokenizer"
    )
    file = questions(tmp_path / "questions.jsonl", 8, seed=1)
    out = tmp_path / "tuned"
    task: Any = "question-answering"
    electra_dist.finetune_model(encoder, file, out, task=task, epochs=1, device="cpu")
    found = electra_dist.predict(out, file=file, device="cpu")
    assert [set(item) >= {"question", "answer"} for item in found.items] == [True] * 8
    with pytest.raises(UserError, match=r"`texts` 1.*`context` is None"):
        electra_dist.predict(out, ["Who?"])
    contexts = ["It was Anna who did it."]
    answered = electra_dist.predict(out, ["Who?"], pairs=contexts, device="cpu").items[0]
    assert answered["answer"] in contexts[0]
