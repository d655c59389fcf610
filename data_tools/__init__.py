"""Raw text to tokenizer to shards; knows no torch."""

__all__ = [
    "build",
    "cleaning",
    "corpus",
    "filters",
    "inspect",
    "sources",
    "tokenizer",
    "upgrade",
    "verify",
]
