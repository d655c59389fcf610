"""An export is what transformers loads and computes as we do, or it is not there at all."""

from __future__ import annotations

import json
import os
import pydoc_data.topics
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file
from torch import nn

from data_tools.build import BuildOptions, build_shards
from data_tools.tokenizer import train_tokenizer
from electra_dist import config as configuration
from electra_dist.batch import SPECIAL_TOKENS
from electra_dist.checkpoint import networks as networks_of_run
from electra_dist.checkpoint.networks import choose_step, load_networks, load_whole
from electra_dist.checkpoint.tensors import write_tensors
from electra_dist.cli import main as cli
from electra_dist.config import NETWORKS, Config
from electra_dist.errors import CheckpointError, UserError
from electra_dist.export import run as export
from electra_dist.export.run import MARKER, export_run
from electra_dist.files.writing import write_json
from electra_dist.model.networks import build_networks
from electra_dist.runs.checkpoints import folders
from electra_dist.runs.checkpoints.manifest import (
    TRAINER,
    VERSION,
    CheckpointManifest,
    NetworkEntry,
    Slice,
    parameter_entries,
)
from electra_dist.runs.checkpoints.members import finish, write_text
from electra_dist.runs.directory import RunDir
from tests.support.disks import tiny_disk

VOCABULARY = 600
STEPS = (4, 8)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tokenizer and shards made of the documentation of Python's language."""
    folder = tmp_path_factory.mktemp("corpus")
    text = folder / "topics.txt"
    documents = [" ".join(value.split()) for value in list(pydoc_data.topics.topics.values())[:40]]
    text.write_text("\n\n".join(documents), encoding="utf-8")
    train_tokenizer([text], VOCABULARY, folder / "tokenizer")
    build_shards([text], folder / "tokenizer", folder / "shards", BuildOptions(validation=0.2))
    return folder


def write_checkpoint(folder: Path, networks: dict[str, nn.Module], step: int) -> None:
    """A checkpoint as two ranks would write it: each parameter cut at an odd place."""
    entries, sections = {}, {}
    folder.mkdir(parents=True)
    for network, module in networks.items():
        (folder / network).mkdir()
        parameters = {name: p.detach() for name, p in module.named_parameters()}
        slices = []
        for rank in range(2):
            file, tensors = f"{network}/rank-{rank:05d}.safetensors", {}
            for name, parameter in parameters.items():
                cut = parameter.numel() * 2 // 5
                start, stop = (0, cut) if rank == 0 else (cut, parameter.numel())
                if start < stop:
                    tensors[f"weight/{name}"] = parameter.flatten()[start:stop]
                    slices.append((name, Slice(file, start, stop - start)))
            entries[file] = write_tensors(folder / file, tensors)
        shapes = {name: tuple(parameter.shape) for name, parameter in parameters.items()}
        sections[network] = NetworkEntry(scalars={}, parameters=parameter_entries(shapes, slices))
    entries[TRAINER] = write_text(folder / TRAINER, "{}")
    finish(
        folder,
        CheckpointManifest(
            version=VERSION, step=step, world_size=2, files=entries, networks=sections
        ),
    )


@pytest.fixture(scope="module")
def make_run(
    corpus: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., tuple[RunDir, Any]]:
    """`make_run(sharing, ...)`: a run directory with two checkpoints,
    and the networks of the last one.
    """

    def make(
        sharing: str = "shared", shards: str | None = None, positions: int = 64
    ) -> tuple[RunDir, Any]:
        run = RunDir(tmp_path_factory.mktemp("runs") / f"odd name {sharing}")
        config = run_config(run, shards or str(corpus / "shards"), sharing, positions)
        run.path.mkdir()
        run.config.write_text(configuration.resolved_yaml(config), encoding="utf-8")
        write_json(
            run.facts,
            {"name": "a-run", "wandb_id": "ab12", "dataset_fingerprint": "f" * 64, "starts": []},
        )
        records = [{"step": s, "loss/generator": 7.0 - s, "speed/mfu": 0.5} for s in (2, 4, 6, 8)]
        run.metrics.write_text("".join(json.dumps(r) + "\n" for r in records), encoding="utf-8")
        run.tokenizer.mkdir()
        for file in (corpus / "tokenizer").iterdir():
            (run.tokenizer / file.name).write_bytes(file.read_bytes())
        networks = None
        for step in STEPS:
            networks = build_networks(config, VOCABULARY, "cpu", seed=step)
            shake(networks, step)
            write_checkpoint(run.checkpoint(step), dict(zip(NETWORKS, networks, strict=True)), step)
        return run, networks

    return make


