"""The two networks: embeddings, encoder, heads, attention backends and kernels.
Imports neither `data` nor `train`.
"""

__all__ = [
    "backends",
    "discriminator",
    "dropout",
    "encoder",
    "generator",
    "head",
    "inputs",
    "networks",
    "parameters",
    "sampling",
]
