"""Held-out passages to read: what was masked, what the generator put there, what the discriminator
made of it.

Comes in: rows with the answers of both networks, the run's tokenizer. Goes out: `ShownPassage`s,
those with the worst and with a typical discriminator loss, as pieces of text that the command line
marks up.

Letters: B rows, L row length.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import tokenizers

from electra_dist.batch import PADDING_DOCUMENT, MicroBatch
from electra_dist.errors import UserError
from electra_dist.evaluate.scores import sigmoid
from electra_dist.files.tokenizers import TOKENIZER_FILE, read_tokenizer_file
from electra_dist.runs.directory import RunDir

#: Tokens of a passage at most; longer documents are cut into passages.
PASSAGE_TOKENS = 64
#: A passage needs this many tokens to be worth reading.
_SHORTEST = 16


@dataclass(frozen=True)
class Piece:
    """One token as text, spaces included;
    `proposed` is what the generator put in its place where it was masked.
    """

    text: str
    proposed: str | None
    replaced: bool
    probability: float


@dataclass(frozen=True)
class ShownPassage:
    """One passage; `loss` is the discriminator's mean over its tokens (nats)."""

    kind: Literal["worst", "typical"]
    loss: float
    pieces: tuple[Piece, ...]


@dataclass(frozen=True)
class Passage:
    """Tokens of one document in a row, with the answers:
    `tokens` original ids, `corrupted` those that were judged.
    """

    before: int
    tokens: npt.NDArray[np.int64]
    corrupted: npt.NDArray[np.int64]
    masked: npt.NDArray[np.bool_]
    logits: npt.NDArray[np.float64]

    @property
    def loss(self) -> float:
        """The discriminator's mean loss."""
        replaced = self.tokens != self.corrupted
        return float((np.logaddexp(0, self.logits) - self.logits * replaced).mean())


def passages_of(
    batch: MicroBatch, corrupted: npt.NDArray[np.int64], logits: npt.NDArray[np.float32]
) -> list[Passage]:
    """The passages of a micro-batch that have a masked token; [CLS] and [SEP] are left out."""
    masked = np.zeros((len(batch.tokens), batch.tokens.shape[1] + 1), bool)
    columns = np.where(batch.masked_weights > 0, batch.masked_positions, batch.tokens.shape[1])
    masked[np.arange(len(masked))[:, None], columns] = True
    found = []
    for row, documents in enumerate(batch.documents):
        edges = np.flatnonzero(np.diff(documents, prepend=-2, append=-2))
        for start, stop in pairwise(edges.tolist()):
            if documents[start] == PADDING_DOCUMENT:
                continue
            for first in range(start + 1, stop - 1, PASSAGE_TOKENS):
                at = slice(first, min(first + PASSAGE_TOKENS, stop - 1))
                if at.stop - first >= _SHORTEST and masked[row, at].any():
                    found.append(
                        Passage(
                            before=int(batch.tokens[row, first - 1]),
                            tokens=batch.tokens[row, at].astype(np.int64),
                            corrupted=corrupted[row, at],
                            masked=masked[row, at],
                            logits=logits[row, at].astype(np.float64),
                        )
                    )
    return found


def choose(found: list[Passage], count: int, run: RunDir) -> tuple[ShownPassage, ...]:
    """`count` passages: the worst ones, and as many around the median
    loss (one less where `count` is odd).
    """
    tokenizer = _tokenizer(run)
    ordered = sorted(found, key=lambda passage: -passage.loss)
    worst = ordered[: (count + 1) // 2]
    others = ordered[len(worst) :]
    typical = others[max(0, (len(others) - count // 2) // 2) :][: count // 2]
    kinds: tuple[tuple[Literal["worst", "typical"], list[Passage]], ...] = (
        ("worst", worst),
        ("typical", typical),
    )
    return tuple(
        ShownPassage(kind, p.loss, _pieces(p, tokenizer)) for kind, chosen in kinds for p in chosen
    )


def _tokenizer(run: RunDir) -> Any:
    file = run.tokenizer / TOKENIZER_FILE
    try:
        return tokenizers.Tokenizer.from_buffer(read_tokenizer_file(file))
    except UserError:
        raise
    except Exception as error:  # the library raises bare Exception
        raise UserError(f"{file}: cannot be read as a tokenizer: {error}") from error


def _pieces(passage: Passage, tokenizer: Any) -> tuple[Piece, ...]:
    probability = sigmoid(passage.logits)
    before = [passage.before, *passage.tokens[:-1].tolist()]
    return tuple(
        Piece(
            text=_text(tokenizer, before[i], int(token)),
            proposed=_text(tokenizer, before[i], int(passage.corrupted[i]))
            if passage.masked[i]
            else None,
            replaced=bool(token != passage.corrupted[i]),
            probability=float(probability[i]),
        )
        for i, token in enumerate(passage.tokens)
    )


def _text(tokenizer: Any, before: int, token: int) -> str:
    """`token` as it reads after the token `before`, its space included."""
    alone = tokenizer.decode([before], skip_special_tokens=False)
    both = tokenizer.decode([before, token], skip_special_tokens=False)
    return str(both[len(alone) :] if both.startswith(alone) else tokenizer.id_to_token(token))
