"""Exporting one network of a run as a Hugging Face model: consolidated, checked, whole or absent.

Comes in: a run directory, the checkpoint's step. Goes out: a folder that `transformers` loads
offline.

    OUT/
        model.safetensors  config.json   the fp32 master weights under Hugging Face's names
        tokenizer.json ...               the tokenizer that encoded the run's shards
        onnx/                            graphs for onnxruntime, where they were asked for
        README.md                        model card with the run's facts
        electra_dist.json                which run, step and network this is, what the check
                                         compared, and how an evaluation makes and masks its rows

Everything is written to a temporary folder beside OUT, loaded there with `transformers`, compared
with our own networks (`check.py`), and only then renamed. Reads the checkpoint without
DeepSpeed.
"""

from __future__ import annotations

import importlib.util
import os
import re
from collections.abc import Mapping
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path
from typing import Any

from torch import Tensor

from electra_dist import config as configuration
from electra_dist.architectures import find_architecture
from electra_dist.architectures.names import State
from electra_dist.checkpoint.networks import ChosenStep, load_whole
from electra_dist.config import Config, Network
from electra_dist.errors import UserError
from electra_dist.evaluate.exported import SETTINGS, settings_of
from electra_dist.export.card import model_card
from electra_dist.export.check import CheckTexts, check_export, check_texts
from electra_dist.export.older import for_older_versions
from electra_dist.export.onnx.add import write_graphs
from electra_dist.export.onnx.graph import require_packages
from electra_dist.export.onnx.report import OnnxReport, with_section
from electra_dist.export.onnx.texts import Texts
from electra_dist.export.report import ExportReport
from electra_dist.files.reading import read_json
from electra_dist.files.staging import check_folder_can_be_made, staged
from electra_dist.files.tokenizers import (
    CONFIG_FILE,
    TOKENIZER_FILE,
    parse_object,
    read_card,
    read_tokenizer_files,
    special_tokens_of,
)
from electra_dist.files.writing import open_to_readers, write_json, writing
from electra_dist.finetune.model_folder import MARKER, WEIGHTS, ModelFolder
from electra_dist.finetune.own_files import CARD, file_digests, foreign_files
from electra_dist.finetune.runners.onnx_runner import ONNX_FOLDER
from electra_dist.model.discriminator import Discriminator
from electra_dist.model.generator import Generator
from electra_dist.runs.directory import RunDir
from electra_dist.runs.facts import RunFacts


def export_run(
    run: RunDir,
    out: Path,
    network: Network,
    step: ChosenStep | None = None,
    positions: int | None = None,
    onnx: bool = False,
    int8: bool = False,
) -> ExportReport:
    """Export `network` of `run` at `step` (default: the newest whole checkpoint; `best`: the best)
    to the folder `out`.

    The model takes texts of `positions` tokens: by default those that training has seen, which are
    as many as a row has. `out` must be absent, empty, or an earlier export of the same network of
    the same run and nothing else; that is then replaced. With `onnx`, the folder holds an ONNX
    graph too, and with `int8` also a quantised one.

    Raises `UserError` when a package is missing, `out` holds something else, or the exported model
    or its graph does not compute the same as ours; `CheckpointError` when no checkpoint is whole,
    or `step` is not; `StorageError` when `out` cannot be written. Nothing is left behind then.
    """
    _require_transformers()
    if onnx:
        require_packages()
    config = configuration.load(run.config)
    facts = run.read_facts()
    identity = {"run": config.run.name, "run_id": facts.wandb_id, "network": network}
    check_out(out, identity)
    check_folder_can_be_made(out)
    model = config.model.model_copy(update={"max_positions": _positions(config, positions)})
    chosen, generator, discriminator = load_whole(run, config, step)
    names = find_architecture(config.model.architecture).names()
    state = _huggingface_state(generator, discriminator, network, config)
    state = names.with_positions(state, model.max_positions)
    with staged(out) as folder:
        with writing(out, "the export"):
            files = _copy_tokenizer(run, folder, network, model.max_positions)
            specials = special_tokens_of(run.tokenizer)
            described = names.hf_config(model, _vocabulary(generator), network, specials)
            _write_model(folder, state, described)
            write_json(folder / MARKER, identity)
        auto_class = names.AUTO_CLASSES[network]
        texts = check_texts(config, model.max_positions)
        compared = check_export(
            folder, network, auto_class, generator, discriminator, texts, run.tokenizer
        )
        graphs = _write_graphs(folder, texts, int8, out) if onnx else None
        report = ExportReport(
            out=out,
            run=config.run.name,
            network=network,
            step=chosen,
            parameters=sum(tensor.numel() for tensor in state.values()),
            positions=model.max_positions,
            check=compared,
            onnx=graphs,
        )
        with writing(out, "the export"):
            _describe(folder, run, config, facts, report, files, identity)
    return report


def _write_graphs(folder: Path, texts: CheckTexts, int8: bool, out: Path) -> OnnxReport:
    """The ONNX graphs of the model that lies in `folder`, compared on the documents of its check;
    on passages that are at hand everywhere where there are none.
    """
    material = None
    if texts.documents:
        material = Texts(texts.source, texts.documents)
    with writing(out, "the export"):
        (folder / ONNX_FOLDER).mkdir()
        return write_graphs(ModelFolder.open(folder), folder / ONNX_FOLDER, int8, material)


