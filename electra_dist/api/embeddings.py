"""Vectors of texts, from the layer of an encoder that serves best."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from electra_dist.api.common import DeviceName, as_path, output
from electra_dist.errors import UserError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from electra_dist.embeddings.layers import LayerChoice


@dataclass(frozen=True)
class Embeddings:
    """Vectors of texts.

    vectors  (texts, hidden size), in the order of the texts
    layer    that they are of; 0 are the embeddings
    choice   the scores of every layer, where it was chosen on pairs
    """

    vectors: NDArray[np.float32]
    layer: int
    choice: LayerChoice | None


def embed_texts(
    model: str | Path,
    texts: Sequence[str],
    *,
    pairs: str | Path | None = None,
    layer: int | Literal["best"] | None = None,
    pool: Literal["mean", "cls"] | None = None,
    normalize: bool | None = None,
    max_length: int | None = None,
    device: DeviceName | None = None,
    verbose: bool = False,
) -> Embeddings:
    """One vector per text. For more texts than fit into memory there is `electra-dist embed`.

    Args:
        model: the folder of an exported network or of a fine-tuned model.
        texts: what to embed.
        pairs: a file of pairs of texts, on which the layer is chosen.
        layer: by default the best one with `pairs`, and the last one without.
        pool: the mean over the tokens, or the first token; by default that of the model, the mean.
        normalize: give the vectors length 1; by default as the model says, and else not.
        max_length: tokens of a text, the rest is cut off; by default that of the model.
        device: by default CUDA where there is one.
        verbose: print the lines of the command `electra-dist embed`.

    Returns:
        The vectors, and the layer that they are of.

    Raises:
        DataError: a file that cannot be read as pairs.
        UserError: a folder that holds no model, or an argument that cannot be.

    Examples:
        >>> electra_dist.embed_texts("exported", ["The cat sat."], pairs="dev.tsv").vectors.shape
    """
    from electra_dist.embeddings.run import Settings, embed_list

    if isinstance(texts, str):
        raise UserError("`texts`: expected a list of texts, found one text")
    if not texts:
        raise UserError("`texts`: expected one or more")
    settings = Settings(
        model=Path(model),
        pairs=as_path(pairs),
        layer=layer,
        pool=pool,
        normalize=normalize,
        max_length=max_length,
        device=device,
    )
    with output(verbose):
        report, vectors = embed_list(settings, list(texts))
    return Embeddings(vectors, report.layer, report.choice)
