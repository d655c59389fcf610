"""Token classification as a task: from files and an encoder to what the training needs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from electra_dist.console import say, warn
from electra_dist.errors import UserError
from electra_dist.finetune.labelled import Files
from electra_dist.finetune.model_folder import ModelFolder
from electra_dist.finetune.predictor import Scores
from electra_dist.finetune.recipe import Recipe
from electra_dist.finetune.runners.runner import Outputs
from electra_dist.finetune.tasks.tokens.reading import read_sentences
from electra_dist.finetune.tasks.tokens.sentences import Sentence
from electra_dist.finetune.tasks.tokens.tags import TagTask
from electra_dist.finetune.tasks.tokens.windows import Windows, make_windows
from electra_dist.finetune.training import Learner


class TokenLearner(Learner):
    """A label for each word; the labels are those of the training file."""

    def __init__(self, files: Files, encoder: ModelFolder, tokenizer: Any, recipe: Recipe) -> None:
        self._encoder = encoder
        self._recipe = recipe
        self._tokenizer = tokenizer
        sentences = read_sentences(files.train, files.columns, files.unlabelled)
        self._task = TagTask.of(sentences, files.columns, files.train)
        self.main_score = self._task.main_score
        if recipe.keep_head:
            self._check_head()
        targets = self._task.targets(sentences, files.train)
        say(f"{files.train}: {self._task.counts(targets)}")
        windows = self._windows(sentences, files.train)
        self.training = windows.features(targets)
        self.examples = {
            "sentences to train on": len(sentences),
            "words": sum(windows.words),
            "windows": len(windows.windows),
        }
        self.held_out = []
        self.simple = {}
        if files.dev is not None:
            self._hold_out(files, sentences, targets)

    def _hold_out(
        self, files: Files, training: Sequence[Sentence], targets: Sequence[Sequence[int]]
    ) -> None:
        assert files.dev is not None
        sentences = read_sentences(files.dev, files.columns, files.unlabelled)
        self._dev_targets = self._task.targets(sentences, files.dev)
        say(f"{files.dev}: {self._task.counts(self._dev_targets)}")
        absent = self._task.absent(self._dev_targets)
        if absent:
            warn(f"{files.dev}: has no {', '.join(absent[:10])}; its scores tell nothing of them")
        self._dev_windows = self._windows(sentences, files.dev)
        self.held_out = self._dev_windows.features(self._dev_targets)
        self.examples["held out"] = len(sentences)
        usual = _usual_labels(training, targets)
        answers = [
            self._task.written(self._task.named([usual(word) for word in sentence.words]))
            for sentence in sentences
        ]
        self.simple = self._task.scores(answers, self._dev_targets)

    def _windows(self, sentences: Sequence[Sentence], source: object) -> Windows:
        recipe = self._recipe
        return make_windows(sentences, self._tokenizer, recipe.max_length, recipe.stride, source)

    def _check_head(self) -> None:
        """Raise `UserError` where the head of the encoder has other outputs than the task."""
        known = tuple(map(str, self._encoder.fact("labels")))
        if known != self._task.labels:
            raise UserError(
                f"`keep_head`: {self._encoder.path} was fine-tuned for the labels"
                f" {', '.join(known[:10])}, but the training data has"
                f" {', '.join(self._task.labels[:10])}; leave it out to start a new head"
            )

    def new_model(self) -> Any:
        """One output for each label."""
        names = dict(enumerate(self._task.labels))
        return self._encoder.load(
            "AutoModelForTokenClassification",
            new_head=not self._recipe.keep_head,
            num_labels=len(names),
            id2label=names,
            label2id={name: index for index, name in names.items()},
        )

    def collator(self, tokenizer: Any) -> Any:
        """Pads labels along with tokens."""
        from transformers import DataCollatorForTokenClassification

        return DataCollatorForTokenClassification(tokenizer)

    def scores(self, outputs: Outputs) -> Scores:
        """Of the held-out words."""
        logits = self._dev_windows.by_word(outputs, len(self._task.labels))
        answers = [
            self._task.written(self._task.named(one.argmax(axis=1).tolist())) for one in logits
        ]
        return self._task.scores(answers, self._dev_targets)

    def marker(self, scores: Scores) -> dict[str, Any]:
        return self._task.to_dict() | {
            "max_length": self._recipe.max_length,
            "stride": self._recipe.stride,
        }


def _usual_labels(sentences: Sequence[Sentence], targets: Sequence[Sequence[int]]) -> Any:
    """A function of a word: its most frequent target in training, else that of all words."""
    counted: dict[str, Counter[int]] = {}
    every: Counter[int] = Counter()
    for sentence, own in zip(sentences, targets, strict=True):
        every.update(own)
        for word, target in zip(sentence.words, own, strict=True):
            counted.setdefault(word, Counter())[target] += 1
    return lambda word: counted.get(word, every).most_common(1)[0][0]
