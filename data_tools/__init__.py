"""Raw text to tokenizer to shards; knows no torch."""

__all__ = ["build", "checksums", "cleaning", "corpus", "filters", "inspect", "tokenizer"]
