"""One embedding of texts: choose the layer, write the vectors, write the model.

OUT             the vectors, in the order of the texts (`vector_files`)
OUT.meta.json   model, layer, pooling, and the scores of the layers where they were measured

OUT_MODEL/      the encoder up to the layer, which `sentence-transformers`, `transformers`,
                `electra-dist predict` and `finetune` load
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from electra_dist.console import human_seconds, say
from electra_dist.embeddings.layers import LayerChoice, choose_layer
from electra_dist.embeddings.vector_files import check_vector_file, vector_file
from electra_dist.errors import DataError, UserError
from electra_dist.files.staging import check_folder_can_be_made, staged
from electra_dist.files.writing import open_to_readers, write_json
from electra_dist.finetune.labelled import Columns, read_rows, text_of
from electra_dist.finetune.model_folder import MARKER, WEIGHTS, ModelFolder
from electra_dist.finetune.runners.runner import TorchRunner
from electra_dist.finetune.tasks.embeddings.encoder import SentenceEncoder
from electra_dist.finetune.tasks.embeddings.features import encode_texts, warn_of_cut
from electra_dist.finetune.tasks.embeddings.pairs import read_pairs
from electra_dist.finetune.tasks.embeddings.pooling import Pooling, PoolMode, pooling_of
from electra_dist.finetune.tasks.embeddings.sentence_folder import (
    TASK,
    embeddings_marker,
    write_sentence_folder,
)
from electra_dist.parallel.hardware import device_of_command

#: Texts that are in memory at once; among them those of about one length share a batch.
_PART = 2048
_PROGRESS_SECONDS = 10.0
_COLUMNS = Columns(pair="pair")


@dataclass(frozen=True)
class Settings:
    """What the user asked for. What is None follows from the model: a model for embeddings says
    itself how it pools and how long its texts are; any other has the mean, and all its positions.

    texts     where they come from: a file, or lines that are being read
    pairs     a file of pairs, on which the layer is chosen
    columns   of `texts` and `pairs`
    layer     0 are the embeddings; by default `best` with pairs, and the last one without
    """

    model: Path
    texts: Path | Iterable[str] | None = None
    out: Path | None = None
    out_model: Path | None = None
    pairs: Path | None = None
    columns: Columns = _COLUMNS
    layer: int | Literal["best"] | None = None
    pool: PoolMode | None = None
    normalize: bool | None = None
    max_length: int | None = None
    device: str | None = None


@dataclass(frozen=True)
class EmbedReport:
    """What came of it. `choice` is None where no layer was chosen, `count` 0 where no text was
    embedded.
    """

    model: str
    layer: int
    layers: int
    pooling: Pooling
    dimension: int
    max_length: int
    count: int
    seconds: float
    choice: LayerChoice | None

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


class Embedder:
    """An encoder up to a layer, ready for texts; `cut` counts those that were too long."""

    def __init__(
        self, folder: ModelFolder, tokenizer: Any, report: EmbedReport, device: torch.device
    ) -> None:
        """`report` names the layer, the pooling and the length of a text."""
        self.electra = folder.load("AutoModel", num_hidden_layers=report.layer)
        self.cut = 0
        self._tokenizer = tokenizer
        self._max_length = report.max_length
        encoder = SentenceEncoder(self.electra, report.pooling)
        self._runner = TorchRunner(encoder, tokenizer, device)

    def __call__(self, texts: list[str]) -> NDArray[np.float32]:
        """The vectors (B, H) of the texts, in their order."""
        features, cut = encode_texts(self._tokenizer, texts, self._max_length)
        self.cut += cut
        return np.stack([vector for (vector,) in self._runner(features)])


def embed(settings: Settings) -> EmbedReport:
    """Do what is asked; raises `UserError`, and leaves nothing half-written behind."""
    _check(settings)
    folder = ModelFolder.open(settings.model)
    tokenizer = folder.tokenizer()
    report = choose(settings, folder, tokenizer)
    if settings.out is None and settings.out_model is None:
        return report
    embedder = Embedder(folder, tokenizer, report, device_of_command(settings.device))
    if settings.out_model is not None:
        _write_model(settings.out_model, embedder.electra, folder, report)
    if settings.out is not None:
        report = _write_vectors(settings.out, _texts(settings), embedder, report)
        write_json(Path(f"{settings.out}.meta.json"), report.to_dict())
    return report


def embed_list(settings: Settings, texts: list[str]) -> tuple[EmbedReport, NDArray[np.float32]]:
    """The vectors of `texts` in memory, instead of in a file."""
    _check_layer(settings)
    folder = ModelFolder.open(settings.model)
    tokenizer = folder.tokenizer()
    report = choose(settings, folder, tokenizer)
    embedder = Embedder(folder, tokenizer, report, device_of_command(settings.device))
    vectors_nh = embedder(texts)
    warn_of_cut(embedder.cut, len(texts), report.max_length)
    return replace(report, count=len(texts)), vectors_nh


def choose(settings: Settings, folder: ModelFolder, tokenizer: Any) -> EmbedReport:
    """The layer and the pooling, from the pairs, the model and what the user asked for; nothing is
    embedded yet.
    """
    layers = int(folder.config["num_hidden_layers"])
    pooling = _pooling(settings, folder)
    max_length = _max_length(settings, folder)
    choice = None
    if settings.pairs is not None:
        pairs = read_pairs(settings.pairs, settings.columns)
        say(f"{settings.pairs}: {pairs.summary()}")
        device = device_of_command(settings.device)
        choice = choose_layer(folder, tokenizer, pairs, pooling, max_length, device)
    return EmbedReport(
        model=str(settings.model),
        layer=_layer(settings, layers, choice),
        layers=layers,
        pooling=pooling,
        dimension=int(folder.config["hidden_size"]),
        max_length=max_length,
        count=0,
        seconds=0.0,
        choice=choice,
    )


def _check(settings: Settings) -> None:
    if settings.out is None and settings.out_model is None and settings.pairs is None:
        raise UserError(
            "nothing to do: give `out` for vectors, `out_model` for a model, or `choose_layer`"
        )
    _check_layer(settings)
    if settings.out is not None:
        if settings.texts is None:
            raise UserError("`input`: missing; `out` needs the texts of a file")
        check_folder_can_be_made(settings.out)
        check_vector_file(settings.out)
    out_model = settings.out_model
    if out_model is not None:
        if out_model.exists() and (not out_model.is_dir() or any(out_model.iterdir())):
            raise UserError(
                f"`out_model` {out_model}: exists and is not empty; nothing was changed, give a new"
                " folder"
            )
        check_folder_can_be_made(out_model)


def _check_layer(settings: Settings) -> None:
    if settings.layer == "best" and settings.pairs is None:
        raise UserError("`layer` best: is found on pairs; give them with `choose_layer`")


def _pooling(settings: Settings, folder: ModelFolder) -> Pooling:
    pooling = Pooling()
    if folder.kind == TASK:
        pooling = pooling_of(folder)
    if settings.pool is not None:
        pooling = replace(pooling, pool=settings.pool)
    if settings.normalize is not None:
        pooling = replace(pooling, normalize=settings.normalize)
    return pooling


def _max_length(settings: Settings, folder: ModelFolder) -> int:
    positions = int(folder.config["max_position_embeddings"])
    if settings.max_length is not None:
        if not 2 <= settings.max_length <= positions:
            raise UserError(
                f"`max_length` {settings.max_length}: expected from 2 to {positions} (the encoder's"
                " positions)"
            )
        return settings.max_length
    if folder.kind == TASK:
        return min(positions, int(folder.fact("max_length")))
    return positions


def _layer(settings: Settings, layers: int, choice: LayerChoice | None) -> int:
    if isinstance(settings.layer, int):
        if not 0 <= settings.layer <= layers:
            raise UserError(
                f"`layer` {settings.layer}: expected from 0 (the embeddings) to {layers} (the last)"
            )
        return settings.layer
    if choice is not None:
        return choice.layer
    return layers


def _texts(settings: Settings) -> Iterator[str]:
    """Blank ones too, so that vectors and lines keep step."""
    source = settings.texts
    if not isinstance(source, Path):
        assert source is not None
        yield from source
        return
    column = settings.columns.text
    if source.suffix == ".txt":
        column = "text"
    for line, row in read_rows(source):
        yield text_of(source, line, row, column)


def _write_vectors(
    out: Path, texts: Iterator[str], embedder: Embedder, report: EmbedReport
) -> EmbedReport:
    """Part by part, so that memory does not grow with the number of texts."""
    started = time.monotonic()
    told = started
    count = 0
    with vector_file(out, report.dimension) as file:
        while part := list(islice(texts, _PART)):
            file.write(part, embedder(part))
            count += len(part)
            now = time.monotonic()
            if now - told > _PROGRESS_SECONDS:
                told = now
                say(f"{count:,} texts, {count / (now - started):,.0f} texts/s")
        if not count:
            raise DataError("`input`: holds no text; nothing was written")
    seconds = time.monotonic() - started
    warn_of_cut(embedder.cut, count, report.max_length)
    say(f"{out}: {count:,} vectors of {report.dimension} numbers, {human_seconds(seconds)}")
    return replace(report, count=count, seconds=seconds)


def _write_model(out: Path, electra: Any, source: ModelFolder, report: EmbedReport) -> None:
    """The encoder up to its layer, for `sentence-transformers` and for us."""
    with staged(out) as folder:
        electra.save_pretrained(folder)
        open_to_readers(folder / WEIGHTS)
        source.copy_tokenizer(folder)
        write_sentence_folder(folder, report.pooling, report.dimension, report.max_length)
        marker = embeddings_marker(report.pooling, report.max_length, _COLUMNS)
        marker |= {
            "layer": report.layer,
            "layers_of_encoder": report.layers,
            "choice": report.choice and report.choice.to_dict(),
            "encoder": source.marker or source.path.name,
        }
        write_json(folder / MARKER, marker)
        (folder / "README.md").write_text(_card(source, report), encoding="utf-8")
    say(f"{out}: the encoder up to layer {report.layer} of {report.layers}")


def _card(source: ModelFolder, report: EmbedReport) -> str:
    """A short model card."""
    encoder = source.marker.get("run") or source.path.name
    lines = [
        "---",
        "library_name: sentence-transformers",
        "pipeline_tag: sentence-similarity",
        "tags: [electra]",
        "---",
        "",
        f"# embeddings, layer {report.layer} of {report.layers} of {encoder}",
        "",
        f"The {report.pooling.pool} of the hidden states of up to {report.max_length} tokens,"
        f" {report.dimension} numbers. Nothing was tuned.",
        "",
    ]
    if report.choice is not None:
        names = list(report.choice.scores[0])
        lines += ["| layer | " + " | ".join(names) + " |", "|---|" + "---:|" * len(names)]
        lines += ["| " + " | ".join(row) + " |" for row in report.choice.rows()]
    return "\n".join(lines) + "\n"
