"""Prediction with any folder of ours: a fine-tuned model, a discriminator, a generator.

Comes in: a `ModelFolder` and texts. Goes out: one `Prediction` a text, in their order: lines of a
table and an object for programs.

    classification   the class and the probability of each class
    regression       the number
    question-answering  the answer out of the context, where it lies there, and its probability
    discriminator    for each token, the probability that it was replaced
    generator        for each [MASK] in the text, the best tokens and their probabilities
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from electra_dist.console import warn
from electra_dist.errors import DataError, UserError
from electra_dist.finetune.answering import WindowFeatures, by_id
from electra_dist.finetune.labelled import Columns, Example
from electra_dist.finetune.model_folder import MARKER, ModelFolder
from electra_dist.finetune.questions.answers import Answer, best_answers
from electra_dist.finetune.questions.reading import Question, read_questions
from electra_dist.finetune.questions.windows import make_windows
from electra_dist.finetune.squad_scores import squad_scores
from electra_dist.finetune.texts import TextTask
from electra_dist.finetune.training import as_array, predict_logits

#: The label of a class that stands for none, where no class has this name.
NOT_LABELLED = "-1"
#: Texts at a time.
BATCH = 32


@dataclass(frozen=True)
class Prediction:
    """Of one text. `cells` belong to `columns(kind)`, one tuple a line of the table;
    `content` is for programs.
    """

    cells: Sequence[tuple[str, ...]]
    content: dict[str, Any]


def columns(kind: str) -> tuple[str, ...]:
    """Header of the table of a kind of model."""
    return {
        "classification": ("predicted", "probability", "text"),
        "regression": ("predicted", "text"),
        "question-answering": ("answer", "probability", "question"),
        "discriminator": ("text", "token", "replaced"),
        "generator": ("text", "mask", "token", "probability"),
    }[kind]


def text_task(folder: ModelFolder) -> TextTask:
    """The task that a folder was fine-tuned for, as its marker describes it; raises `UserError`."""
    labels = folder.fact("labels")
    names = folder.fact("columns")
    try:
        return TextTask(Columns(**names), None if labels is None else tuple(map(str, labels)))
    except TypeError as error:
        raise UserError(f"{folder.path / MARKER}: does not describe the task ({error})") from error


def columns_of(folder: ModelFolder) -> Columns:
    """The columns that a model was fine-tuned on; the usual ones where it was not."""
    names = folder.marker.get("columns")
    if names:
        return Columns(**names)
    return Columns()


def predict_examples(
    folder: ModelFolder,
    examples: Sequence[Example],
    source: Path,
    device: torch.device,
    count: int = 5,
) -> tuple[Iterable[Prediction], dict[str, float]]:
    """What any model but one for questions says of `examples`, and scores where labels are there.

    `source` names where they come from in an error; `count` is of `predict_tokens`. Raises
    `DataError` as the functions below.
    """
    if folder.kind in ("discriminator", "generator"):
        texts = [example.text for example in examples]
        return predict_tokens(folder, texts, device, count), {}
    return predict_texts(folder, examples, source, device)


# --- fine-tuned models ----------------------------------------------------------------------------


def predict_texts(
    folder: ModelFolder, examples: Sequence[Example], source: Path, device: torch.device
) -> tuple[list[Prediction], dict[str, float]]:
    """Classes or numbers, and their scores against the labels that are there.

    A label of -1 that is no class says that nobody has labelled the example, as GLUE's test files
    do; scores are of those with a label. Raises `DataError` when a label is unknown, or second
    texts of pairs are missing.
    """
    task = text_task(folder)
    tokenizer = folder.tokenizer()
    if task.columns.pair and any(example.pair is None for example in examples):
        raise DataError(
            f"{source}: single texts, but the model was trained on pairs; give a table with the"
            f" columns {task.columns.text} and {task.columns.pair}"
        )
    targets = task.targets(examples, source, unlabelled=NOT_LABELLED)
    known = ~np.isnan(targets)
    if known.any() and not known.all():
        warn(
            f"{source}: {int((~known).sum()):,} of {len(examples):,} examples have no label; the"
            " scores are of the others"
        )
    model = folder.load("AutoModelForSequenceClassification")
    features = task.features(tokenizer, examples, int(folder.fact("max_length")))
    logits = as_array(predict_logits(model, tokenizer, features, device))
    scores = {}
    if known.any():
        scores = task.scores(logits[known], targets[known])
    return [
        _text_prediction(task, example, row) for example, row in zip(examples, logits, strict=True)
    ], scores


def predict_answers(
    folder: ModelFolder, source: Path, device: torch.device
) -> tuple[list[Prediction], dict[str, float]]:
    """Answers to the questions of a SQuAD file or of JSON lines, and their scores where every
    question is labelled.

    Raises `DataError` for a file that is neither.
    """
    tokenizer = folder.tokenizer()
    questions = read_questions(source, labelled=False)
    windows = make_windows(
        questions, tokenizer, int(folder.fact("max_length")), int(folder.fact("stride"))
    )
    model = folder.load("AutoModelForQuestionAnswering")
    start, end = (
        as_array(part)
        for part in predict_logits(model, tokenizer, WindowFeatures(windows), device)[:2]
    )
    none = bool(folder.fact("allow_none"))
    found = best_answers(
        questions, windows, start, end, allow_none=none, threshold=float(folder.fact("threshold"))
    )
    scores = {}
    if any(question.answers for question in questions) and (
        none or all(question.answers for question in questions)
    ):
        scores = squad_scores(by_id(questions, found), questions)
    return [
        _answer_prediction(question, answer)
        for question, answer in zip(questions, found, strict=True)
    ], scores


def _answer_prediction(question: Question, answer: Answer) -> Prediction:
    content = {
        "id": question.id,
        "question": question.question,
        "answer": answer.text,
        "start": answer.start,
        "end": answer.end,
        "probability": answer.probability,
    }
    cells = (_one_line(answer.text), f"{answer.probability:.4f}", _one_line(question.question))
    return Prediction([cells], content)


def _text_prediction(task: TextTask, example: Example, logits: Any) -> Prediction:
    given = {"text": example.text} | ({} if example.pair is None else {"pair": example.pair})
    shown = _one_line(" | ".join(given.values()))
    if task.labels is None:
        value = float(logits.reshape(-1)[0])
        return Prediction([(f"{value:.4f}", shown)], given | {"predicted": value})
    shifted = np.exp(logits - logits.max())
    probabilities = dict(zip(task.labels, (shifted / shifted.sum()).tolist(), strict=True))
    best = max(probabilities, key=lambda label: probabilities[label])
    content = given | {"predicted": best, "probabilities": probabilities}
    return Prediction([(best, f"{probabilities[best]:.4f}", shown)], content)


# --- pre-trained networks -------------------------------------------------------------------------


def predict_tokens(
    folder: ModelFolder, texts: Sequence[str], device: torch.device, count: int = 5
) -> Iterator[Prediction]:
    """Replaced tokens (discriminator) or the `count` best fillings of each [MASK] (generator),
    batch by batch.

    Raises `DataError` for a text that is longer than the model's positions, or that a generator
    gets without a mask.
    """
    tokenizer = folder.tokenizer()
    generator = folder.kind == "generator"
    model = (
        folder.load("AutoModelForMaskedLM" if generator else "AutoModelForPreTraining")
        .to(device)
        .eval()
    )
    for start in range(0, len(texts), BATCH):
        part = texts[start : start + BATCH]
        # A generator's [MASK] is written in the text;
        # the discriminator saw such text as plain characters.
        encoded = tokenizer(
            list(part),
            padding=True,
            return_tensors="pt",
            return_offsets_mapping=True,
            split_special_tokens=not generator,
        )
        offsets = encoded.pop("offset_mapping")
        longest = int(folder.config["max_position_embeddings"])
        if encoded["input_ids"].shape[1] > longest:
            lengths = encoded["attention_mask"].sum(dim=1)
            which = int(lengths.argmax())
            raise DataError(
                f"text {start + which + 1}: {int(lengths[which])} tokens; the model takes up to"
                f" {longest}"
            )
        with torch.inference_mode():
            logits = model(**encoded.to(device)).logits.float().cpu()
        for index, text in enumerate(part):
            ids = encoded["input_ids"][index].cpu()
            if generator:
                yield _filled(tokenizer, start + index, text, ids, logits[index], count)
            else:
                yield _judged(tokenizer, start + index, text, ids, offsets[index], logits[index])


def _filled(
    tokenizer: Any, number: int, text: str, ids: Tensor, logits: Tensor, count: int
) -> Prediction:
    if not text.strip():
        return Prediction([], {"text": text, "masks": []})
    masks = (ids == tokenizer.mask_token_id).nonzero().flatten().tolist()
    if not masks:
        raise DataError(
            f"text {number + 1}: has no {tokenizer.mask_token} for the generator to fill"
        )
    cells: list[tuple[str, ...]] = []
    content = []
    for mask, position in enumerate(masks):
        best = logits[position].softmax(dim=0).topk(min(count, logits.shape[1]))
        found = [
            {"token": _shown(tokenizer, token), "probability": probability}
            for probability, token in zip(best.values.tolist(), best.indices.tolist(), strict=True)
        ]
        content.append(found)
        cells += [
            (str(number + 1), str(mask + 1), str(f["token"]), f"{f['probability']:.4f}")
            for f in found
        ]
    return Prediction(cells, {"text": text, "masks": content})


def _judged(
    tokenizer: Any, number: int, text: str, ids: Tensor, offsets: Tensor, logits: Tensor
) -> Prediction:
    special = {tokenizer.cls_token_id, tokenizer.sep_token_id, tokenizer.pad_token_id}
    tokens = [
        {"token": _shown(tokenizer, token), "start": start, "end": end, "replaced": probability}
        for token, (start, end), probability in zip(
            ids.tolist(), offsets.tolist(), torch.sigmoid(logits).tolist(), strict=True
        )
        if token not in special
    ]
    cells = [(str(number + 1), str(token["token"]), f"{token['replaced']:.4f}") for token in tokens]
    return Prediction(cells, {"text": text, "tokens": tokens})


def _shown(tokenizer: Any, token: int) -> str:
    """A token as it is in the vocabulary: a leading "▁" is a space."""
    return str(tokenizer.convert_ids_to_tokens(token))


def _one_line(text: str) -> str:
    return " ".join(text.split())
