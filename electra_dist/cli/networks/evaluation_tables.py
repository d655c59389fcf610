"""An evaluation on the terminal: tables of scores, and passages that are marked up."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from electra_dist.cli.parsers import console
from electra_dist.console import human_number

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

    from electra_dist.evaluate import Evaluation
    from electra_dist.evaluate.passages import Piece, ShownPassage
    from electra_dist.evaluate.sources import SourceScores


def print_evaluation(evaluation: Evaluation) -> None:
    """All of it, on standard output."""
    target = console()
    if evaluation.own_shards:
        whose = ""
    else:
        whose = ", which are not the run's own"
    step = ""
    if evaluation.step is not None:
        step = f" at step {evaluation.step:,}"
    print(
        f"{evaluation.run}{step}, fp32 on {evaluation.device}:"
        f" {evaluation.rows:,} held-out rows of {evaluation.row_length} from"
        f" {evaluation.shards}{whose}; {evaluation.discriminator.tokens:,} tokens,"
        f" {evaluation.generator.masked_tokens:,} of them masked"
    )
    target.print(_networks(evaluation))
    if evaluation.sources:
        target.print(_sources(evaluation))
    for table in (_bands(evaluation), _convincing(evaluation)):
        target.print(table)
    for passage in evaluation.passages:
        target.print(_marked_up(passage))
    if evaluation.passages:
        target.print(f"\n{_LEGEND}", markup=False, highlight=False)


def _networks(evaluation: Evaluation) -> Table:
    from rich.table import Table

    table = Table("", title="networks", title_justify="left")
    table.add_column("held out", justify="right")
    table.add_column("±", justify="right")
    table.add_column("to compare with")
    errors = evaluation.standard_errors
    spread = {
        "generator loss, nats per masked token": errors.generator_loss,
        "generator accuracy": errors.generator_accuracy,
        "discriminator loss, nats per token": errors.discriminator_loss,
        "discriminator AUC": errors.discriminator_auc,
    }
    for name, value, other in _figures(evaluation):
        error = spread.get(name)
        if name == "generator perplexity":
            number = f"{value:,.1f}"
        else:
            number = human_number(value)
        table.add_row(name, number, "" if error is None else f"{error:.3f}", other)
    return table


def _figures(evaluation: Evaluation) -> list[tuple[str, float | None, str]]:
    """Name, value, and what to compare it with, of each line of the table."""
    generator = evaluation.generator
    judge = evaluation.discriminator
    entropy = generator.unigram_entropy
    fraction = judge.replaced_fraction
    return [
        (
            "generator loss, nats per masked token",
            generator.loss,
            f"{entropy:.3f}  unigram entropy of the corpus",
        ),
        (
            "generator perplexity",
            generator.perplexity,
            f"{math.exp(entropy):,.1f}  its exponential",
        ),
        ("generator accuracy", generator.accuracy, ""),
        ("generator top-5 accuracy", generator.top5_accuracy, ""),
        *_classes(evaluation),
        (
            "discriminator loss, nats per token",
            judge.loss,
            f"{_entropy(fraction):.3f}  entropy of the replaced fraction",
        ),
        (
            "discriminator accuracy",
            judge.accuracy,
            f"{judge.always_original_accuracy:.3f}  always `original`",
        ),
        ("discriminator AUC", judge.auc, "0.500  chance"),
        (
            "discriminator average precision",
            judge.average_precision,
            f"{fraction:.3f}  chance: the replaced fraction",
        ),
        ("discriminator precision", judge.precision, f"{fraction:.3f}  chance"),
        ("discriminator recall", judge.recall, ""),
        ("discriminator F1", judge.f1, ""),
        (
            "Brier score",
            judge.brier,
            f"{judge.brier_of_replaced_fraction:.3f}  always the replaced fraction",
        ),
        ("expected calibration error", judge.expected_calibration_error, ""),
    ]


def _classes(evaluation: Evaluation) -> list[tuple[str, float | None, str]]:
    """The lines of the generator as a classifier over the vocabulary."""
    generator = evaluation.generator
    classes = f"{generator.classes:,} entries"
    return [
        ("generator precision, macro over the vocabulary", generator.precision_macro, classes),
        ("generator recall, macro over the vocabulary", generator.recall_macro, ""),
        ("generator F1, macro over the vocabulary", generator.f1_macro, ""),
        ("generator precision, weighted", generator.precision_weighted, ""),
        ("generator recall, weighted", generator.recall_weighted, "the accuracy"),
        ("generator F1, weighted", generator.f1_weighted, ""),
    ]


def _sources(evaluation: Evaluation) -> Table:
    from rich.table import Table

    table = Table(
        title="by source: generator (G) and discriminator (D) on its held-out rows",
        title_justify="left",
        padding=(0, 0),
    )
    table.add_column("source", overflow="fold")
    names = ("rows", "masked", "G loss", "±", "unigram", "G acc", "tokens", "D loss", "±", "D AUC")
    for name in names:
        table.add_column(name, justify="right")
    for source in evaluation.sources:
        table.add_row(source.name, f"{source.rows:,}", *_of_source(source))
    return table


def _of_source(source: SourceScores) -> tuple[str, ...]:
    """The cells after its rows; none where nothing is held out."""
    generator = source.generator
    judge = source.discriminator
    errors = source.standard_errors
    if generator is None or judge is None or errors is None:
        return ()
    return (
        f"{generator.masked_tokens:,}",
        _short(generator.loss),
        _short(errors.generator_loss),
        _short(generator.unigram_entropy),
        _short(generator.accuracy),
        f"{judge.tokens:,}",
        _short(judge.loss),
        _short(errors.discriminator_loss),
        _short(judge.auc),
    )


def _bands(evaluation: Evaluation) -> Table:
    from rich.table import Table

    title = (
        "by frequency rank in the training split: generator (G) by the masked token,"
        " discriminator (D) by the shown"
    )
    table = Table(title=title, title_justify="left", padding=(0, 0))
    table.add_column("rank", no_wrap=True)
    for name in (
        "masked",
        "G loss",
        "unigram",
        "G acc",
        "G top-5",
        "shown",
        "replaced",
        "D AUC",
        "D recall",
    ):
        table.add_column(name, justify="right")
    for band in evaluation.bands:
        table.add_row(
            band.name,
            f"{band.masked_tokens:,}",
            *map(_short, (band.loss, band.unigram_loss, band.accuracy, band.top5_accuracy)),
            f"{band.shown_tokens:,}",
            f"{band.replaced:,}",
            *map(_short, (band.auc, band.recall)),
        )
    return table


def _convincing(evaluation: Evaluation) -> Table:
    from rich.table import Table

    table = Table(
        title="replaced tokens, by the generator's probability of them", title_justify="left"
    )
    table.add_column("probability")
    for name in ("replaced", "D recall", "mean D probability"):
        table.add_column(name, justify="right")
    for row in evaluation.convincing:
        name = f"{row.low:g} to {row.high:g}"
        table.add_row(name, f"{row.replaced:,}", _short(row.recall), _short(row.mean_probability))
    return table


#: How a token that is nothing but a space is shown.
_SPACE = "␣"
_LEGEND = (
    "[original→sampled p] replaced, [token p] masked and sampled again, {token p} not masked but"
    " called replaced; p: the discriminator's probability of `replaced`"
)


def _marked_up(passage: ShownPassage) -> Text:
    """A passage with its marks; colours where the terminal has them."""
    from rich.text import Text

    text = Text(f"\n{passage.kind} passage, discriminator loss {passage.loss:.3f}: ", style="bold")
    for piece in passage.pieces:
        marked, style = mark(piece)
        bare = marked.lstrip(" ")
        text.append(marked[: len(marked) - len(bare)], "not bold")
        text.append(bare, f"not bold {style}")
    return text


def mark(piece: Piece) -> tuple[str, str]:
    """The text of one token with its mark, and its style."""
    space = piece.text[: len(piece.text) - len(piece.text.lstrip(" "))]
    word = piece.text[len(space) :]
    probability = f"{piece.probability:.2f}"
    called = piece.probability >= 0.5
    if called:
        colour = "green"
    else:
        colour = "red"
    if piece.replaced:
        proposed = (piece.proposed or "").strip(" ")
        return f"{space}[{word or _SPACE}→{proposed or _SPACE} {probability}]", colour
    if piece.proposed is not None:
        return f"{space}[{word} {probability}]", "yellow" if called else "cyan"
    if called:
        return (f"{space}{{{word} {probability}}}", "yellow")
    return (piece.text, "")


def _entropy(fraction: float) -> float:
    """Loss of a discriminator that always answers with the replaced fraction, in nats."""
    return -sum(p * math.log(p) for p in (fraction, 1 - fraction) if p > 0)


def _short(value: float | None) -> str:
    """For narrow columns: a dash for what is undefined."""
    if value is None:
        return "-"
    return f"{value:.3f}"
