"""Fine-tuning of an exported discriminator with `transformers`,
and prediction with what comes of it.
"""

__all__ = [
    "cleaning",
    "labelled",
    "model_folder",
    "own_files",
    "predict",
    "predictor",
    "recipe",
    "registry",
    "report",
    "run",
    "runners",
    "training",
]
