"""An order of candidates that needs no model: how many words of the text each of them has."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_WORD = re.compile(r"\w+")


def word_overlap(text: str, candidates: Sequence[str]) -> NDArray[np.float32]:
    """For each candidate (C,), how many of the different words of the text it has."""
    wanted = _words(text)
    return np.array([len(wanted & _words(one)) for one in candidates], dtype=np.float32)


def _words(text: str) -> set[str]:
    return set(_WORD.findall(text.lower()))
