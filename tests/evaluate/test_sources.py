"""Scores by source are those of its own rows, by formulas on the raw numbers."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from sklearn.metrics import f1_score

from electra_dist.data.sources import RunData, Source
from electra_dist.data.validation import HeldOut
from electra_dist.evaluate.heldout import Observed
from electra_dist.evaluate.sources import source_scores
from electra_dist.evaluate.vocabulary import Confusion

ROWS = {"first": 5, "second": 3}


def data_of(*names: str) -> RunData:
    """Sources whose unigram entropy is their place."""
    sources = []
    for place, name in enumerate(names):
        manifest: Any = SimpleNamespace(unigram_entropy=lambda place=place: float(place))
        sources.append(Source(name, manifest, 1))
    return RunData(tuple(sources))


def parts() -> list[HeldOut]:
    return [
        HeldOut(name, cast(Any, SimpleNamespace(keys=list(range(rows)))))
        for name, rows in ROWS.items()
    ]


def observed() -> Observed:
    """Eight rows of 20 real tokens and 3 masked positions each."""
    draw = np.random.default_rng(3)
    tokens = 20 * 8
    masked = 3 * 8
    return Observed(
        masked_rows=np.repeat(np.arange(8), 3).astype(np.int32),
        targets=draw.integers(5, 90, masked).astype(np.int32),
        nll=draw.exponential(2, masked).astype(np.float32),
        rank=draw.integers(0, 3, masked).astype(np.int32),
        samples=draw.integers(5, 90, masked).astype(np.int32),
        sample_probability=draw.random(masked).astype(np.float32),
        masked_logits=draw.normal(size=masked).astype(np.float32),
        token_rows=np.repeat(np.arange(8), 20).astype(np.int32),
        shown=draw.integers(5, 90, tokens).astype(np.int32),
        logits=draw.normal(size=tokens).astype(np.float32),
        replaced=draw.random(tokens) < 0.2,
    )


def confusions(seen: Observed) -> list[Confusion]:
    """Of each source, with a generator whose most likely token is its sample."""
    found = []
    row = 0
    for rows in ROWS.values():
        own = seen.of_rows(row, row + rows)
        found.append(Confusion.empty(100))
        found[-1].add(own.targets, own.samples)
        row += rows
    return found


def test_each_source_has_the_scores_of_its_rows() -> None:
    seen = observed()
    found = source_scores(data_of("first", "second"), parts(), seen, confusions(seen))
    assert [(one.name, one.rows) for one in found] == list(ROWS.items())
    row = 0
    for place, one in enumerate(found):
        rows = range(row, row + one.rows)
        row += one.rows
        at_masks = np.isin(seen.masked_rows, rows)
        at_tokens = np.isin(seen.token_rows, rows)
        assert one.generator is not None
        assert one.discriminator is not None
        assert one.standard_errors is not None
        assert one.generator.masked_tokens == 3 * one.rows
        assert one.generator.loss == pytest.approx(seen.nll[at_masks].mean(), rel=1e-6)
        assert one.generator.accuracy == np.mean(seen.rank[at_masks] == 0)
        assert one.generator.unigram_entropy == place
        macro = f1_score(
            seen.targets[at_masks], seen.samples[at_masks], average="macro", zero_division=0
        )
        assert one.generator.f1_macro == pytest.approx(macro, rel=1e-12)
        probability = 1 / (1 + np.exp(-seen.logits[at_tokens].astype(float)))
        right = np.where(seen.replaced[at_tokens], probability, 1 - probability)
        assert one.discriminator.tokens == 20 * one.rows
        assert one.discriminator.loss == pytest.approx(-np.log(right).mean(), rel=1e-6)
        # each of these few rows is a group of the jackknife
        means = seen.nll[at_masks].reshape(one.rows, 3).mean(axis=1)
        error = np.sqrt(means.var(ddof=1) / one.rows)
        assert one.standard_errors.generator_loss == pytest.approx(error, rel=1e-5)


def test_a_source_without_held_out_rows_is_listed_without_scores() -> None:
    seen = observed()
    data = data_of("first", "nothing", "second")
    found = source_scores(data, parts(), seen, confusions(seen))
    assert [one.name for one in found] == ["first", "nothing", "second"]
    assert found[1].rows == 0
    assert found[1].generator is None
    assert found[1].discriminator is None
    assert found[2].generator is not None


def test_data_that_are_not_mixed_have_no_sources() -> None:
    seen = observed()
    assert source_scores(data_of("first"), parts()[:1], seen, confusions(seen)[:1]) == ()
