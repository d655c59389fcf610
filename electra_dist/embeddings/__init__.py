"""Vectors of many texts with any ELECTRA folder, from the layer that serves best.

1. `layers.choose_layer`: pairs of texts in; scores of every layer out, and the best one. The last
   layer of a discriminator is made for finding replaced tokens, and its vectors are poor
   (arXiv 2402.13130).
2. `run.embed`: texts from a file or a stream in; a file of vectors out, or a folder that
   `sentence-transformers` loads.

Contrastive tuning is the task `embeddings` of `electra_dist.finetune`.
"""

__all__ = ["layers", "run", "vector_files"]
