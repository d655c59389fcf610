"""Tasks: fine-tune an exported discriminator, predict with any model of ours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypedDict, Unpack

from electra_dist.api.common import DeviceName, as_path, output
from electra_dist.errors import UserError

if TYPE_CHECKING:
    from electra_dist.finetune.report import FinetuneReport

TaskName = Literal[
    "classification",
    "multi-label",
    "regression",
    "question-answering",
    "token-classification",
    "multiple-choice",
    "ranking",
    "embeddings",
]


class RecipeNumbers(TypedDict, total=False):
    """How a model is fine-tuned: each number has a published default for its task.

    epochs       passes over the examples
    lr           the highest learning rate
    layer_decay  factor of the learning rate from layer to layer, downwards
    batch        examples per step, of all ranks together
    warmup       fraction of the steps in which the learning rate rises
    max_length   tokens of an example at most
    stride       tokens that neighbouring windows of a long context share
    temperature  divides the cosines in the loss of embeddings

    Of the others, `electra_dist.finetune.recipe.Recipe` says what they mean:
    """

    epochs: float
    lr: float
    layer_decay: float
    batch: int
    warmup: float
    max_length: int
    stride: int
    temperature: float
    weight_decay: float
    max_norm: float
    accumulate: int
    schedule: Literal["linear", "cosine", "constant", "polynomial", "inverse-sqrt"]
    dropout: float
    freeze: int
    label_smoothing: float
    class_weights: Literal["none", "balanced"]
    patience: int
    metric: str
    keep: Literal["best", "last"]


class FinetuneOptions(RecipeNumbers, total=False):
    """What a fine-tuning does besides, and how.

    clean     what is done to each text first; `predict` does it too
    ensemble  keep the model of every seed, and score their ensemble and soups of weights
    restart   begin anew, where a killed fine-tuning with the same `out` could go on
    wandb     W&B gets the curves too, one run per seed
    """

    clean: tuple[Literal["html", "lower", "stop-words"], ...]
    ensemble: bool
    restart: bool
    wandb: Literal["online", "offline", "disabled"]


def finetune_model(
    model: str | Path,
    train: str | Path,
    out: str | Path,
    *,
    dev: str | Path | None = None,
    task: TaskName = "classification",
    text: str | None = None,
    pair: str | None = None,
    label: str | None = None,
    seeds: Sequence[int] = (1,),
    device: DeviceName | None = None,
    drop_unlabelled: bool = False,
    keep_head: bool = False,
    verbose: bool = False,
    **others: Unpack[FinetuneOptions],
) -> FinetuneReport:
    """Teach an exported discriminator a task.

    Args:
        model: the folder of an exported discriminator.
        train: labelled examples: .tsv, .csv or .jsonl; for questions .json (SQuAD) or .jsonl; for
            words .conll, .conllu or .jsonl.
        out: a new folder for the model.
        dev: held-out examples, scored after each epoch.
        task: its name in the registry of tasks.
        text: the column of the text, or of the words; by default the task's.
        pair: the column of the second text, where an example is a pair.
        label: the column of the label; by default the task's.
        seeds: one training each; the best on `dev` is kept.
        device: by default CUDA where there is one.
        drop_unlabelled: leave out examples without a label, instead of refusing the file.
        keep_head: go on with the head of a model that was fine-tuned for the same task and classes.
        verbose: print the lines of the command `electra-dist finetune`.
        others: of `FinetuneOptions`; a number that is left out is the published one.

    Returns:
        The scores of every seed and their median, the recipe, and the folder.

    Raises:
        DataError: a file that cannot be read as labelled examples.
        UserError: a folder that is no discriminator, or an argument that cannot be.

    Examples:
        >>> report = electra_dist.finetune_model("exported", "train.tsv", "out", dev="dev.tsv")
        >>> report.median["accuracy"]
    """
    from electra_dist.finetune.run import Settings, finetune

    if not seeds:
        raise UserError("`seeds`: expected one or more")
    files = (Path(model), Path(train), Path(out), as_path(dev))
    names = {"text": text, "pair": pair, "label": label}
    how: dict[str, Any] = dict(others)
    more = ("clean", "ensemble", "restart", "wandb")
    chosen: dict[str, Any] = {name: how.pop(name) for name in more if name in how}
    numbers = (names, how, tuple(seeds))
    settings = Settings(*files, task, *numbers, device, drop_unlabelled, keep_head, **chosen)
    with output(verbose):
        return finetune(settings)


@dataclass(frozen=True)
class Predictions:
    """What a model makes of texts, in their order.

    kind    `discriminator`, `generator`, or the task that the model was fine-tuned for
    items   one dictionary per text, as `electra-dist predict --json` prints it
    scores  against the labels, where every text has one; else empty
    """

    kind: str
    items: tuple[dict[str, Any], ...]
    scores: dict[str, float]


def predict(
    model: str | Path | Sequence[str | Path],
    texts: Sequence[str] | None = None,
    *,
    pairs: Sequence[str | Sequence[str]] | None = None,
    file: str | Path | None = None,
    count: int = 5,
    device: DeviceName | None = None,
) -> Predictions:
    """What a fine-tuned model, a discriminator or a generator makes of texts.

    Args:
        model: a folder that `export_run` or `finetune_model` wrote, or several that were
            fine-tuned for the same task and answer together.
        texts: the texts; a generator fills each [MASK] in them.
        pairs: the second texts, for a model of pairs; the lists of choices or candidates, for one
            of multiple choice or ranking.
        file: a file of texts, or of questions, in place of `texts`.
        count: fillings per [MASK], the most likely first.
        device: by default CUDA where there is one.

    Returns:
        One item per text: a class or several, and probabilities; a number; an answer; per word a
        label, and the entities of a text; per token the probability that it was replaced; per
        [MASK] the fillings and their probabilities.

    Raises:
        DataError: a file that cannot be read, or a text that the model cannot take.
        UserError: no model there, or an argument that cannot be.

    Examples:
        >>> found = electra_dist.predict("exported/generator", ["The cat [MASK] on the mat."])
        >>> found.items[0]["masks"][0][0]["token"]
    """
    from electra_dist.finetune.seeds.ensemble import open_models
    from electra_dist.parallel.hardware import device_of_command

    _check_texts(texts, pairs, file, count)
    if isinstance(model, str | Path):
        model = [model]
    if not model:
        raise UserError("`model`: expected a folder or several")
    paths = [Path(one) for one in model]
    predictor = open_models(paths, device_of_command(device), count)
    if file is not None:
        source = Path(file)
        items = predictor.read(source)
    else:
        source = Path("texts")
        items = [
            predictor.item(dict(zip(predictor.fields, one, strict=False)), f"`texts` {number}")
            for number, one in enumerate(_rows(texts or (), pairs), 1)
        ]
    found, scores = predictor.predict_with_scores(items, source)
    return Predictions(predictor.kind, tuple(one.content for one in found), scores)


def _rows(
    texts: Sequence[str], pairs: Sequence[str | Sequence[str]] | None
) -> list[tuple[str | Sequence[str], ...]]:
    if pairs is None:
        return [(text,) for text in texts]
    return list(zip(texts, pairs, strict=True))


def _check_texts(
    texts: Sequence[str] | None,
    pairs: Sequence[str | Sequence[str]] | None,
    file: str | Path | None,
    count: int,
) -> None:
    """Raise `UserError` for arguments of `predict` that do not go together."""
    if (texts is None) == (file is None):
        raise UserError("`texts` or `file`: give one of them")
    if isinstance(texts, str) or isinstance(pairs, str):
        raise UserError("`texts` and `pairs`: expected lists of texts, found one text")
    if texts is not None and not texts:
        raise UserError("`texts`: expected one or more")
    if pairs is not None and len(pairs) != len(texts or ()):
        raise UserError(f"`pairs`: {len(pairs)} of them for {len(texts or ())} texts")
    if count < 1:
        raise UserError(f"`count` {count}: expected 1 or more")
