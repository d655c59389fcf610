"""A text, or a pair of texts, gets any number of labels, or none."""

__all__ = ["labels", "learner", "predictor"]
