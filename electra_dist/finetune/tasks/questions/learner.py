"""Extractive question answering as a task: windows to train on,
answers from the logits, SQuAD's scores.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from electra_dist.console import warn
from electra_dist.finetune.labelled import Files
from electra_dist.finetune.model_folder import ModelFolder
from electra_dist.finetune.predictor import Scores
from electra_dist.finetune.recipe import Recipe
from electra_dist.finetune.runners.runner import Outputs
from electra_dist.finetune.tasks.questions.answers import Answer, best_answers
from electra_dist.finetune.tasks.questions.reading import Question, read_questions
from electra_dist.finetune.tasks.questions.squad_scores import best_threshold, squad_scores
from electra_dist.finetune.tasks.questions.windows import Windows, make_windows, unreachable
from electra_dist.finetune.training import Learner


class WindowFeatures(Sequence[dict[str, Any]]):
    """Model inputs of each window, made when they are asked for."""

    def __init__(self, windows: Windows) -> None:
        self._windows = windows

    def __len__(self) -> int:
        return len(self._windows)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[one] for one in range(*index.indices(len(self)))]
        windows = self._windows
        return {
            "input_ids": windows.input_ids[index].tolist(),
            "token_type_ids": windows.token_type_ids[index].tolist(),
            "start_positions": int(windows.start[index]),
            "end_positions": int(windows.end[index]),
        }


class QuestionLearner(Learner):
    """SQuAD 1.1, or 2.0 where some questions of the training data have no answer."""

    main_score = "f1"

    def __init__(self, files: Files, encoder: ModelFolder, tokenizer: Any, recipe: Recipe) -> None:
        self._encoder = encoder
        self._recipe = recipe
        questions = read_questions(files.train, labelled=True)
        windows = make_windows(questions, tokenizer, recipe.max_length, recipe.stride)
        self._some_have_none = any(not question.answers for question in questions)
        lost = unreachable(questions, windows)
        if lost:
            warn(
                f"{files.train}: the answers of {len(lost)} questions fit in no window"
                f" ({lost[0]}, ...); raise `stride`"
            )
        self.training = WindowFeatures(windows)
        self.examples = {"questions to train on": len(questions), "windows": len(windows)}
        self.held_out = []
        self.simple = {}
        if files.dev is not None:
            self._questions = read_questions(files.dev, labelled=True)
            self._windows = make_windows(
                self._questions, tokenizer, recipe.max_length, recipe.stride
            )
            self.held_out = WindowFeatures(self._windows)
            self.examples["held out"] = len(self._questions)
            if self._some_have_none:
                self.simple = squad_scores(
                    {question.id: "" for question in self._questions}, self._questions
                )

    def new_model(self) -> Any:
        return self._encoder.load(
            "AutoModelForQuestionAnswering", new_head=not self._recipe.keep_head
        )

    def score_names(self) -> tuple[str, ...]:
        return ("exact_match", "f1")

    def scores(self, outputs: Outputs) -> Scores:
        """With questions that have no answer, at the threshold that is
        best on these very questions, as SQuAD 2.0.
        """
        start = [output[0] for output in outputs]
        end = [output[1] for output in outputs]
        threshold = 0.0
        answers = best_answers(self._questions, self._windows, start, end)
        if self._some_have_none:
            threshold = best_threshold(self._questions, answers)
            answers = best_answers(
                self._questions, self._windows, start, end, allow_none=True, threshold=threshold
            )
        scores = squad_scores(by_id(self._questions, answers), self._questions)
        return scores | ({"threshold": threshold} if self._some_have_none else {})

    def marker(self, scores: Scores) -> dict[str, Any]:
        return {
            "task": "question-answering",
            "max_length": self._recipe.max_length,
            "stride": self._recipe.stride,
            "allow_none": self._some_have_none,
            "threshold": scores.get("threshold", 0.0),
        }


def by_id(questions: Sequence[Question], answers: Sequence[Answer]) -> dict[str, str]:
    """The text of each answer by the question's id."""
    return {question.id: answer.text for question, answer in zip(questions, answers, strict=True)}
