"""A model's outputs by onnxruntime, out of the graphs that `electra-dist export --onnx` writes.

    FOLDER/onnx/model.onnx            fp32
    FOLDER/onnx/model_quantized.onnx  int8 weights

These are the names that transformers.js, optimum and text-embeddings-inference look for. Comes in:
features of examples, as a tokenizer gives them. Goes out: what the graph computes for each of them,
in their order.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from electra_dist.errors import UserError
from electra_dist.files.checksums import sha256_of
from electra_dist.files.reading import open_regular
from electra_dist.finetune.model_folder import MARKER, WEIGHTS, ModelFolder
from electra_dist.finetune.runners.runner import Features, Output, batches_by_length

ONNX_FOLDER = "onnx"
GRAPH = f"{ONNX_FOLDER}/model.onnx"
INT8_GRAPH = f"{ONNX_FOLDER}/model_quantized.onnx"
#: Inputs of every graph, each of batch times length int64.
INPUTS = ("input_ids", "attention_mask", "token_type_ids")
#: Names of the two axes that vary.
BATCH_AXIS = "batch"
LENGTH_AXIS = "length"
#: Examples at a time.
_BATCH = 32


@dataclass(frozen=True)
class Graph:
    """Which graph of a folder is run, and how.

    int8     the quantised one
    threads  of the CPU; None for one per core
    """

    int8: bool = False
    threads: int | None = None


class OnnxRunner:
    """Runs a graph on the CPU with `threads` threads (default: one per core)."""

    def __init__(self, graph: Path, pad_token_id: int, threads: int | None = None) -> None:
        """Raises `UserError` where onnxruntime is missing, or cannot load `graph`."""
        try:
            import onnxruntime
        except ImportError:
            raise UserError(
                "onnxruntime is not installed, and it runs ONNX models; install the extra: pip"
                " install 'electra-dist[onnx]'"
            ) from None
        if threads is not None and threads < 1:
            raise UserError(f"`threads` {threads}: expected 1 or more")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or len(os.sched_getaffinity(0))
        options.log_severity_level = 3  # errors; the library raises them too
        try:
            self._session = onnxruntime.InferenceSession(
                graph, options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # whatever the library meets in a file of anybody
            raise UserError(f"{graph}: onnxruntime cannot load it: {_first_line(error)}") from error
        inputs = tuple(one.name for one in self._session.get_inputs())
        if inputs != INPUTS:
            raise UserError(
                f"{graph}: takes {', '.join(inputs)}; expected {', '.join(INPUTS)}, as"
                " `electra-dist export --onnx` writes it"
            )
        self._along_length = [
            len(one.shape) > 1 and one.shape[1] == LENGTH_AXIS
            for one in self._session.get_outputs()
        ]
        self._pad = pad_token_id

    @classmethod
    def of_folder(cls, folder: ModelFolder, chosen: Graph, pad_token_id: int) -> OnnxRunner:
        """The graph of `folder`; raises `UserError` where there is none, or the weights beside it
        are others than those that it was made of.
        """
        name = GRAPH
        option = "--onnx"
        if chosen.int8:
            name = INT8_GRAPH
            option = "--onnx --int8"
        graph = folder.path / name
        if not graph.is_file():
            raise UserError(
                f"{folder.path}: has no {name}; write it with electra-dist export {folder.path}"
                f" {option}"
            )
        told = folder.marker.get("onnx")
        if not isinstance(told, dict) or told.get("weights") != weights_digest(folder.path):
            raise UserError(
                f"{graph}: was made of other weights than {WEIGHTS} beside it, or {MARKER} does not"
                f" say of which; write it again with electra-dist export {folder.path} {option}"
            )
        return cls(graph, pad_token_id, chosen.threads)

    def __call__(self, features: Features) -> list[Output]:
        """As in `Runner`."""
        found: list[Output] = [()] * len(features)
        for chosen in batches_by_length(features, _BATCH):
            outputs = self.run_batch([features[index] for index in chosen])
            for index, output in zip(chosen, outputs, strict=True):
                found[index] = output
        return found

    def run_batch(self, features: Features) -> list[Output]:
        """The outputs of one batch, padded to its longest example."""
        lengths = [len(one["input_ids"]) for one in features]
        arrays = self._session.run(None, _padded(features, lengths, self._pad))
        return [
            tuple(
                array[row, :length] if along_length else array[row]
                for array, along_length in zip(arrays, self._along_length, strict=True)
            )
            for row, length in enumerate(lengths)
        ]


def weights_digest(folder: Path) -> str:
    """SHA-256 of the weights in `folder`, by which a graph knows what it was made of."""
    with open_regular(folder / WEIGHTS, follow=True) as file:
        return sha256_of(file.fileno())


def _padded(features: Features, lengths: Sequence[int], pad: int) -> dict[str, NDArray[np.int64]]:
    """`INPUTS` of one batch; segments are 0 where an example has none."""
    shape = (len(features), max(lengths))
    ids = np.full(shape, pad, dtype=np.int64)
    mask = np.zeros(shape, dtype=np.int64)
    segments = np.zeros(shape, dtype=np.int64)
    for row, (example, length) in enumerate(zip(features, lengths, strict=True)):
        ids[row, :length] = example["input_ids"]
        mask[row, :length] = example.get("attention_mask", 1)
        segments[row, :length] = example.get("token_type_ids", 0)
    return {"input_ids": ids, "attention_mask": mask, "token_type_ids": segments}


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:500]
