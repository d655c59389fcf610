"""Answers to questions, as a fine-tuned model finds them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from electra_dist.finetune.model_folder import ModelFolder
from electra_dist.finetune.predictor import Prediction, Scores, TaskPredictor, one_line
from electra_dist.finetune.runners.runner import Outputs, Runner
from electra_dist.finetune.tasks.questions.answers import Answer, best_answers
from electra_dist.finetune.tasks.questions.learner import WindowFeatures, by_id
from electra_dist.finetune.tasks.questions.reading import Question, question_of, read_questions
from electra_dist.finetune.tasks.questions.squad_scores import squad_scores
from electra_dist.finetune.tasks.questions.windows import Windows, make_windows


class QuestionPredictor(TaskPredictor):
    """A model for extractive question answering."""

    kind = "question-answering"
    header = ("answer", "probability", "question")
    fields = ("question", "context")

    def __init__(self, folder: ModelFolder, tokenizer: Any, runner: Runner) -> None:
        self._tokenizer = tokenizer
        self._runner = runner
        self._max_length = int(folder.fact("max_length"))
        self._stride = int(folder.fact("stride"))
        self._allow_none = bool(folder.fact("allow_none"))
        self._threshold = float(folder.fact("threshold"))
        self._last: tuple[Sequence[Question], Windows] | None = None

    def read(self, path: Path) -> list[Question]:
        """Questions of a SQuAD file or of JSON lines."""
        return read_questions(path, labelled=False)

    def item(self, fields: Mapping[str, Any], place: str) -> Question:
        """One question on one context."""
        return question_of(place, fields)

    def outputs(self, items: Sequence[Question]) -> Outputs:
        """Start and end logits of each window, the windows of a question side by side."""
        return self._runner(WindowFeatures(self._windows(items)))

    def predictions(self, items: Sequence[Question], outputs: Outputs) -> list[Prediction]:
        """The best answer to each question."""
        answers = self._answers(items, outputs)
        return [
            _prediction(question, answer) for question, answer in zip(items, answers, strict=True)
        ]

    def scores(self, items: Sequence[Question], outputs: Outputs, source: Path) -> Scores:
        """Where every question is labelled."""
        answered = [bool(question.answers) for question in items]
        if not any(answered) or not (self._allow_none or all(answered)):
            return {}
        return squad_scores(by_id(items, self._answers(items, outputs)), items)

    def _windows(self, items: Sequence[Question]) -> Windows:
        """Of the same questions, they are made once."""
        if self._last is None or self._last[0] is not items:
            windows = make_windows(items, self._tokenizer, self._max_length, self._stride)
            self._last = (items, windows)
        return self._last[1]

    def _answers(self, items: Sequence[Question], outputs: Outputs) -> list[Answer]:
        return best_answers(
            items,
            self._windows(items),
            [output[0] for output in outputs],
            [output[1] for output in outputs],
            allow_none=self._allow_none,
            threshold=self._threshold,
        )


def _prediction(question: Question, answer: Answer) -> Prediction:
    content = {
        "id": question.id,
        "question": question.question,
        "answer": answer.text,
        "start": answer.start,
        "end": answer.end,
        "probability": answer.probability,
    }
    cells = (one_line(answer.text), f"{answer.probability:.4f}", one_line(question.question))
    return Prediction([cells], content)
