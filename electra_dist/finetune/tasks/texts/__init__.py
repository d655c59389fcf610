"""A text, or a pair of texts, gets one class or one number."""

__all__ = ["labels", "learner", "predictor"]
