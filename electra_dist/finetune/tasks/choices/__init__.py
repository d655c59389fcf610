"""Multiple choice: a text gets the one of its choices that fits; their number may differ."""

__all__ = ["learner", "predictor", "reading"]
