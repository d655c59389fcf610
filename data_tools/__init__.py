"""Raw text to tokenizer to shards; knows no torch."""
