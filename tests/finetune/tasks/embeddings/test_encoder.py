"""Vectors and losses, against transformers by hand and the losses of sentence-transformers."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import transformers
from sentence_transformers.sentence_transformer import losses
from torch import Tensor

from electra_dist.finetune.labelled import Columns
from electra_dist.finetune.tasks.embeddings.encoder import (
    SentenceEncoder,
    contrastive_loss,
    scored_loss,
)
from electra_dist.finetune.tasks.embeddings.features import text_features
from electra_dist.finetune.tasks.embeddings.learner import PairCollator, numbered
from electra_dist.finetune.tasks.embeddings.pairs import PairSet, read_pairs
from electra_dist.finetune.tasks.embeddings.pooling import Pooling, PoolMode
from tests.support.toy_task import belonging

TEXTS = ["The value.", "", "A longer text, which goes on for a while, and then some more."]
COLUMNS = Columns(pair="pair")


@pytest.fixture(scope="module")
def parts(encoder: Path) -> tuple[transformers.PreTrainedModel, transformers.PreTrainedTokenizer]:
    model = transformers.AutoModel.from_pretrained(encoder).eval()
    return model, transformers.AutoTokenizer.from_pretrained(encoder)


@pytest.mark.parametrize("pool", ["mean", "cls"])
@pytest.mark.parametrize("normalize", [False, True])
def test_a_vector_is_that_of_the_text_alone(parts, pool: PoolMode, normalize: bool) -> None:
    model, tokenizer = parts
    encoder = SentenceEncoder(model, Pooling(pool, normalize))
    with torch.no_grad():
        vectors = encoder(**tokenizer(TEXTS, padding=True, return_tensors="pt")).vectors
        for text, vector in zip(TEXTS, vectors, strict=True):
            states = model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0]
            expected = states.mean(dim=0) if pool == "mean" else states[0]
            if normalize:
                expected = expected / expected.norm()
            torch.testing.assert_close(vector, expected, atol=1e-5, rtol=0)
            alone = Pooling(pool, normalize).of_states(states.numpy())
            torch.testing.assert_close(vector, torch.from_numpy(alone), atol=1e-5, rtol=0)


def loss_of(parts, pairs: PairSet, temperature: float) -> tuple[Tensor, Tensor]:
    """Of all pairs as one batch; and the vectors of the texts."""
    model, tokenizer = parts
    inputs = text_features(tokenizer, pairs.texts, 96)
    collator = PairCollator(pairs, inputs, tokenizer)
    encoder = SentenceEncoder(model, Pooling(), temperature)
    with torch.no_grad():
        loss = encoder(**collator(numbered(pairs))).loss
        vectors = encoder(**tokenizer(list(pairs.texts), padding=True, return_tensors="pt")).vectors
    return loss, vectors


def different(path: Path, kind: str) -> PairSet:
    """Eight rows that share no text."""
    lines = []
    seen: set[str] = set()
    for line in belonging(path, 400, 1, kind).read_text().splitlines():
        subject = line.split("says: ")[1].split(" is ")[0]
        if subject not in seen:
            seen.add(subject)
            lines.append(line)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return read_pairs(path, COLUMNS)


@pytest.mark.parametrize("kind", ["pairs", "triples"])
@pytest.mark.parametrize("temperature", [0.05, 0.5])
def test_the_contrastive_loss_is_that_of_sentence_transformers(
    parts, tmp_path: Path, kind: str, temperature: float
) -> None:
    pairs = different(tmp_path / "pairs.jsonl", kind)
    assert len(set(pairs.texts)) == len(pairs) * (3 if kind == "triples" else 2)
    loss, vectors = loss_of(parts, pairs, temperature)
    columns = [vectors[pairs.queries], vectors[pairs.positives]]
    if kind == "triples":
        columns.append(vectors[[negative for (negative,) in pairs.negatives]])
    peer = losses.MultipleNegativesRankingLoss(None, scale=1 / temperature)
    expected = peer.compute_loss_from_embeddings(columns, None)
    torch.testing.assert_close(loss, expected, atol=1e-5, rtol=1e-5)


def test_the_loss_of_scored_pairs_is_that_of_sentence_transformers(parts, tmp_path: Path) -> None:
    pairs = read_pairs(belonging(tmp_path / "scored.jsonl", 20, 1, "scored"), COLUMNS)
    assert pairs.labels is not None
    loss, vectors = loss_of(parts, pairs, 0.05)
    expected = losses.CoSENTLoss(None, scale=20).compute_loss_from_embeddings(
        [vectors[pairs.queries], vectors[pairs.positives]], torch.from_numpy(pairs.labels)
    )
    torch.testing.assert_close(loss, expected, atol=1e-5, rtol=1e-5)


def test_scores_that_are_all_equal_teach_nothing() -> None:
    cosines = torch.tensor([0.1, 0.7], requires_grad=True)
    loss = scored_loss(cosines, torch.tensor([1.0, 1.0]), 0.05)
    loss.backward()
    assert loss.item() == 0
    assert cosines.grad is not None
    assert cosines.grad.tolist() == [0, 0]


def test_a_text_that_belongs_to_the_query_is_no_negative(parts, tmp_path: Path) -> None:
    file = tmp_path / "pairs.tsv"
    file.write_text("text\tpair\na\tb\na\tc\nd\tb\ne\te\nd\ta\n", encoding="utf-8")
    pairs = read_pairs(file, COLUMNS)
    _, tokenizer = parts
    collator = PairCollator(pairs, text_features(tokenizer, pairs.texts, 96), tokenizer)
    batch = collator(numbered(pairs))
    candidates = ["b", "c", "e", "a"]
    assert batch["candidates"]["input_ids"].shape[0] == len(candidates)
    assert batch["targets"].tolist() == [0, 1, 0, 2, 3]
    left_out = [
        {candidates[column] for column, out in enumerate(row) if out}
        for row in batch["excluded"].tolist()
    ]
    # a belongs to b and c, and is itself no negative; d belongs to b and a
    assert left_out == [{"c", "a"}, {"b", "a"}, {"a"}, set(), {"b"}]
    cosines = torch.rand(5, 4)
    loss = contrastive_loss(cosines, batch["targets"], batch["excluded"], 0.1)
    rows = []
    for row, target in enumerate(batch["targets"].tolist()):
        kept = [c for c in range(4) if not batch["excluded"][row, c]]
        logits = cosines[row, kept].double() / 0.1
        rows.append(logits.logsumexp(0) - cosines[row, target].double() / 0.1)
    torch.testing.assert_close(loss.double(), torch.stack(rows).mean(), atol=1e-5, rtol=1e-5)
