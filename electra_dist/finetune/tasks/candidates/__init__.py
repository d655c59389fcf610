"""A text with a list of candidates, each of which is one row of the model: what multiple choice and
ranking have in common.

1. `encoding`: texts and candidates in, rows `[CLS] text [SEP] candidate [SEP]` out.
2. `listwise`: a batch of such lists, and the loss that sets one candidate of each above the others.
3. `overlap`: an order that needs no model.
4. `columns`: the columns that a model was trained on.
"""

__all__ = ["columns", "encoding", "listwise", "overlap"]