def run_config(run: RunDir, shards: str, sharing: str, positions: int) -> Config:
    return configuration.build(
        {
            "run": {"dir": str(run.path.parent), "name": "a-run"},
            "data": {"shards": shards, "row_length": 64},
            "model": {"preset": "tiny", "embedding_sharing": sharing, "max_positions": positions},
            "train": {"steps": 20, "global_rows": 8, "micro_rows": 8},
            "optim": {"warmup_steps": 0},
        }
    )


@torch.no_grad()
def shake(networks: Any, seed: int) -> None:
    """Weights as after training: no bias is 0, no LayerNorm weight is 1, no delta is 0."""
    rng = torch.Generator().manual_seed(seed)
    for network in networks:
        for parameter in network.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=rng) * 0.05)


@pytest.fixture(scope="module")
def shared_run(make_run: Any) -> tuple[RunDir, Any]:
    return make_run("shared")


def leftovers(out: Path) -> list[str]:
    return [entry.name for entry in out.parent.iterdir() if entry.name.startswith(".")]


@pytest.mark.parametrize("sharing", ["shared", "disentangled", "none"])
@pytest.mark.parametrize("network", NETWORKS)
def test_the_export_loads_in_transformers_and_computes_the_same(
    make_run: Any, shared_run: Any, sharing: str, network: Any, tmp_path: Path
) -> None:
    run, (generator, discriminator) = shared_run if sharing == "shared" else make_run(sharing)
    out = tmp_path / "deep" / "er" / "out"
    report = export_run(run, out, network)
    assert report.step == STEPS[-1]
    assert report.check.source == "held-out documents"
    assert report.check.max_difference <= report.check.tolerance
    assert report.check.tokens > 200
    assert report.check.logits == report.check.tokens * (
        VOCABULARY if network == "generator" else 1
    )
    assert leftovers(out) == []
    tokenizer = transformers.AutoTokenizer.from_pretrained(out, local_files_only=True)
    assert tokenizer.model_max_length == 64
    encoded = tokenizer(
        ["for while break", "the import statement"], padding=True, return_tensors="pt"
    )
    real = encoded["attention_mask"].bool()
    kinds = {
        "generator": transformers.AutoModelForMaskedLM,
        "discriminator": transformers.AutoModelForPreTraining,
    }
    model = kinds[network].from_pretrained(out, local_files_only=True)
    with torch.no_grad():
        theirs = model(**encoded).logits
        ours = own_logits(
            generator.eval(), discriminator.eval(), network, encoded["input_ids"], real
        )
    torch.testing.assert_close(theirs[real], ours[real], rtol=1e-5, atol=1e-5)


def own_logits(
    generator: Any, discriminator: Any, network: str, tokens: torch.Tensor, real: torch.Tensor
) -> Any:
    from electra_dist.model.inputs import rows_of_documents, to_device

    documents = [[tokens[b][real[b]].tolist()] for b in range(len(tokens))]
    batch = to_device(rows_of_documents(documents, tokens.shape[1], SPECIAL_TOKENS.pad), "cpu")
    if network == "generator":
        return generator.logits(batch)
    shared = generator.exchange(batch.tokens, batch.positions)
    return discriminator(shared, batch, batch.tokens, torch.zeros(tokens.shape)).logits


def test_a_given_step_is_exported_with_its_own_metrics(shared_run: Any, tmp_path: Path) -> None:
    run, _ = shared_run
    assert export_run(run, tmp_path / "early", "generator", step=4).step == 4
    export_run(run, tmp_path / "late", "generator")
    early, late = (load_file(tmp_path / name / "model.safetensors") for name in ("early", "late"))
    assert early.keys() == late.keys()
    assert all(not torch.equal(early[name], late[name]) for name in early)
    assert "generator_lm_head.weight" not in early
    card = (tmp_path / "early" / "README.md").read_text()
    assert "| loss/generator | 3.0000 |" in card
    assert "speed/mfu" not in card


