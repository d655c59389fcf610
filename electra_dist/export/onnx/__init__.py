"""ONNX graphs of a model folder: written by torch, quantised and run by onnxruntime, checked.

Comes in: a folder that `transformers` loads. Goes out: the folder `onnx` in it, and what its
outputs were compared with.
"""

__all__ = ["add", "graph", "report", "texts"]
