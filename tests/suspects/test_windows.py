"""Windows over long texts."""

from __future__ import annotations

import pytest

from electra_dist.suspects.windows import windows_over


@pytest.mark.parametrize("positions", [3, 4, 10, 96])
@pytest.mark.parametrize("count", [0, 1, 2, 7, 8, 9, 94, 95, 500])
def test_each_token_is_judged_once_in_a_window_that_fits(count: int, positions: int) -> None:
    windows = windows_over(count, positions)
    judged = [token for window in windows for token in range(window.first, window.last)]
    assert judged == list(range(count))
    for window in windows:
        assert window.end - window.start <= positions - 2
        assert window.start <= window.first
        assert window.last <= window.end


def test_a_token_of_a_long_text_has_text_on_both_sides() -> None:
    count = 1000
    for window in windows_over(count, 98):  # 96 tokens, of which 24 are shared
        for token in range(window.first, window.last):
            assert token - window.start >= min(token, 12)
            assert window.end - token >= min(count - token, 12)
