"""How much of a corpus a tokenizer has no piece for: spelt in bytes, or unknown."""

from __future__ import annotations

from dataclasses import dataclass

#: Above these shares of the tokens, the tokenizer was made for other text.
MOST_BYTES = 0.1
MOST_UNKNOWN = 0.01


@dataclass(frozen=True)
class Shares:
    """Counts over some encoded text; they add up over batches and parts.

    tokens   ids in all, without [CLS] and [SEP]
    bytes    ids that stand for one byte of a character that has no piece of its own
    unknown  ids that are [UNK]
    """

    tokens: int = 0
    bytes: int = 0
    unknown: int = 0

    def __add__(self, other: Shares) -> Shares:
        return Shares(
            self.tokens + other.tokens, self.bytes + other.bytes, self.unknown + other.unknown
        )

    @property
    def byte_share(self) -> float:
        """Fraction of the tokens that are bytes; 0 of nothing."""
        return self.bytes / max(1, self.tokens)

    @property
    def unknown_share(self) -> float:
        """Fraction of the tokens that are [UNK]; 0 of nothing."""
        return self.unknown / max(1, self.tokens)

    def warning(self) -> str | None:
        """One sentence where the tokenizer does not fit the text, else None."""
        if self.unknown_share > MOST_UNKNOWN:
            return (
                f"{self.unknown_share:.1%} of the tokens are unknown to the tokenizer: nothing can"
                " be learnt about them; take a larger vocabulary, or a tokenizer of this text"
            )
        if self.byte_share > MOST_BYTES:
            return (
                f"{self.byte_share:.1%} of the tokens are single bytes: the tokenizer was made for"
                " other text; train one on this text with `electra-dist data tokenizer`"
            )
        return None
