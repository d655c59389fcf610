"""Passages of held-out rows with what both networks made of them, and their tokens as text.

Comes in: micro-batches with the answers of both networks, the run's tokenizer. Goes out: `Passage`s
of ids and numbers, text. Samples of training and `electra-dist evaluate --passages` share it.

Letters: B rows, L row length, P masked slots of a row, N tokens of a passage.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from electra_dist.batch import PADDING_DOCUMENT, MicroBatch
from electra_dist.errors import UserError
from electra_dist.files.tokenizers import TOKENIZER_FILE, read_tokenizer_file
from electra_dist.train.step import Forwarded

#: Tokens of a passage at most; longer documents are cut into passages.
PASSAGE_TOKENS = 64
#: A passage needs this many tokens to be worth reading.
_SHORTEST = 16


class Answers(NamedTuple):
    """What both networks said of a micro-batch.

    corrupted      (B, L) ids that the discriminator read
    logits         (B, L) of it; above 0 means "replaced"
    probabilities  (B, P) of the token that the generator put into each slot
    """

    corrupted: npt.NDArray[np.int64]
    logits: npt.NDArray[np.float32]
    probabilities: npt.NDArray[np.float32]


def answers_of(forwarded: Forwarded) -> Answers:
    """On the host; the generator has given a `Look`."""
    batch, generated, judged = forwarded
    assert generated.look is not None, "the generator was not asked to look"
    probabilities_bp = generated.look.probability_m.view_as(batch.masked_positions)
    return Answers(
        generated.corrupted.cpu().numpy(),
        judged.logits.float().cpu().numpy(),
        probabilities_bp.float().cpu().numpy(),
    )


@dataclass(frozen=True)
class Passage:
    """Tokens of one document in a row, with the answers; every array is (N,).

    before         id of the token before them
    tokens         original ids
    corrupted      those that were judged
    masked         where the generator filled in
    logits         of the discriminator
    probabilities  of the generator, of what it filled in; 0 elsewhere
    """

    before: int
    tokens: npt.NDArray[np.int64]
    corrupted: npt.NDArray[np.int64]
    masked: npt.NDArray[np.bool_]
    logits: npt.NDArray[np.float64]
    probabilities: npt.NDArray[np.float64]

    @property
    def loss(self) -> float:
        """The discriminator's mean loss."""
        replaced = self.tokens != self.corrupted
        return float((np.logaddexp(0, self.logits) - self.logits * replaced).mean())

    @property
    def probability_of_replaced(self) -> npt.NDArray[np.float64]:
        """The discriminator's, of each token."""
        out: npt.NDArray[np.float64] = np.exp(-np.logaddexp(0, -self.logits))
        return out

    def to_json(self) -> dict[str, Any]:
        """For another rank; `from_json` reads the same back."""
        return {
            name: value.tolist() if isinstance(value, np.ndarray) else value
            for name, value in vars(self).items()
        }

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Passage:
        """The inverse of `to_json`."""
        return cls(
            before=int(content["before"]),
            tokens=np.array(content["tokens"], np.int64),
            corrupted=np.array(content["corrupted"], np.int64),
            masked=np.array(content["masked"], np.bool_),
            logits=np.array(content["logits"], np.float64),
            probabilities=np.array(content["probabilities"], np.float64),
        )


class Place(NamedTuple):
    """Where a passage lies: the columns from `start` to `stop` of a row."""

    row: int
    start: int
    stop: int


def places_in(batch: MicroBatch) -> Iterator[Place]:
    """The passages of a micro-batch that have a masked token; [CLS] and [SEP] are left out."""
    masked = at_slots(batch, batch.masked_weights > 0)
    for row, documents in enumerate(batch.documents):
        edges = np.flatnonzero(np.diff(documents, prepend=-2, append=-2))
        for start, stop in pairwise(edges.tolist()):
            if documents[start] == PADDING_DOCUMENT:
                continue
            for first in range(start + 1, stop - 1, PASSAGE_TOKENS):
                end = min(first + PASSAGE_TOKENS, stop - 1)
                if end - first >= _SHORTEST and masked[row, first:end].any():
                    yield Place(row, first, end)


def passage_at(place: Place, batch: MicroBatch, answers: Answers) -> Passage:
    """The passage there."""
    row = place.row
    columns = slice(place.start, place.stop)
    masked = at_slots(batch, batch.masked_weights > 0)
    probabilities = at_slots(batch, answers.probabilities)
    return Passage(
        before=int(batch.tokens[row, place.start - 1]),
        tokens=batch.tokens[row, columns].astype(np.int64),
        corrupted=answers.corrupted[row, columns],
        masked=masked[row, columns],
        logits=answers.logits[row, columns].astype(np.float64),
        probabilities=probabilities[row, columns].astype(np.float64),
    )


def passages_of(batch: MicroBatch, answers: Answers) -> list[Passage]:
    """All passages of a micro-batch."""
    return [passage_at(place, batch, answers) for place in places_in(batch)]


def at_slots(batch: MicroBatch, values_bp: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """(B, L): the values of the used slots at their positions, 0 elsewhere."""
    rows, length = batch.tokens.shape
    # unused slots write into a column that is cut off again
    wider = np.zeros((rows, length + 1), values_bp.dtype)
    columns = np.where(batch.masked_weights > 0, batch.masked_positions, length)
    wider[np.arange(rows)[:, None], columns] = values_bp
    return wider[:, :length]


# --- text -----------------------------------------------------------------------------------------


def open_tokenizer(folder: Path) -> Any:
    """The tokenizer of a folder; raises `UserError` where it cannot be read."""
    import tokenizers

    file = folder / TOKENIZER_FILE
    try:
        return tokenizers.Tokenizer.from_buffer(read_tokenizer_file(file))
    except (UserError, OSError):
        raise
    except Exception as error:  # the library raises bare Exception
        raise UserError(f"{file}: cannot be read as a tokenizer: {error}") from error


def token_text(tokenizer: Any, before: int, token: int) -> str:
    """`token` as it reads after the token `before`, its space included."""
    alone = tokenizer.decode([before], skip_special_tokens=False)
    both = tokenizer.decode([before, token], skip_special_tokens=False)
    if both.startswith(alone):
        return str(both[len(alone) :])
    return str(tokenizer.id_to_token(token))
