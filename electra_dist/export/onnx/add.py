"""Adding the graphs to a model folder, or nothing at all."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path
from typing import Any

from electra_dist.console import warn
from electra_dist.errors import UserError
from electra_dist.export.onnx import texts as material
from electra_dist.export.onnx.check import (
    EXPECTED_AGREEMENT,
    GraphCheck,
    check_graph,
    expected_outputs,
)
from electra_dist.export.onnx.graph import (
    PACKAGES,
    require_packages,
    write_graph,
    write_int8_graph,
)
from electra_dist.export.onnx.report import OnnxReport
from electra_dist.finetune.model_folder import ModelFolder
from electra_dist.finetune.registry import auto_class_of
from electra_dist.finetune.runners.onnx_runner import (
    GRAPH,
    INT8_GRAPH,
    OnnxRunner,
    weights_digest,
)

#: Outputs of the model that are kept for the comparison, at most about.
_VALUES = 40_000_000


def write_graphs(
    folder: ModelFolder, target: Path, int8: bool, texts: material.Texts | None = None
) -> OnnxReport:
    """Write the graphs of the model of `folder` into the empty folder `target`, and compare them
    with it on `texts` (default: passages that are at hand everywhere).

    Raises `UserError` where a package is missing, or the fp32 graph does not compute the same. An
    int8 graph that decides otherwise in more than one of a hundred cases is warned of.
    """
    require_packages()
    tokenizer = folder.tokenizer()
    model = folder.load(auto_class_of(folder)).eval()
    graph = target / Path(GRAPH).name
    int8_graph = target / Path(INT8_GRAPH).name
    write_graph(model, graph)
    if int8:
        write_int8_graph(graph, int8_graph)

    if texts is None:
        texts = material.passages(tokenizer)
    tokens = material.TOKENS
    if folder.kind == "generator":
        tokens = min(tokens, _VALUES // int(folder.config["vocab_size"]))
    positions = int(folder.config["max_position_embeddings"])
    batches = material.batches(texts, tokenizer, positions, tokens)
    expected = expected_outputs(model, batches)
    by_sign = _decides_by_sign(folder, model)

    def check(path: Path) -> GraphCheck:
        runner = OnnxRunner(path, tokenizer.pad_token_id)
        return check_graph(runner, batches, expected, texts.source, by_sign)

    checked = check(graph)
    if not checked.max_difference <= checked.tolerance:  # also when it is NaN
        raise UserError(
            f"`onnx`: outputs of the graph differ from PyTorch's by {checked.max_difference:.2e},"
            f" allowed {checked.tolerance:.1e}; nothing was written, please report this"
        )
    sizes = {GRAPH: graph.stat().st_size}
    int8_checked = None
    if int8:
        sizes[INT8_GRAPH] = int8_graph.stat().st_size
        int8_checked = check(int8_graph)
        _warn_of(int8_checked)
    return OnnxReport(
        weights=weights_digest(folder.path),
        software={name: importlib.metadata.version(name) for name in ("torch", *PACKAGES)},
        sizes=sizes,
        check=checked,
        int8_check=int8_checked,
    )


def _decides_by_sign(folder: ModelFolder, model: Any) -> bool:
    """Whether each output is a logit of its own: replaced or not, a label that holds or not."""
    several = model.config.problem_type == "multi_label_classification"
    return folder.kind == "discriminator" or several


def _warn_of(check: GraphCheck) -> None:
    if check.agreement is not None and not check.agreement >= EXPECTED_AGREEMENT:
        warn(
            f"{INT8_GRAPH}: decides as PyTorch does in {check.agreement:.2%} of"
            f" {check.decisions:,} cases on {check.source}, expected"
            f" {EXPECTED_AGREEMENT:.0%}; compare both on your own data before you use it"
        )
