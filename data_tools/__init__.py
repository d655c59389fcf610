"""Raw text to tokenizer to shards; knows no torch."""

__all__ = ["build", "corpus", "inspect", "sources", "tokenizer", "upgrade", "verify"]
