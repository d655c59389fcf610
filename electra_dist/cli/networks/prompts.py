"""`electra-dist predict --labels`: labels without training, by a discriminator and a prompt."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from electra_dist.cli.networks.chosen import only_model

if TYPE_CHECKING:
    import torch

    from electra_dist.finetune.predictor import Predictor

_TEMPLATE = "{text} It was {label}."


def add_options(parser: argparse.ArgumentParser) -> None:
    """Those of `predict` that are about prompts."""
    group = parser.add_argument_group("labels without training", "by a discriminator and a prompt")
    group.add_argument(
        "--labels",
        metavar="LABEL=WORDS,...",
        help="the labels, and the words that stand for each in the template; a label alone stands"
        " for itself",
    )
    group.add_argument(
        "--template",
        metavar="TEMPLATE",
        help=f"the prompt with {{text}} and {{label}} in it (default: {_TEMPLATE!r})",
    )
    group.add_argument(
        "--calibrate",
        action="store_true",
        help="divide by what each label gets without a text",
    )


def wanted(arguments: argparse.Namespace) -> bool:
    """Whether prompts are asked for; raises `UserError` for options that do not go together."""
    from electra_dist.errors import UserError

    if arguments.labels is None:
        for name in ("template", "calibrate"):
            if getattr(arguments, name):
                raise UserError(f"--{name}: is an option of --labels; give that too")
        return False
    return True


def open_prompted(arguments: argparse.Namespace, device: torch.device) -> Predictor:
    """The discriminator as a model of these labels."""
    from electra_dist.suspects.predictors import PromptPredictor
    from electra_dist.suspects.prompts import Prompt, Prompter, parse_labels

    model = only_model(arguments, "--labels")
    prompt = Prompt(arguments.template or _TEMPLATE, parse_labels(arguments.labels))
    return PromptPredictor(Prompter.open(model, prompt, device, arguments.calibrate))
