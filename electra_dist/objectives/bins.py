"""The bins of the histogram of the discriminator's logits (`detection.py`)."""

from __future__ import annotations

BINS = 8192
#: They are over [-LOGIT_RANGE, LOGIT_RANGE); an edge lies exactly at 0, the decision threshold.
LOGIT_RANGE = 16.0
