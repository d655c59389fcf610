"""Fine-tuning of an exported discriminator with `transformers`,
and prediction with what comes of it.
"""

__all__ = [
    "cleaning",
    "labelled",
    "model_folder",
    "predict",
    "predictor",
    "recipe",
    "registry",
    "run",
    "runner",
    "training",
]