def test_the_card_and_the_marker_say_what_was_exported_and_compared(
    shared_run: Any, tmp_path: Path
) -> None:
    report = export_run(shared_run[0], tmp_path / "out", "discriminator")
    card = (tmp_path / "out" / "README.md").read_text()
    for fact in (
        "f" * 64,
        "8 of 20",
        "8 x 64 tokens",
        "3 / 128 / 2 / 512",
        report.check.sentence(),
        "AutoTokenizer",
    ):
        assert fact in card
    marker = json.loads((tmp_path / "out" / MARKER).read_text())
    assert marker["run"] == "a-run"
    assert marker["step"] == 8
    assert marker["check"]["max_difference"] == report.check.max_difference
    assert json.dumps(report.to_dict())
    assert report.check.sentence() in report.summary()


def test_without_shards_the_check_takes_its_own_text_and_says_so(
    make_run: Any, tmp_path: Path
) -> None:
    run, _ = make_run("shared", shards="gone/shards")
    report = export_run(run, tmp_path / "out", "discriminator")
    assert report.check.source == "sample text (gone/shards cannot be read here)"
    assert report.check.tokens > 100


def test_an_earlier_export_of_the_same_run_is_replaced(shared_run: Any, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()  # an empty folder is welcome
    export_run(shared_run[0], out, "discriminator", step=4)
    export_run(shared_run[0], out, "discriminator")
    assert json.loads((out / MARKER).read_text())["step"] == 8
    assert leftovers(out) == []
    listed = json.loads((out / MARKER).read_text())["files"]
    assert {*listed, MARKER} == {path.name for path in out.iterdir()}
    old = json.loads((out / MARKER).read_text())
    del old["files"]  # as an earlier version wrote it
    (out / MARKER).write_text(json.dumps(old))
    export_run(shared_run[0], out, "discriminator")


def _note(out: Path) -> None:
    (out / "note.txt").write_text("mine")


def _folder(out: Path) -> None:
    (out / "onnx").mkdir()
    (out / "onnx/model.onnx").write_text("mine")


def _edit(out: Path) -> None:
    (out / "README.md").write_text("mine")


def _link(out: Path) -> None:
    (out / "config.json").rename(out.parent / "elsewhere.json")
    (out / "config.json").symlink_to(out.parent / "elsewhere.json")


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (_note, "(note.txt)"),
        (_folder, "(onnx)"),
        (_edit, "(README.md, which was changed)"),
        (_link, "(config.json, which was changed)"),
    ],
)
def test_what_somebody_put_into_an_export_is_never_replaced(
    shared_run: Any, tmp_path: Path, change: Callable[[Path], None], named: str
) -> None:
    out = tmp_path / "out"
    export_run(shared_run[0], out, "discriminator", step=4)
    change(out)
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    with pytest.raises(UserError) as caught:
        export_run(shared_run[0], out, "discriminator")
    assert f"holds what the export did not write {named}" in str(caught.value)
    assert before == {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}


def test_a_link_leads_to_the_folder_that_is_made(shared_run: Any, tmp_path: Path) -> None:
    link = tmp_path / "newest"
    link.symlink_to(tmp_path / "of-step-4")
    for step in (4, 8):  # a link to nothing, then to an export
        export_run(shared_run[0], link, "discriminator", step=step)
        assert json.loads((tmp_path / "of-step-4" / MARKER).read_text())["step"] == step
    assert link.is_symlink()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["newest", "of-step-4"]


