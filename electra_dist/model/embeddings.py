"""Word, position and token-type embeddings with their LayerNorm.

Comes in: token ids and positions (B, L). Goes out: (B, L, E) activations after LayerNorm, or the
bare sum before it, which is what `disentangled` exchanges. Dropout is the business of the network
that reads them.

As in the original ELECTRA, [PAD] has an ordinary row: attention and losses never look at padding.
"""

from __future__ import annotations

from torch import Tensor, nn

from electra_dist.config import ModelConfig

#: As published; pre-training uses type 0 only, fine-tuning on pairs uses both.
TOKEN_TYPES = 2


class Embeddings(nn.Module):
    """The three tables and the LayerNorm.

    With `deltas` in `disentangled` the tables hold differences to another network's tables, and the
    caller adds that network's sum before `norm`.
    """

    compiled_parts = ("forward", "sum")

    def __init__(self, config: ModelConfig, vocab_size: int) -> None:
        super().__init__()
        self.word = nn.Embedding(vocab_size, config.embedding_size)
        self.position = nn.Embedding(config.max_positions, config.embedding_size)
        self.token_type = nn.Embedding(TOKEN_TYPES, config.embedding_size)
        self.norm = nn.LayerNorm(config.embedding_size, eps=config.layer_norm_epsilon)

    def sum(self, tokens_bl: Tensor, positions_bl: Tensor) -> Tensor:
        """Word + token type 0 + position, before LayerNorm: (B, L, E)."""
        # (1, E); through the module, where ZeRO-3 gathers it
        first_type = self.token_type(tokens_bl.new_zeros(1))
        out: Tensor = self.word(tokens_bl) + first_type + self.position(positions_bl)
        return out

    def forward(self, tokens_bl: Tensor, positions_bl: Tensor) -> Tensor:
        """Activations after LayerNorm: (B, L, E)."""
        out: Tensor = self.norm(self.sum(tokens_bl, positions_bl))
        return out
