"""Held-out passages to read: what was masked, what the generator put there, what the discriminator
made of it.

Comes in: passages with the answers of both networks, their tokenizer. Goes out:
`ShownPassage`s, those with the worst and with a typical discriminator loss, as pieces of text that
the command line marks up.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from electra_dist.train.heldout.passages import Passage, open_tokenizer, token_text


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


def choose(found: list[Passage], count: int, tokenizer_folder: Path) -> tuple[ShownPassage, ...]:
    """`count` passages: the worst ones, and as many around the median
    loss (one less where `count` is odd).
    """
    tokenizer = open_tokenizer(tokenizer_folder)
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


def _pieces(passage: Passage, tokenizer: Any) -> tuple[Piece, ...]:
    probability = passage.probability_of_replaced
    before = [passage.before, *passage.tokens[:-1].tolist()]
    return tuple(
        Piece(
            text=token_text(tokenizer, before[i], int(token)),
            proposed=token_text(tokenizer, before[i], int(passage.corrupted[i]))
            if passage.masked[i]
            else None,
            replaced=bool(token != passage.corrupted[i]),
            probability=float(probability[i]),
        )
        for i, token in enumerate(passage.tokens)
    )
