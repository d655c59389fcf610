"""Fine-tune exported discriminators with `transformers`: classification and extractive question answering."""
