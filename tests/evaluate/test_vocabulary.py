"""The generator's precision, recall and F1 over the vocabulary are scikit-learn's, on made-up
counts and on what a trained generator really answers.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import precision_recall_fscore_support

from electra_dist import config as configuration
from electra_dist.batch import SPECIAL_TOKENS
from electra_dist.checkpoint.networks import load_networks
from electra_dist.data.sources import open_data
from electra_dist.data.step_plan import RowFormat
from electra_dist.data.validation import deal, validation_rows
from electra_dist.evaluate import evaluate_run
from electra_dist.evaluate.vocabulary import ClassScores, Confusion
from electra_dist.model.inputs import to_device
from electra_dist.model.looking import look_at_masks
from electra_dist.runs.directory import RunDir


def assert_are_sklearns(found: ClassScores, originals: np.ndarray, likeliest: np.ndarray) -> None:
    """All six scores, and the number of classes."""
    assert found.classes == len(set(originals.tolist()) | set(likeliest.tolist()))
    for average in ("macro", "weighted"):
        expected = precision_recall_fscore_support(
            originals, likeliest, average=average, zero_division=0
        )
        names = (f"precision_{average}", f"recall_{average}", f"f1_{average}")
        own = [getattr(found, name) for name in names]
        np.testing.assert_allclose(own, expected[:3], rtol=1e-12, err_msg=average)


@pytest.mark.parametrize("right", [0.0, 0.3, 1.0])
def test_counts_of_micro_batches_give_what_all_answers_give(right: float) -> None:
    """Entries 0 to 29 are originals only, 60 to 89 most likely ones only, 90 to 99 neither."""
    rng = np.random.default_rng(int(10 * right))
    originals = rng.integers(0, 60, 700).astype(np.int32)
    likeliest = rng.integers(30, 90, 700).astype(np.int32)
    likeliest = np.where(rng.random(700) < right, originals, likeliest)
    whole = Confusion.empty(100)
    halves = [Confusion.empty(100), Confusion.empty(100)]
    for number, part in enumerate(np.array_split(np.arange(700), 9)):
        whole.add(originals[part], likeliest[part])
        halves[number % 2].add(originals[part], likeliest[part])
    assert_are_sklearns(whole.scores(), originals, likeliest)
    assert (halves[0] + halves[1]).scores() == whole.scores()
    assert whole.scores().recall_weighted == pytest.approx((originals == likeliest).mean())


def test_a_trained_generator_scores_what_sklearn_makes_of_its_logits(
    trained: RunDir, tiny_shards: Path
) -> None:
    """The most likely tokens come from the logits at every position, in float64."""
    config = configuration.load(trained.config)
    generator, _ = load_networks(trained, config, 8)
    row_format = RowFormat.of(config)
    rows = validation_rows(open_data(config), row_format, 40)
    assert rows is not None
    originals: list[int] = []
    likeliest: list[int] = []
    for batch in deal(rows, row_format, SPECIAL_TOKENS, 0, 1):
        with torch.no_grad():
            full = generator.logits(to_device(batch, "cpu")).double()
        for row, slot in zip(*np.nonzero(batch.masked_weights), strict=True):
            at = batch.masked_positions[row, slot]
            originals.append(int(batch.tokens[row, at]))
            likeliest.append(int(full[row, at].argmax()))
    found = evaluate_run(trained, step=8, rows=40).generator
    assert_are_sklearns(found, np.array(originals), np.array(likeliest))
    assert 1 < found.classes < 512
    assert found.recall_weighted == pytest.approx(found.accuracy, rel=1e-12)


def test_an_original_as_likely_as_another_token_is_the_most_likely_one() -> None:
    """All logits are equal: as `rank` 0 is right, so is the most likely token."""
    targets = torch.tensor([3, 0])
    look = look_at_masks(
        torch.zeros(2, 4), torch.ones(5, 4), torch.zeros(5), targets, torch.tensor([1, 1])
    )
    assert look.rank_m.tolist() == [0, 0]
    assert look.likeliest_m.tolist() == [3, 0]
