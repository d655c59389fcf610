"""Writing the graphs: fp32 by the exporter of torch, int8 by the quantiser of onnxruntime.

Batch and length vary freely in both. The int8 graph keeps its weights, embeddings included, as
8-bit integers with a scale per output channel; its activations are quantised as it runs
(`quantize_dynamic`). Unsigned weights, because signed ones overflow on x86 processors without VNNI.
"""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from electra_dist.errors import UserError
from electra_dist.finetune.runners.onnx_runner import BATCH_AXIS, INPUTS, LENGTH_AXIS

#: Bytes of the largest graph that fits into one file (protobuf).
_LIMIT = 2**31 - 1
#: Libraries that print what nobody can act on while they work.
_TALKATIVE = ("torch.onnx", "onnxscript", "onnx_ir", "root")
#: What an export needs.
PACKAGES = ("onnx", "onnxruntime", "onnxscript")


def require_packages() -> None:
    """Raise `UserError` where a package of the extra `onnx` is missing."""
    import importlib.util

    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(
            f"{', '.join(missing)}: not installed, and ONNX needs it; install the extra: pip"
            " install 'electra-dist[onnx]'"
        )


def write_graph(model: Any, path: Path) -> None:
    """Write the fp32 graph of a model of `transformers`; raises `UserError` where it is too large
    for one file.
    """
    import torch

    size = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
    if size > _LIMIT:
        raise UserError(
            f"`onnx`: the weights have {size:,} bytes, and one ONNX file holds up to {_LIMIT:,}"
        )
    # a tensor of its own each: the exporter takes one tensor for one input
    example = {name: torch.ones((2, 8), dtype=torch.int64) for name in INPUTS}
    axes = {0: torch.export.Dim(BATCH_AXIS), 1: torch.export.Dim(LENGTH_AXIS)}
    with _quiet():
        outputs = model(**example)
        program = torch.onnx.export(
            model,
            (),
            kwargs=example,
            input_names=INPUTS,
            output_names=list(outputs.keys()),
            dynamic_shapes=dict.fromkeys(INPUTS, axes),
            dynamo=True,
            verbose=False,
        )
        assert program is not None
        program.save(path, external_data=False)


def write_int8_graph(graph: Path, path: Path) -> None:
    """Write the int8 form of the fp32 `graph`."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with _quiet():
        quantize_dynamic(
            graph,
            path,
            per_channel=True,
            weight_type=QuantType.QUInt8,
            extra_options={"MatMulConstBOnly": True},
        )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Nothing but errors of the libraries that write graphs."""
    loggers = [logging.getLogger(name) for name in _TALKATIVE]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