def _describe(
    folder: Path,
    run: RunDir,
    config: Config,
    facts: RunFacts,
    report: ExportReport,
    tokenizer_files: Mapping[str, bytes],
    identity: Mapping[str, Any],
) -> None:
    """Write the model card and the marker, which lists every other file."""
    mask = str(parse_object(tokenizer_files[CONFIG_FILE], CONFIG_FILE)["mask_token"])
    tokenizer = read_card(tokenizer_files, run.tokenizer)
    card = model_card(run, config, facts, report, tokenizer, mask)
    written: dict[str, Any] = {
        "step": report.step,
        "tokenizer_fingerprint": sha256(tokenizer_files[TOKENIZER_FILE]).hexdigest(),
        "check": asdict(report.check),
        SETTINGS: settings_of(config, facts.dataset_fingerprint),
    }
    if report.onnx is not None:
        card = with_section(card, report.onnx.card_section())
        written["onnx"] = report.onnx.to_dict()
    (folder / CARD).write_text(card, encoding="utf-8")
    write_json(folder / MARKER, {**identity, **written, "files": file_digests(folder)})


def _positions(config: Config, wanted: int | None) -> int:
    """How many positions an export has; raises `UserError` for more than the network has."""
    if wanted is None:
        return config.data.row_length
    if 1 <= wanted <= config.model.max_positions:
        return wanted
    raise UserError(
        f"`positions` {wanted}: expected from 1 to model.max_positions ="
        f" {config.model.max_positions}, of which rows of {config.data.row_length} have trained the"
        f" first {config.data.row_length}"
    )


def _require_transformers() -> None:
    if importlib.util.find_spec("transformers") is None:
        raise UserError(
            "transformers is not installed, and an export is checked by loading it there;"
            " install the extra: pip install 'electra-dist[hf]'"
        )


def check_out(out: Path, identity: Mapping[str, Any]) -> None:
    """Raise `UserError` when `out` holds anything but an earlier export with this identity."""
    if not out.exists():
        return
    if not out.is_dir():
        raise UserError(f"`out` {out}: is a file; give a folder")
    entries = sorted(entry.name for entry in out.iterdir())
    if not entries:
        return
    try:
        found = read_json(out / MARKER)
    except (OSError, ValueError, UserError):
        found = None
    if not isinstance(found, dict):
        raise UserError(
            f"`out` {out}: holds something that is no export ({', '.join(entries[:5])}); nothing"
            " was changed, give a new or empty folder"
        )
    if any(found.get(key) != value for key, value in identity.items()):
        raise UserError(
            f"`out` {out}: holds the {found.get('network')} of run {found.get('run')!r}"
            f" ({found.get('run_id')}), not the {identity['network']} of {identity['run']!r}"
            f" ({identity['run_id']}); nothing was changed, give another folder"
        )
    foreign = foreign_files(out, found.get("files"))
    if foreign:
        raise UserError(
            f"`out` {out}: holds what the export did not write ({', '.join(foreign[:5])}); nothing"
            " was changed, move it away, or give another folder"
        )


def _vocabulary(generator: Generator) -> int:
    return int(generator.output_bias.shape[0])


def _huggingface_state(
    generator: Generator, discriminator: Discriminator, network: Network, config: Config
) -> State:
    names = find_architecture(config.model.architecture).names()
    ours = generator.state_dict()
    if network == "generator":
        return names.generator_to_huggingface(ours)
    return names.discriminator_to_huggingface(
        discriminator.state_dict(), ours, config.model.embedding_sharing
    )


def _write_model(folder: Path, state: Mapping[str, Tensor], config: dict[str, Any]) -> None:
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    tensors = {name: tensor.detach().contiguous().clone() for name, tensor in state.items()}
    try:
        save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    except SafetensorError as error:
        raise _os_error(error) from error
    open_to_readers(folder / WEIGHTS)
    write_json(folder / "config.json", config)


def _os_error(error: Exception) -> OSError:
    """What the file system said; safetensors has it in the text alone:
    `... No space left on device (os error 28)`.
    """
    number = re.search(r"\(os error (\d+)\)", str(error))
    if number:
        return OSError(int(number[1]), os.strerror(int(number[1])))
    return OSError(str(error))


def _copy_tokenizer(
    run: RunDir, folder: Path, network: Network, max_positions: int
) -> dict[str, bytes]:
    """The run's tokenizer, told how many positions the model has
    (so that truncation and warnings work), in a form that older versions read too. A generator's
    reads "[MASK]" in a text as the mask.
    """
    files = read_tokenizer_files(run.tokenizer)
    for name in (TOKENIZER_FILE, CONFIG_FILE):
        if name not in files:
            raise UserError(
                f"{run.tokenizer / name}: missing; copy the folder `tokenizer` of the run's shards"
                f" to {run.tokenizer}"
            )
    settings = parse_object(files[CONFIG_FILE], run.tokenizer / CONFIG_FILE)
    for name, content in files.items():
        if name == TOKENIZER_FILE:
            (folder / name).write_bytes(for_older_versions(content))
        else:
            (folder / name).write_bytes(content)
    settings = settings | {"model_max_length": max_positions}
    if network == "generator":
        settings["split_special_tokens"] = False
    write_json(folder / CONFIG_FILE, settings)
    return files
