"""Words that do not belong: the discriminator as a detector, the generator's suggestions, labels
without training.

Comes in: exported networks and texts. Goes out: words with probabilities and suggestions, for
programs, for a terminal and as a page; or labels by prompts. Needs PyTorch and `transformers`.

`finding` is the way in. `words` and `windows` say what is judged, `detector` and `suggester` run
the networks, `shown` and `page` show the `findings`, `prompts` gives labels, `predictors` are what
the command line and a server ask.
"""

__all__ = ["detector", "finding", "findings", "predictors", "prompts", "shown", "suggester"]
