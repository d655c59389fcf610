"""Exporting one network of a run as a Hugging Face model: consolidated, checked, whole or absent;
ONNX graphs of such a folder.

Comes in: a run directory, or a folder that `transformers` loads. Goes out: a folder that
`transformers` and, with graphs, onnxruntime load, with its model card.
"""

__all__ = ["folder", "push", "report", "run"]
