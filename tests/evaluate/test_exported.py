"""An exported pair has the evaluation of its run, and what is no whole pair is refused by name."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import ElectraConfig, ElectraForMaskedLM, ElectraForPreTraining

from electra_dist import config as configuration
from electra_dist.architectures import find_architecture
from electra_dist.batch import SPECIAL_TOKENS
from electra_dist.cli import main as cli
from electra_dist.config import NETWORKS
from electra_dist.data.sources import open_data
from electra_dist.data.step_plan import RowFormat
from electra_dist.data.validation import deal, validation_rows
from electra_dist.errors import ConfigError, DataError, UserError
from electra_dist.evaluate import evaluate_pair, evaluate_run
from electra_dist.evaluate.exported import ExportedPair
from electra_dist.evaluate.heldout import Networks, Observed, judge
from electra_dist.export.run import export_run
from electra_dist.model.discriminator import Discriminator
from electra_dist.model.generator import Generator
from electra_dist.model.inputs import rows_of_documents, to_device
from electra_dist.model.networks import build_networks
from electra_dist.runs.directory import RunDir
from tests.evaluate.conftest import ROWS


@pytest.fixture(scope="module")
def exported(trained: RunDir, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both networks of step 8."""
    folder = tmp_path_factory.mktemp("exported") / "pair"
    for network in NETWORKS:
        export_run(trained, folder / network, network, 8)
    return folder


@pytest.fixture
def pair(exported: Path, tmp_path: Path) -> Path:
    """A copy, to be damaged."""
    shutil.copytree(exported, tmp_path / "pair")
    return tmp_path / "pair"


def changed(file: Path, **values: Any) -> None:
    """Set keys of a JSON object; None takes one away."""
    content = json.loads(file.read_text()) | values
    kept = {key: value for key, value in content.items() if value is not None}
    file.write_text(json.dumps(kept))


def forget(pair: Path, shards: Path) -> None:
    """Make it a pair of another program: without our marker, with the tokenizer of its shards."""
    for network in NETWORKS:
        (pair / network / "electra_dist.json").unlink()
        shutil.copy(shards.parent / "tokenizer/tokenizer.json", pair / network)


# --- the same numbers -----------------------------------------------------------------------------


def test_a_pair_has_the_numbers_of_its_run(
    trained: RunDir, exported: Path, tiny_shards: Path
) -> None:
    """On the same rows, as many as the run's own validations have; the passages too."""
    run = evaluate_run(trained, step=8, passages=2).to_dict()
    pair = evaluate_pair(exported, tiny_shards, passages=2).to_dict()
    assert pair.pop("run") == str(exported)
    assert run.pop("run") == str(trained.path)
    del run["seconds"], pair["seconds"]
    assert pair == run
    assert run["own_shards"]


def test_an_export_keeps_how_its_run_made_rows_and_samples(trained: RunDir, exported: Path) -> None:
    own = configuration.load(trained.config)
    found = ExportedPair.open(exported).config
    assert RowFormat.of(found) == RowFormat.of(own)
    assert found.validation.rows == own.validation.rows == ROWS
    assert found.model.temperature == own.model.temperature


@pytest.mark.parametrize("sharing", ["shared", "disentangled", "none"])
def test_weights_go_to_transformers_and_back(trained: RunDir, sharing: str) -> None:
    """Both networks say the same of every token, whatever shares the embeddings in training."""
    config = configuration.load(trained.config)
    data = open_data(config)
    model = config.model.model_copy(update={"embedding_sharing": sharing})
    untrained = build_networks(
        config.model_copy(update={"model": model}), data.vocab_size, "cpu", seed=1
    )
    ours = Networks(*(network.eval() for network in untrained))
    for parameter in ours.discriminator.parameters():
        torch.nn.init.normal_(parameter, std=0.2)  # deltas would start at zero

    names = find_architecture("electra").names()
    generator, discriminator = (network.state_dict() for network in ours)
    exported = {
        "generator": names.generator_to_huggingface(generator),
        "discriminator": names.discriminator_to_huggingface(discriminator, generator, sharing),
    }
    own = model.model_copy(update={"embedding_sharing": "none"})
    back = Networks(
        Generator(own, data.vocab_size, "sdpa").eval(),
        Discriminator(own, data.vocab_size, "sdpa").eval(),
    )
    for network in NETWORKS:
        state = names.from_huggingface(exported[network], network)
        getattr(back, network).load_state_dict(state)

    rows = validation_rows(data, RowFormat.of(config), 8)
    assert rows is not None
    for batch in deal(rows, RowFormat.of(config), SPECIAL_TOKENS, 0, 1):
        expected = judge(ours, to_device(batch, "cpu")).observed
        found = judge(back, to_device(batch, "cpu")).observed
        assert_close(found, expected)


