"""Fine-tuning of an exported discriminator with `transformers`,
and prediction with what comes of it.
"""

__all__ = [
    "cleaning",
    "labelled",
    "model_folder",
    "onnx_runner",
    "own_files",
    "predict",
    "predictor",
    "recipe",
    "registry",
    "report",
    "run",
    "runner",
    "training",
]