def test_the_folder_that_the_command_runs_in_is_refused_before_the_work(
    shared_run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = RunDir(shared_run[0].path.absolute())
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    monkeypatch.setattr(export, "load_whole", lambda *_: pytest.fail("loaded"))
    with pytest.raises(UserError, match=r"`out` \.: is the folder that this command runs in"):
        export_run(run, Path("."), "discriminator")


# --- positions ------------------------------------------------------------------------------------


def test_an_export_has_the_positions_that_were_trained(make_run: Any, tmp_path: Path) -> None:
    run, _ = make_run("shared", positions=96)
    config = configuration.load(run.config)
    network = config.model.max_positions
    trained = config.data.row_length
    assert trained < network
    for positions, has, said in (
        (None, trained, f"{trained}, all trained (the network in training has {network})"),
        (network, network, f"{network}, of which the first {trained} were trained"),
    ):
        out = tmp_path / str(has)
        export_run(run, out, "discriminator", positions=positions)
        model = transformers.AutoModelForPreTraining.from_pretrained(out)
        assert model.config.max_position_embeddings == has
        assert len(model.electra.embeddings.position_embeddings.weight) == has
        assert transformers.AutoTokenizer.from_pretrained(out).model_max_length == has
        assert f"| positions | {said} |" in (out / "README.md").read_text()
    with pytest.raises(UserError, match=rf"`positions` {network + 1}: expected from 1 to"):
        export_run(run, tmp_path / "none", "discriminator", positions=network + 1)


def test_an_output_that_holds_something_else_is_refused_and_untouched(
    shared_run: Any, tmp_path: Path
) -> None:
    run, _ = shared_run
    folder = tmp_path / "notes"
    folder.mkdir()
    (folder / "thesis.tex").write_text("years of work")
    with pytest.raises(UserError, match=r"holds something that is no export \(thesis.tex\)"):
        export_run(run, folder, "discriminator")
    assert [entry.name for entry in folder.iterdir()] == ["thesis.tex"]
    with pytest.raises(UserError, match="is a file"):
        export_run(run, folder / "thesis.tex", "discriminator")
    export_run(run, tmp_path / "generator", "generator")
    with pytest.raises(UserError, match="holds the generator of run 'a-run'"):
        export_run(run, tmp_path / "generator", "discriminator")


def test_steps_that_do_not_exist_are_named_with_those_that_do(
    shared_run: Any, tmp_path: Path
) -> None:
    with pytest.raises(CheckpointError, match=r"`step` 5: .* steps 4, 8"):
        export_run(shared_run[0], tmp_path / "out", "generator", step=5)
    empty = RunDir(tmp_path / "empty")
    with pytest.raises(CheckpointError, match="no complete checkpoint"):
        choose_step(empty, None)


def damage(run: RunDir, step: int) -> None:
    victim = run.checkpoint(step) / "generator" / "rank-00001.safetensors"
    content = bytearray(victim.read_bytes())
    content[-7] ^= 1
    victim.write_bytes(content)


def test_a_damaged_checkpoint_is_passed_over_with_a_warning(
    make_run: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, _ = make_run("shared")
    damage(run, 8)
    assert export_run(run, tmp_path / "out", "discriminator").step == 4
    assert (
        f"{run.checkpoints}: taking step 4, because the checkpoint of step 8 is not whole"
        " (generator/rank-00001.safetensors is damaged" in capsys.readouterr().err
    )
    run.checkpoint(12).mkdir()  # nothing in it
    assert load_whole(run, configuration.load(run.config))[0] == 4
    assert (
        "the checkpoint of step 12 is not whole (manifest.json is missing)"
        in capsys.readouterr().err
    )


def test_a_damaged_checkpoint_is_refused_by_number_and_leaves_nothing(
    make_run: Any, tmp_path: Path
) -> None:
    run, _ = make_run("shared")
    damage(run, 8)
    with pytest.raises(CheckpointError, match=r"rank-00001.safetensors is damaged"):
        export_run(run, tmp_path / "out", "discriminator", step=8)
    damage(run, 4)
    with pytest.raises(
        CheckpointError,
        match=r"no whole checkpoint: step 8: .* is damaged.*; step 4: .* is damaged",
    ):
        export_run(run, tmp_path / "out", "discriminator")
    assert list(tmp_path.iterdir()) == []


def test_a_checkpoint_that_vanishes_while_it_is_read_gives_way_to_the_next(
    make_run: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As another host removes it: its files are gone for us, whether they were open or not."""
    run, _ = make_run("shared")
    read = networks_of_run.read_network

    def read_late(folder: Path, network: Any) -> Any:
        if folder == run.checkpoint(8):
            shutil.copytree(run.checkpoint(4), run.checkpoint(12))
            folders.remove(run.checkpoint(8))
        return read(folder, network)

    monkeypatch.setattr(networks_of_run, "read_network", read_late)
    assert load_whole(run, configuration.load(run.config))[0] == 12
    assert capsys.readouterr().err == ""  # nothing is wrong with this run


def test_export_goes_through_while_training_saves_and_prunes(make_run: Any, tmp_path: Path) -> None:
    run, _ = make_run("shared")
    over = threading.Event()

    def train() -> None:
        step = 12
        while not over.is_set():
            partial = run.checkpoints / f".step-{step:08d}.0{folders.PARTIAL}"
            shutil.copytree(run.checkpoint(step - 4), partial)
            folders.publish(partial, run.checkpoint(step))
            folders.prune(run, keep=1)
            step += 4
            # else a busy machine can take each of them away before it is read, as no training would
            time.sleep(0.1)

    thread = threading.Thread(target=train)
    thread.start()
    try:
        steps = [load_whole(run, configuration.load(run.config))[0] for _ in range(10)]
        report = export_run(run, tmp_path / "out", "discriminator")
    finally:
        over.set()
        thread.join()
    assert steps == sorted(steps)
    assert report.step > steps[0]


@pytest.mark.parametrize("kilobytes", [16, 2_740])
def test_a_full_disk_ends_an_export_in_one_sentence(
    shared_run: Any, tmp_path: Path, kilobytes: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """The weights do not fit, or what comes after them does not."""
    run = shared_run[0]
    with tiny_disk(tmp_path / "disk", f"{kilobytes}k") as disk:
        assert cli.main(["export", str(run.path), "--out", str(disk / "out")]) == 74
        error = capsys.readouterr().err
        assert error.count("error: ") == 1
        assert f"{disk / 'out'}: the export cannot be written: no space left; make room" in error
        assert os.listdir(disk) == []


def test_a_checkpoint_of_another_architecture_is_refused(shared_run: Any) -> None:
    run, _ = shared_run
    config = run_config(run, "x", "none", 64)
    with pytest.raises(CheckpointError, match=r"does not hold the discriminator of config.yaml"):
        load_networks(run, config, 8)


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("mistake", ["bias", "query and key", "gelu"])
def test_the_check_catches_a_wrong_export_and_nothing_is_left(
    shared_run: Any, tmp_path: Path, network: Any, mistake: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Mistakes that a mapping can make: one is put in, and the export must fail."""
    write = export._write_model

    def write_wrongly(folder: Path, state: Any, config: Any) -> None:
        state = dict(state)
        first = "electra.encoder.layer.0.attention.self"
        if mistake == "bias":
            state["electra.encoder.layer.2.output.dense.bias"] = (
                state["electra.encoder.layer.2.output.dense.bias"] * 0
            )
        elif mistake == "query and key":
            names = f"{first}.query.weight", f"{first}.key.bias"
            state[names[0]], state[names[1]] = (
                state[f"{first}.key.weight"],
                state[f"{first}.query.bias"],
            )
        else:
            config = config | {"hidden_act": "gelu_new"}
        write(folder, state, config)

    monkeypatch.setattr(export, "_write_model", write_wrongly)
    with pytest.raises(UserError, match=r"export check failed: .* logits differ"):
        export_run(shared_run[0], tmp_path / "out", network)
    assert list(tmp_path.iterdir()) == []


def test_a_tokenizer_that_encodes_differently_is_caught(make_run: Any, tmp_path: Path) -> None:
    run, _ = make_run("shared")
    settings = json.loads((run.tokenizer / "tokenizer_config.json").read_text())
    (run.tokenizer / "tokenizer_config.json").write_text(
        json.dumps(settings | {"split_special_tokens": False})
    )
    with pytest.raises(UserError, match="AutoTokenizer that gives other ids"):
        export_run(run, tmp_path / "out", "discriminator")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["run.json", "tokenizer/tokenizer.json"])
def test_an_incomplete_run_directory_is_refused_by_file(
    make_run: Any, tmp_path: Path, name: str
) -> None:
    run, _ = make_run("shared")
    (run.path / name).unlink()
    with pytest.raises(UserError, match=name):
        export_run(run, tmp_path / "out", "discriminator")
    assert list(tmp_path.iterdir()) == []


def test_missing_transformers_names_the_extra(
    shared_run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = export.importlib.util.find_spec
    monkeypatch.setattr(
        export.importlib.util,
        "find_spec",
        lambda name, *a: None if name == "transformers" else find(name, *a),
    )
    with pytest.raises(UserError, match=r"electra-dist\[hf\]"):
        export_run(shared_run[0], tmp_path / "out", "discriminator")


@pytest.mark.parametrize("name", ["special_tokens_map.json", "notes.txt", "tokenizer_config.json"])
def test_what_a_link_in_the_tokenizer_points_at_is_never_published(
    name: str, make_run: Any, tmp_path: Path
) -> None:
    run, _ = make_run("shared")
    key = tmp_path / "id_ed25519"
    key.write_text("-----BEGIN OPENSSH PRIVATE KEY-----")
    (run.tokenizer / name).unlink(missing_ok=True)
    (run.tokenizer / name).symlink_to(key)
    out = tmp_path / "exported"
    if name == "notes.txt":  # no file of a tokenizer: left out
        export_run(run, out, "discriminator")
        assert not (out / name).exists()
    else:
        with pytest.raises(UserError, match=rf"{name}: is a link"):
            export_run(run, out, "discriminator")
        assert not out.exists()
