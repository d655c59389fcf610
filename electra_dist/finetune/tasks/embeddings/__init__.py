"""Vectors of texts: texts of one meaning are to lie close together, measured by the cosine.

1. `pairs.read_pairs`: a file of pairs in; `PairSet` out, each text numbered once. What a file
   holds decides what is learnt from it: pairs that belong together, with or without texts that do
   not (triples), or pairs with a score.
2. `encoder.SentenceEncoder`: the hidden states of an encoder pooled to one vector per text, and
   its loss over a batch of pairs.
3. `scores.pair_scores`: the vectors of the texts in; Spearman's correlation, or how high the right
   texts rank, out.
4. `sentence_folder`: what `sentence-transformers` needs to load the folder.
"""

__all__ = [
    "encoder",
    "features",
    "learner",
    "pairs",
    "pooling",
    "predictor",
    "scores",
    "sentence_folder",
]
