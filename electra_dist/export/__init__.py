"""Exporting one network of a run as a Hugging Face model: consolidated, checked, whole or absent.

Comes in: a run directory. Goes out: a folder that `transformers` loads, with its model card.
"""

__all__ = ["report", "run"]
