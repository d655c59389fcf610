"""ONNX graphs for a model folder: an export, or a model that was fine-tuned from one.

Comes in: a folder that `transformers` loads. Goes out: the folder `onnx` in it, or in a copy of it;
the model card and the marker tell of it. The graphs appear when their check is done.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from electra_dist.errors import UserError
from electra_dist.export.onnx.add import write_graphs
from electra_dist.export.onnx.graph import require_packages
from electra_dist.export.onnx.report import OnnxReport, with_section
from electra_dist.files.reading import MIB, read_bounded
from electra_dist.files.staging import staged
from electra_dist.files.writing import write_atomically, write_json, writing
from electra_dist.finetune.model_folder import (
    MARKER,
    TOKENIZER_FILES,
    WEIGHTS,
    ModelFolder,
)
from electra_dist.finetune.own_files import (
    CARD,
    changed_files,
    file_digests,
    foreign_files,
    own_files,
)
from electra_dist.finetune.runners.onnx_runner import ONNX_FOLDER

#: What a copy needs of a folder without a marker.
_OF_ANY_MODEL = (WEIGHTS, "config.json", *TOKENIZER_FILES)


@dataclass(frozen=True)
class FolderReport:
    """The folder that has the graphs, and what kind of model it is."""

    out: Path
    kind: str
    onnx: OnnxReport

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "out": str(self.out)}

    def summary(self) -> str:
        """One line for the folder, and one a graph."""
        return "\n".join([f"{self.out}: {self.kind}, with ONNX graphs", *self.onnx.lines()])


def add_onnx(source: Path, out: Path | None, int8: bool) -> FolderReport:
    """Write the graphs of the model in `source` into its folder `onnx`, or into that of its copy
    `out`, which must be new or empty.

    Raises `UserError` where a package is missing, the model cannot be loaded, its folder `onnx`
    holds what no export wrote, or the graphs do not compute the same; nothing is changed then.
    """
    require_packages()
    folder = ModelFolder.open(source)
    if out is None:
        return _in_place(folder, int8)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(
            f"`out` {out}: exists and is not empty; nothing was changed, give a new folder"
        )
    with staged(out) as copy, writing(out, "the export"):
        for name in _model_files(folder):
            (copy / name).parent.mkdir(exist_ok=True)
            shutil.copyfile(source / name, copy / name)
        (copy / ONNX_FOLDER).mkdir()
        report = write_graphs(folder, copy / ONNX_FOLDER, int8)
        _tell(copy, folder.marker, report)
    return FolderReport(out, folder.kind, report)


def _model_files(folder: ModelFolder) -> list[str]:
    """The files of the model, whoever has edited them since, but for its graphs."""
    path = folder.path
    if not folder.marker:
        return [name for name in _OF_ANY_MODEL if (path / name).is_file()]
    listed = folder.marker.get("files")
    names = [*own_files(path, listed), *changed_files(path, listed)]
    return [name for name in names if not name.startswith(f"{ONNX_FOLDER}/")]


def _in_place(folder: ModelFolder, int8: bool) -> FolderReport:
    path = folder.path
    listed = folder.marker.get("files")
    inside = f"{ONNX_FOLDER}/"
    foreign = [name for name in foreign_files(path, listed) if f"{name}/".startswith(inside)]
    if foreign:
        raise UserError(
            f"{path}: holds what no export wrote ({', '.join(foreign[:5])}); nothing was changed,"
            " move it away, or give `out`"
        )
    with staged(path / ONNX_FOLDER) as graphs, writing(path / ONNX_FOLDER, "the export"):
        report = write_graphs(folder, graphs, int8)
    with writing(path, "the export"):
        _tell(path, folder.marker, report)
    return FolderReport(path, folder.kind, report)


def _tell(path: Path, marker: Mapping[str, Any], report: OnnxReport) -> None:
    """Write of the graphs in the card and the marker of the folder `path`.

    The marker lists what was ours before, and the graphs; a card that somebody has changed keeps
    its earlier checksum, and so counts as theirs. Of a folder without a marker, the graphs alone
    are ours.
    """
    listed = marker.get("files")
    ours: set[str] = set()
    if marker:
        ours = set(own_files(path, listed))
    if (path / CARD).is_file():
        card = read_bounded(path / CARD, MIB).decode()
        write_atomically(path / CARD, with_section(card, report.card_section()))
    files: dict[str, str | None] = {}
    if isinstance(listed, Mapping):
        files = {name: old for name, old in listed.items() if not name.startswith(ONNX_FOLDER)}
    for name, digest in file_digests(path).items():
        if name in ours or name.startswith(f"{ONNX_FOLDER}/"):
            files[name] = digest
    write_json(path / MARKER, {**marker, "files": files, "onnx": report.to_dict()})