def assert_close(found: Observed, expected: Observed) -> None:
    """Equal to 1e-5, and exactly where there are whole numbers."""
    for name, values in vars(expected).items():
        got = torch.from_numpy(getattr(found, name))
        torch.testing.assert_close(got, torch.from_numpy(values), rtol=1e-5, atol=1e-5, msg=name)


def test_a_pair_of_another_program_is_evaluated_with_the_defaults(
    pair: Path, tiny_shards: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without our marker, with the alias of the tied matrix and position numbers, and in fp16."""
    forget(pair, tiny_shards)
    for network in NETWORKS:
        file = pair / network / "model.safetensors"
        state = {name: tensor.half() for name, tensor in load_file(file).items()}
        state["electra.embeddings.position_ids"] = torch.arange(64)[None]
        if network == "generator":
            words = state["electra.embeddings.word_embeddings.weight"]
            state["generator_lm_head.weight"] = words.clone()
        save_file(state, file)
    found = evaluate_pair(pair, tiny_shards, rows=5)
    assert "does not say how held-out rows were made and masked" in capsys.readouterr().err
    assert (found.rows, found.step, found.own_shards, found.row_length) == (5, None, False, 64)
    assert ExportedPair.open(pair).config.train.seed == 1234
    assert ExportedPair.open(pair).config.data.mask_fraction == 0.15
    assert cli.main(["evaluate", str(pair), "--shards", str(tiny_shards), "--rows", "5"]) == 0
    assert capsys.readouterr().out.startswith(f"{pair}, fp32 on cpu: 5 held-out rows of 64")


def test_networks_that_transformers_made_compute_the_same_here(pair: Path) -> None:
    """With a generator and a discriminator of other widths than the embedding, and random words."""
    sizes = {"vocab_size": 512, "embedding_size": 32, "max_position_embeddings": 64}
    torch.manual_seed(0)
    generator = ElectraForMaskedLM(
        ElectraConfig(
            hidden_size=16,
            num_attention_heads=1,
            intermediate_size=64,
            num_hidden_layers=2,
            initializer_range=0.3,
            **sizes,
        )
    ).eval()
    discriminator = ElectraForPreTraining(
        ElectraConfig(
            hidden_size=48,
            num_attention_heads=3,
            intermediate_size=96,
            num_hidden_layers=3,
            initializer_range=0.3,
            **sizes,
        )
    ).eval()
    for network, model in (("generator", generator), ("discriminator", discriminator)):
        (pair / network / "electra_dist.json").unlink()
        model.save_pretrained(pair / network)

    networks = ExportedPair.open(pair).load().networks
    draw = np.random.default_rng(2)
    rows = [[draw.integers(5, 512, length).tolist()] for length in (40, 64)]
    batch = to_device(rows_of_documents(rows, 64, SPECIAL_TOKENS.pad), "cpu")
    real = batch.documents >= 0
    with torch.no_grad():
        filled = networks.generator.logits(batch)
        judged = networks.discriminator(None, batch, batch.tokens, torch.zeros(2, 64)).logits
        inputs = {"input_ids": batch.tokens, "attention_mask": real.long()}
        expected_filled = generator(**inputs).logits
        expected_judged = discriminator(**inputs).logits
    torch.testing.assert_close(filled[real], expected_filled[real], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(judged[real], expected_judged[real], rtol=1e-5, atol=1e-5)


# --- the command, and mistakes --------------------------------------------------------------------


def test_the_command_takes_a_pair(
    exported: Path, tiny_shards: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["evaluate", str(exported), "--shards", str(tiny_shards), "--rows", "6"]
    assert cli.main([*words, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["run"], found["step"], found["rows"]) == (str(exported), 8, 6)
    assert cli.main(words) == 0
    assert f"{exported} at step 8, fp32 on cpu: 6 held-out rows" in capsys.readouterr().out


def refusal(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """What the command says, in one line."""
    assert cli.main(["evaluate", *words]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert said.count("\n") == 1
    return said


def test_a_pair_without_shards_or_with_a_step_is_refused(
    exported: Path, tiny_shards: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = refusal(capsys, str(exported))
    assert "which does not have the shards of its run; give --shards" in said
    said = refusal(capsys, str(exported), "--shards", str(tiny_shards), "--step", "8")
    assert f"--step 8: {exported} is an export, which is of one step" in said


@pytest.mark.parametrize("network", NETWORKS)
def test_a_network_alone_is_no_pair(
    pair: Path, network: str, capsys: pytest.CaptureFixture[str]
) -> None:
    said = refusal(capsys, str(pair / network))
    assert f"{pair / network}: is one exported network; an evaluation needs both" in said
    shutil.rmtree(pair / network)
    said = refusal(capsys, str(pair))
    assert f"{pair}: has no folder {network}; an evaluation needs both networks" in said


def test_shards_of_another_tokenizer_are_refused(pair: Path, tiny_shards: Path) -> None:
    for network in NETWORKS:
        changed(pair / network / "tokenizer.json", version="2.0")
    with pytest.raises(DataError, match=r"another tokenizer .* --tokenizer .*/discriminator`"):
        evaluate_pair(pair, tiny_shards)
    changed(pair / "generator/tokenizer.json", version="3.0")
    with pytest.raises(UserError, match="both networks of a pair have one tokenizer"):
        evaluate_pair(pair, tiny_shards)


@pytest.mark.parametrize(("key", "value"), [("step", 4), ("run_id", "other")])
def test_networks_of_two_exports_are_refused(
    pair: Path, tiny_shards: Path, key: str, value: object
) -> None:
    changed(pair / "generator/electra_dist.json", **{key: value})
    with pytest.raises(UserError, match=f"the generator is of {key} {value!r}, the discriminator"):
        evaluate_pair(pair, tiny_shards)


def test_networks_in_each_others_folders_are_refused(pair: Path, tiny_shards: Path) -> None:
    (pair / "generator").rename(pair / "third")
    (pair / "discriminator").rename(pair / "generator")
    (pair / "third").rename(pair / "discriminator")
    with pytest.raises(UserError, match="holds a model of the kind 'discriminator', expected a g"):
        evaluate_pair(pair, tiny_shards)
    forget(pair, tiny_shards)
    with pytest.raises(UserError, match=r"does not hold the generator of its config.json: Error"):
        evaluate_pair(pair, tiny_shards)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"data": {"mask_fraction": 7}}, "key data.mask_fraction = 7"),
        ({"data": {"row_length": "x" * 1000}}, "key data.row_length = 'xxx"),
        ({"train": [1, 2]}, "evaluation.train is no object"),
        ({"train": {"micro_rows": -1}}, "train.micro_rows = -1"),
        ({"train": {"micro_rows": 2**20}}, "of 67,108,864 tokens, expected at most"),
        ({"model": {"architecture": "rnn"}}, "key model.architecture = 'rnn'"),
        ({"data": {"row_length": 128}}, "128"),
    ],
)
def test_settings_that_cannot_be_are_refused_by_name(
    pair: Path, tiny_shards: Path, settings: dict[str, Any], message: str
) -> None:
    changed(pair / "discriminator/electra_dist.json", evaluation=settings)
    with pytest.raises((ConfigError, UserError), match=r"electra_dist\.json: ") as caught:
        evaluate_pair(pair, tiny_shards)
    assert message in str(caught.value)
    assert len(str(caught.value)) < 500


def test_a_setting_that_is_missing_is_named(
    pair: Path, tiny_shards: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    marker = pair / "discriminator/electra_dist.json"
    settings = json.loads(marker.read_text())["evaluation"]
    del settings["data"]["mask_fraction"]
    del settings["train"]["seed"]
    changed(marker, evaluation=settings)
    assert ExportedPair.open(pair).load().step == 8
    said = capsys.readouterr().err
    assert said.endswith("taking the defaults of data.mask_fraction, train.seed\n")


@pytest.mark.parametrize("key", ["hidden_act", "layer_norm_eps"])
def test_a_network_that_computes_otherwise_is_refused(
    pair: Path, tiny_shards: Path, key: str
) -> None:
    values = {"hidden_act": "relu", "layer_norm_eps": 0.5}
    changed(pair / "discriminator/config.json", **{key: values[key]})
    with pytest.raises(UserError, match=f"discriminator/config.json: {key} is {values[key]!r}"):
        evaluate_pair(pair, tiny_shards)


def test_weights_that_are_not_finite_are_refused(pair: Path, tiny_shards: Path) -> None:
    file = pair / "generator/model.safetensors"
    state = load_file(file)
    state["generator_predictions.dense.bias"][3] = float("nan")
    save_file(state, file)
    with pytest.raises(UserError, match=r"generator/model.safetensors: head.dense.bias holds"):
        evaluate_pair(pair, tiny_shards)
