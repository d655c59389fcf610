"""The tokenizer of an export: anybody's, with its special ids; masks that a user writes are filled
with the ids of pre-training; the card says what it does to a text.
"""

from __future__ import annotations

import json
import pydoc_data.topics
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from data_tools.build import BuildOptions, build_shards
from data_tools.tokenizer import load_tokenizer, train_tokenizer
from electra_dist import config as configuration
from electra_dist.config import NETWORKS
from electra_dist.data.shards.manifest import Manifest
from electra_dist.data.sources import RunData
from electra_dist.data.step_plan import StepPlan
from electra_dist.data.steps import StepSource
from electra_dist.errors import UserError
from electra_dist.export.run import export_run
from electra_dist.files.writing import write_json
from electra_dist.finetune.predict import open_predictor
from electra_dist.model.inputs import to_device
from electra_dist.model.networks import build_networks
from electra_dist.runs.directory import RunDir
from tests.export.test_run import run_config, shake, write_checkpoint
from tests.support.foreign import BERT_IDS, edit_json, save_electra, write_vocabulary


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Some documentation of Python."""
    path = tmp_path_factory.mktemp("text") / "topics.txt"
    topics = list(pydoc_data.topics.topics.values())[:40]
    path.write_text("\n\n".join(" ".join(topic.split()) for topic in topics), encoding="utf-8")
    return path


def make_run(folder: Path, text: Path, tokenizer: Path) -> RunDir:
    """A run directory with one checkpoint, of shards of this tokenizer."""
    build_shards([text], tokenizer, folder / "shards", BuildOptions(validation=0.2))
    manifest = Manifest.load(folder / "shards")
    run = RunDir(folder / "a-run")
    config = run_config(run, str(folder / "shards"), "shared", 64)
    run.path.mkdir()
    run.config.write_text(configuration.resolved_yaml(config), encoding="utf-8")
    write_json(
        run.facts,
        {"name": "a-run", "wandb_id": "ab12", "dataset_fingerprint": "f" * 64, "starts": []},
    )
    manifest.copy_tokenizer(run.tokenizer)
    networks = build_networks(config, manifest.vocab_size, "cpu", seed=3)
    shake(networks, 3)
    write_checkpoint(run.checkpoint(4), dict(zip(NETWORKS, networks, strict=True)), 4)
    return run


@pytest.fixture(scope="module")
def bert_run(text: Path, tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    """Of the folder that `transformers` saves of an ELECTRA tokenizer."""
    folder = tmp_path_factory.mktemp("bert")
    write_vocabulary(folder / "vocab.txt", [text.read_text(encoding="utf-8")])
    save_electra(folder / "saved", folder / "vocab.txt")
    return make_run(folder, text, folder / "saved")


@pytest.fixture(scope="module")
def own_run(text: Path, tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    folder = tmp_path_factory.mktemp("own")
    train_tokenizer([text], 600, folder / "tokenizer")
    return make_run(folder, text, folder / "tokenizer")


@pytest.mark.parametrize("network", NETWORKS)
def test_a_run_of_a_saved_electra_tokenizer_is_exported_with_its_ids(
    network: Any, bert_run: RunDir, text: Path, tmp_path: Path
) -> None:
    report = export_run(bert_run, tmp_path / "out", network)
    assert report.check.source == "held-out documents"
    config = transformers.AutoConfig.from_pretrained(tmp_path / "out")
    assert config.pad_token_id == BERT_IDS["pad"]
    loaded = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    for name, number in BERT_IDS.items():
        assert getattr(loaded, f"{name}_token_id") == number
    texts = text.read_text(encoding="utf-8").split("\n\n")
    ours = load_tokenizer(bert_run.tokenizer).encode_batch(texts)
    found = loaded(texts, add_special_tokens=False)["input_ids"]
    assert found == [ids.tolist() for ids in ours]
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert "| kind | WordPiece |" in card


def test_both_networks_train_on_the_ids_of_a_saved_electra_tokenizer(bert_run: RunDir) -> None:
    """One backward pass: the losses are finite, and [MASK] is what the generator reads."""
    config = configuration.load(bert_run.config)
    manifest = Manifest.load(config.data.shards)
    step = next(StepSource(StepPlan.of(config, 0, 1), RunData.alone(manifest)))
    generator, discriminator = build_networks(config, manifest.vocab_size, "cpu", seed=0)
    batch = to_device(step.micro_batches[0], "cpu")
    assert (batch.inputs == BERT_IDS["mask"]).any()
    generated = generator(batch)
    output = discriminator(generated.shared, batch, generated.corrupted, generated.replaced.float())
    loss = generated.loss_sum + output.loss_sum
    loss.backward()
    assert torch.isfinite(loss)
    moved = generator.embeddings.word.weight.grad
    assert moved is not None
    assert bool(moved[BERT_IDS["mask"]].any())


def test_written_masks_are_filled_with_the_ids_of_pre_training(
    own_run: RunDir, tmp_path: Path
) -> None:
    """In the pipeline of transformers, in `predict`, and in the snippet of the card."""
    export_run(own_run, tmp_path / "out", "generator")
    pipeline = transformers.pipeline("fill-mask", model=str(tmp_path / "out"), top_k=3)
    (whole,) = load_tokenizer(own_run.tokenizer).encode_batch(["Paris is big. And then?"])
    inputs = pipeline.preprocess("Paris is [MASK]. And then?")["input_ids"][0].tolist()
    at = inputs.index(pipeline.tokenizer.mask_token_id)
    inside = inputs[1:-1]
    assert inside[: at - 1] == whole[: at - 1].tolist()
    after = inside[at:]
    assert after == whole[len(whole) - len(after) :].tolist()
    expected = [(answer["token"], answer["score"]) for answer in pipeline("Paris is [MASK].")]
    predictor = open_predictor(tmp_path / "out", torch.device("cpu"), count=3)
    (ours,) = predictor.predict(["Paris is [MASK]."])
    found = ours.content["masks"][0]
    tokens = pipeline.tokenizer.convert_tokens_to_ids([entry["token"] for entry in found])
    assert tokens == [token for token, _ in expected]
    assert [entry["probability"] for entry in found] == pytest.approx(
        [score for _, score in expected], rel=1e-5
    )


def test_the_snippet_of_the_generators_card_runs(own_run: RunDir, tmp_path: Path) -> None:
    export_run(own_run, tmp_path / "out", "generator")
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    code = card.split("```python\n")[1].split("```")[0]
    names: dict[str, Any] = {}
    exec(code.replace("path/to/this/folder", str(tmp_path / "out")), names)
    assert isinstance(names["best"], str)


def test_the_card_says_what_the_tokenizer_does_to_a_text(own_run: RunDir, tmp_path: Path) -> None:
    export_run(own_run, tmp_path / "out", "discriminator")
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    for line in (
        "| kind | bpe |",
        "| Unicode normal form | nfc |",
        "| case | kept |",
        "| white space | a run becomes one space |",
        "| special tokens in a text | a special token that is written out in a text stays",
    ):
        assert line in card
    told = json.loads((tmp_path / "out" / "tokenizer_card.json").read_text(encoding="utf-8"))
    assert told["normalize"] == "nfc"


def test_a_special_token_without_an_id_is_refused(own_run: RunDir, tmp_path: Path) -> None:
    file = own_run.tokenizer / "tokenizer_config.json"
    before = file.read_bytes()
    edit_json(file, mask_token="<blank>")
    try:
        with pytest.raises(UserError, match=r"`mask_token` of .* is '<blank>', expected one of"):
            export_run(own_run, tmp_path / "out", "discriminator")
    finally:
        file.write_bytes(before)
    assert list(tmp_path.iterdir()) == []
