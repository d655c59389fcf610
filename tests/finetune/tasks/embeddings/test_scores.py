"""The scores of vectors, against loops that follow their definitions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from electra_dist.finetune.tasks.embeddings.pairs import PairRow, PairSet
from electra_dist.finetune.tasks.embeddings.scores import pair_scores, word_count_scores


def random_rows(count: int, seed: int, *, with_negatives: bool) -> list[PairRow]:
    draw = np.random.default_rng(seed)
    rows = []
    for _ in range(count):
        query, pair, negative = draw.integers(0, 12, 3)
        negatives = (f"d{negative}",) if with_negatives and negative != pair else ()
        rows.append(PairRow(f"q{query}", f"d{pair}", negatives))
    return rows


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


@pytest.mark.parametrize("with_negatives", [False, True])
def test_ranks_are_those_of_a_loop(with_negatives: bool) -> None:
    rows = random_rows(40, 1, with_negatives=with_negatives)
    pairs = PairSet.of_rows(rows)
    vectors = np.random.default_rng(2).normal(size=(len(pairs.texts), 5)).astype(np.float32)
    by_text = dict(zip(pairs.texts, vectors, strict=True))
    documents = {text for row in rows for text in row.texts[1:]}
    ranks = []
    for query in sorted({row.text for row in rows}):
        right = {row.pair for row in rows if row.text == query}
        order = sorted(documents, key=lambda text: -cosine(by_text[query], by_text[text]))
        ranks.append(min(order.index(text) for text in right) + 1)
        # other right texts before the first right one there are none, so this is its rank
    found = pair_scores(pairs, vectors)
    assert found["mrr"] == pytest.approx(np.mean([1 / rank for rank in ranks]))
    assert found["recall_at_1"] == pytest.approx(np.mean([rank == 1 for rank in ranks]))
    assert found["recall_at_10"] == pytest.approx(np.mean([rank <= 10 for rank in ranks]))
    assert ("triple_accuracy" in found) == with_negatives
    if with_negatives:
        closer = [
            cosine(by_text[row.text], by_text[str(row.pair)])
            > cosine(by_text[row.text], by_text[text])
            for row in rows
            for text in row.negatives
        ]
        assert found["triple_accuracy"] == pytest.approx(np.mean(closer))


def test_vectors_without_meaning_score_nothing() -> None:
    rows = [PairRow(f"q{n}", f"d{n}") for n in range(20)]
    pairs = PairSet.of_rows(rows)
    found = pair_scores(pairs, np.ones((len(pairs.texts), 3), dtype=np.float32))
    assert found == {"mrr": pytest.approx(1 / 20), "recall_at_1": 0.0, "recall_at_10": 0.0}


def test_correlations_are_those_of_the_cosines() -> None:
    draw = np.random.default_rng(3)
    rows = [PairRow(f"a{n}", f"b{n}", label=float(n % 2)) for n in range(30)]
    pairs = PairSet.of_rows(rows)
    vectors = draw.normal(size=(60, 4)).astype(np.float32)
    cosines = [cosine(vectors[2 * n], vectors[2 * n + 1]) for n in range(30)]
    labels = [n % 2 for n in range(30)]
    found = pair_scores(pairs, vectors)
    assert found["spearman"] == pytest.approx(stats.spearmanr(cosines, labels).statistic)
    assert found["pearson"] == pytest.approx(np.corrcoef(cosines, labels)[0, 1], abs=1e-5)
    higher = [cosines[one] > cosines[other] for one in range(1, 30, 2) for other in range(0, 30, 2)]
    assert found["auc"] == pytest.approx(np.mean(higher))


def test_a_constant_side_has_no_correlation() -> None:
    pairs = PairSet.of_rows([PairRow("a", "b", label=0.3), PairRow("a", "c", label=0.3)])
    found = pair_scores(pairs, np.eye(3, dtype=np.float32))
    assert found == {"spearman": 0.0, "pearson": 0.0}


def test_word_counts_find_texts_that_share_words(tmp_path: Path) -> None:
    rows = [PairRow(f"where is word{n}?", f"word{n} is here") for n in range(20)]
    assert word_count_scores(PairSet.of_rows(rows))["recall_at_1"] == 1.0
    scored = [
        PairRow("red apple", "red apple", label=1.0),
        PairRow("red apple", "blue sky", label=0.0),
    ]
    assert word_count_scores(PairSet.of_rows(scored))["auc"] == 1.0
    assert word_count_scores(PairSet.of_rows([PairRow("...", "!!!")])) == {}
