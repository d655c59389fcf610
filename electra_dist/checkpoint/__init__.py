"""The weights of a checkpoint: saved in the background, loaded on any world size, read as plain
tensors.

Comes in: the engines of a run, or the folder of a checkpoint. Goes out: a folder that is whole or
absent, or weights. What a checkpoint holds besides its weights is read without torch:
`electra_dist.runs.checkpoints`.
"""

__all__ = ["loading", "networks", "saving", "tensors"]
