"""What runs a model without gradients: PyTorch, or onnxruntime with a graph of it."""

__all__ = ["onnx_runner", "runner"]
