"""Averages of the weights of several seeds: a soup (arXiv 2203.05482).

Comes in: files of weights of one network. Goes out: their mean. The greedy soup begins with the
best seed, and takes in another one, the better first, where the held-out score does not fall.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import torch
from safetensors.torch import load_file

Seed = TypeVar("Seed")
State = dict[str, torch.Tensor]


def mean_of(files: Sequence[Path]) -> State:
    """The mean of each tensor, added up in float64; integers are those of the first file."""
    states = [load_file(path) for path in files]
    mean: State = {}
    for name, first in states[0].items():
        if first.is_floating_point():
            total = sum((state[name].double() for state in states), torch.zeros(()).double())
            mean[name] = (total / len(states)).to(first.dtype)
        else:
            mean[name] = first
    return mean


def greedy(seeds: Sequence[Seed], merit: Callable[[Sequence[Seed]], float]) -> list[Seed]:
    """The seeds of the greedy soup; `seeds` come with the best first, `merit` is that of the soup
    of several (section 2, recipe 1).
    """
    chosen = [seeds[0]]
    reached = merit(chosen)
    for seed in seeds[1:]:
        value = merit([*chosen, seed])
        if value >= reached:
            chosen.append(seed)
            reached = value
    return chosen
