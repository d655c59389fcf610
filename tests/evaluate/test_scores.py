"""The scores of `evaluate` are what counting gives:
loops over tokens and pairs, on made-up answers with many ties.
"""

from __future__ import annotations

import numpy as np
import pytest

from electra_dist.batch import SPECIAL_TOKENS, SpecialTokens
from electra_dist.evaluate import scores, uncertainty
from electra_dist.evaluate.heldout import Observed


def random_observed(seed: int, count: int = 400) -> tuple[Observed, np.ndarray]:
    """Made-up answers with many ties, and token counts of a vocabulary of 200."""
    rng = np.random.default_rng(seed)
    counts = rng.integers(0, 40, 200)
    counts[150:] = 0
    replaced = rng.random(count) < 0.3
    shown = rng.integers(5, 200, count).astype(np.int32)
    shown[:20] = SPECIAL_TOKENS.cls
    targets = rng.integers(5, 200, count // 2).astype(np.int32)
    return Observed(
        masked_rows=np.sort(rng.integers(0, 50, count // 2)).astype(np.int32),
        targets=targets,
        nll=rng.exponential(5, count // 2).astype(np.float32),
        rank=rng.integers(0, 9, count // 2).astype(np.int32),
        samples=np.where(
            rng.random(count // 2) < 0.2, targets, rng.integers(5, 200, count // 2)
        ).astype(np.int32),
        sample_probability=(10.0 ** -rng.uniform(0, 6, count // 2)).astype(np.float32),
        masked_logits=rng.normal(0, 2, count // 2).astype(np.float32),
        token_rows=np.sort(np.append(rng.integers(0, 50, count - 1), 49)).astype(np.int32),
        shown=shown,
        logits=np.round(rng.normal(-1, 2, count) + replaced, 1).astype(np.float32),
        replaced=replaced,
    ), counts


def pairwise_auc(logits: np.ndarray, replaced: np.ndarray) -> float | None:
    """Wins of replaced over original tokens, pair by pair."""
    pairs = [(a > b) + (a == b) / 2 for a in logits[replaced] for b in logits[~replaced]]
    return sum(pairs) / len(pairs) if pairs else None


def test_detection_scores_by_counting() -> None:
    seen, _ = random_observed(1)
    probability, replaced = 1 / (1 + np.exp(-seen.logits.astype(np.float64))), seen.replaced
    called = probability >= 0.5
    found = scores.discriminator_scores(seen)
    hits, called_count, replaced_count = (
        int(x.sum()) for x in (called & replaced, called, replaced)
    )
    precision, recall = hits / called_count, hits / replaced_count
    assert found.auc == pytest.approx(pairwise_auc(seen.logits, replaced))
    assert (found.precision, found.recall) == (pytest.approx(precision), pytest.approx(recall))
    assert found.f1 == pytest.approx(2 * precision * recall / (precision + recall))
    assert found.accuracy == pytest.approx(
        sum(c == r for c, r in zip(called, replaced, strict=True)) / len(called)
    )
    assert found.always_original_accuracy == pytest.approx(1 - replaced_count / len(called))
    assert found.brier == pytest.approx(
        np.mean([(p - r) ** 2 for p, r in zip(probability, replaced, strict=True)])
    )
    losses = [-np.log(p if r else 1 - p) for p, r in zip(probability, replaced, strict=True)]
    assert found.loss == pytest.approx(np.mean(losses))
    average, reached = 0.0, 0.0
    for threshold in sorted(set(seen.logits.tolist()), reverse=True):
        above = seen.logits >= threshold
        now = (above & replaced).sum() / replaced_count
        average += (now - reached) * (above & replaced).sum() / above.sum()
        reached = now
    assert found.average_precision == pytest.approx(average)


def test_calibration_by_counting() -> None:
    seen, _ = random_observed(2)
    bins = scores.calibration(seen)
    probability = [1 / (1 + np.exp(-float(logit))) for logit in seen.logits]
    error = 0.0
    for b in bins:
        inside = [i for i, p in enumerate(probability) if b.low <= p < b.high]
        assert b.tokens == len(inside)
        assert b.replaced == sum(bool(seen.replaced[i]) for i in inside)
        if inside:
            gap = np.mean([probability[i] for i in inside]) - np.mean(
                [seen.replaced[i] for i in inside]
            )
            error += abs(gap) * len(inside) / len(probability)
    assert sum(b.tokens for b in bins) == len(probability)
    assert scores.calibration_error(bins) == pytest.approx(error)


def test_the_roc_curve_ends_in_its_corners_and_holds_the_auc() -> None:
    seen, _ = random_observed(3)
    false, true = np.array(scores.roc(seen)).T
    assert (false[0], false[-1], true[-1]) == (0, 1, 1)
    area = float(((true[1:] + true[:-1]) / 2 * np.diff(false)).sum())
    assert area == pytest.approx(pairwise_auc(seen.logits, seen.replaced), abs=0.01)


def test_bands_are_decades_of_the_frequency_rank() -> None:
    seen, counts = random_observed(4)
    found = {band.name: band for band in scores.bands(seen, counts, SPECIAL_TOKENS)}
    special = {SPECIAL_TOKENS.pad, SPECIAL_TOKENS.cls, SPECIAL_TOKENS.sep, SPECIAL_TOKENS.mask}
    ranked = [
        i
        for _, i in sorted(
            (-int(count), i) for i, count in enumerate(counts) if count and i not in special
        )
    ]
    assert list(found) == ["1-10", "11-100", f"101-{len(ranked)}", "unseen"]
    members = [
        set(ranked[:10]),
        set(ranked[10:100]),
        set(ranked[100:]),
        set(range(200)) - set(ranked) - special,
    ]
    for band, ids in zip(found.values(), members, strict=True):
        masked = [i for i, token in enumerate(seen.targets) if int(token) in ids]
        shown = np.array([int(token) in ids for token in seen.shown])
        assert (band.masked_tokens, band.shown_tokens) == (len(masked), int(shown.sum()))
        assert band.loss == pytest.approx(np.mean([float(seen.nll[i]) for i in masked]))
        assert band.unigram_loss == (
            None
            if band.name == "unseen"
            else pytest.approx(
                np.mean([-np.log(counts[seen.targets[i]] / counts.sum()) for i in masked])
            )
        )
        assert band.accuracy == pytest.approx(np.mean([seen.rank[i] == 0 for i in masked]))
        assert band.top5_accuracy == pytest.approx(
            np.mean([seen.rank[i] in range(5) for i in masked])
        )
        assert band.auc == pytest.approx(pairwise_auc(seen.logits[shown], seen.replaced[shown]))
        assert band.recall == pytest.approx(np.mean(seen.logits[shown & seen.replaced] >= 0))


@pytest.mark.parametrize("seen_ids", [1, 10, 11, 100, 101, 195])
def test_every_seen_token_has_one_band(seen_ids: int) -> None:
    counts = np.zeros(200, np.int64)
    counts[5 : 5 + seen_ids] = np.arange(seen_ids, 0, -1)
    band_of, edges = scores.frequency_bands(counts, SPECIAL_TOKENS)
    assert [first for first, _ in edges] == [1, *(stop + 1 for _, stop in edges[:-1])]
    assert edges[-1][1] == seen_ids
    for rank in range(1, seen_ids + 1):
        first, last = edges[band_of[4 + rank]]
        assert first <= rank <= last
    assert (band_of[5 + seen_ids :] == scores.UNSEEN).all()


def test_special_tokens_are_those_of_the_tokenizer() -> None:
    specials = SpecialTokens(pad=7, unk=100, cls=101, sep=2, mask=150)
    band_of, edges = scores.frequency_bands(np.arange(1, 201), specials)
    assert set(np.flatnonzero(band_of == scores.SPECIAL)) == {7, 101, 2, 150}
    assert edges[-1][1] == 196


def test_replaced_tokens_by_the_probability_that_the_generator_gave() -> None:
    seen, _ = random_observed(5)
    seen.sample_probability[0] = 1.0
    rows = scores.convincing(seen)
    replaced = [i for i in range(len(seen.targets)) if seen.samples[i] != seen.targets[i]]
    assert sum(row.replaced for row in rows) == len(replaced)
    for row in rows[:-1]:
        inside = [i for i in replaced if row.low <= seen.sample_probability[i] < row.high]
        assert row.replaced == len(inside)
        assert row.recall == pytest.approx(np.mean([seen.masked_logits[i] >= 0 for i in inside]))


def test_what_is_undefined_is_none() -> None:
    seen, _ = random_observed(6)
    seen.replaced[:] = False
    seen.logits[:] = -3
    found = scores.discriminator_scores(seen)
    assert (found.auc, found.average_precision, found.precision, found.recall, found.f1) == (
        None,
    ) * 5
    assert scores.roc(seen) == ()


def test_standard_errors_leave_out_one_group_of_rows_at_a_time() -> None:
    seen, _ = random_observed(7)
    found = uncertainty.standard_errors(seen)
    groups = [{row for row in range(50) if row * 20 // 50 == g} for g in range(20)]
    kept_masked = [
        np.array([int(row) not in group for row in seen.masked_rows]) for group in groups
    ]
    kept_tokens = [np.array([int(row) not in group for row in seen.token_rows]) for group in groups]
    probability = 1 / (1 + np.exp(-seen.logits.astype(np.float64)))
    losses = -np.log(np.where(seen.replaced, probability, 1 - probability))
    expected = {
        "generator_loss": [seen.nll[kept].mean(dtype=float) for kept in kept_masked],
        "generator_accuracy": [(seen.rank[kept] == 0).mean() for kept in kept_masked],
        "discriminator_loss": [losses[kept].mean() for kept in kept_tokens],
        "discriminator_auc": [
            pairwise_auc(seen.logits[kept], seen.replaced[kept]) for kept in kept_tokens
        ],
    }
    for name, values in expected.items():
        deviations = np.array(values) - np.mean(values)
        assert getattr(found, name) == pytest.approx(np.sqrt(19 / 20 * (deviations**2).sum())), name


def test_the_jackknife_of_a_mean_is_its_textbook_standard_error() -> None:
    rng = np.random.default_rng(8)
    values, groups = rng.normal(size=600), np.repeat(np.arange(20), 30)
    by_group = values.reshape(20, 30).mean(axis=1)
    expected = by_group.std(ddof=1) / np.sqrt(20)
    assert uncertainty.jackknife(uncertainty.means_without(values, groups, 20)) == pytest.approx(
        expected
    )
    assert uncertainty.jackknife([0.5]) is None
    assert uncertainty.jackknife([0.5, 0.4, None]) is None
