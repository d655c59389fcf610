"""Ranking: the candidates of a query in their order, the most relevant first.

1. `queries.read_queries`: JSON lines, or a folder in MIND's format (`mind`), in; `Queries` out.
2. `learner`: each relevant candidate against others of its query.
3. `ranking_scores`: nDCG, MRR and AUC by query.
"""

__all__ = ["learner", "mind", "predictor", "queries", "ranking_scores"]
