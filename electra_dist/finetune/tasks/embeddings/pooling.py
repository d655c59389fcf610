"""How the hidden states of a text become its vector.

Letters: B texts, L tokens, H hidden.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from electra_dist.errors import UserError
from electra_dist.finetune.model_folder import MARKER, ModelFolder

PoolMode = Literal["mean", "cls"]
POOL_MODES: tuple[PoolMode, ...] = get_args(PoolMode)


@dataclass(frozen=True)
class Pooling:
    """`pool` is the mean over all tokens but padding ([CLS] and [SEP] count, as in
    `sentence-transformers`), or the state of the first token; `normalize` gives it length 1.
    """

    pool: PoolMode = "mean"
    normalize: bool = False

    def to_dict(self) -> dict[str, Any]:
        """As a marker keeps it."""
        return asdict(self)

    def of_states(self, states_lh: NDArray[np.float32]) -> NDArray[np.float32]:
        """The vector (H,) of one text without padding."""
        vector: NDArray[np.float32]
        if self.pool == "mean":
            vector = states_lh.mean(axis=0)
        else:
            vector = states_lh[0]
        if self.normalize:
            return unit(vector)
        return vector


def unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """The same with length 1 along the last axis; zero stays zero."""
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    scaled: NDArray[np.float32] = vectors / np.maximum(lengths, 1e-12)
    return scaled


def pooling_of(folder: ModelFolder) -> Pooling:
    """As the marker of a model for embeddings says; raises `UserError` where it does not."""
    pool = folder.fact("pool")
    normalize = folder.fact("normalize")
    if pool not in POOL_MODES:
        raise UserError(
            f"{folder.path / MARKER}: pool is {pool!r}; expected one of {', '.join(POOL_MODES)}"
        )
    if not isinstance(normalize, bool):
        raise UserError(
            f"{folder.path / MARKER}: normalize is {normalize!r}; expected true or false"
        )
    return Pooling(pool, normalize)
