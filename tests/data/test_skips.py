"""Which steps of data are passed over."""

from __future__ import annotations

import itertools
import random

import pytest

from electra_dist.data.skips import Skips


@pytest.mark.parametrize("seed", range(20))
def test_intervals_mean_what_a_set_of_numbers_means(seed):
    draw = random.Random(seed)
    firsts = [draw.randrange(40) for _ in range(draw.randint(0, 6))]
    intervals = [(first, first + draw.randint(1, 6)) for first in firsts]
    wanted = {number for first, stop in intervals for number in range(first, stop)}
    skips = Skips(intervals)
    assert {number for number in range(60) if number in skips} == wanted
    for start in range(60):
        assert skips.next_kept(start) == next(
            number for number in range(start, 99) if number not in wanted
        )
    assert all(one[1] < other[0] for one, other in itertools.pairwise(skips.intervals))
