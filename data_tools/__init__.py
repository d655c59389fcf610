"""Raw text to tokenizer to shards; knows no torch."""

__all__ = ["build", "checksums", "corpus", "inspect", "sources", "tokenizer"]
