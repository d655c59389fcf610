"""What training does with the held-out rows between two steps: validations, the choice of the best
one, samples for people, and the full evaluation that somebody above hands in.

Comes in: the engines, between two steps. Goes out: numbers for the row of the step, files in the
run directory, whether the run is to end early.
"""

__all__ = ["evaluator", "passages", "samples", "selection", "validation"]
