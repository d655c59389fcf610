"""The two networks: embeddings, encoder, heads, attention backends and kernels. Imports neither `data` nor `train`."""
