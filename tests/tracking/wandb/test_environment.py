"""What the environment says of W&B: the more private of it and the configuration holds;
nothing is ignored silently.
"""

from __future__ import annotations

import pytest

from electra_dist.errors import ConfigError
from electra_dist.tracking.wandb import Mode, choose_mode
from electra_dist.tracking.wandb.environment import mirror_environment


@pytest.mark.parametrize(
    ("key", "variable", "chosen", "sentences"),
    [
        ("offline", "", "offline", 0),
        ("offline", "WANDB_MODE=offline", "offline", 0),
        ("online", "WANDB_MODE=offline", "offline", 1),
        ("online", "WANDB_MODE=dryrun", "offline", 1),
        ("online", "WANDB_MODE=disabled", "disabled", 1),
        ("offline", "WANDB_MODE=online", "offline", 1),
        ("disabled", "WANDB_MODE=online", "disabled", 1),
        ("online", "WANDB_DISABLED=true", "disabled", 1),
        ("online", "WANDB_DISABLED=false", "online", 0),
    ],
)
def test_the_more_private_mode_holds(
    key: Mode, variable: str, chosen: Mode, sentences: int
) -> None:
    name, _, value = variable.partition("=")
    choice = choose_mode(key, {name: value} if name else {})
    assert choice.mode == chosen
    assert len(choice.said) == sentences
    assert all(variable in sentence for sentence in choice.said)


def test_a_mode_that_wandb_does_not_have_is_refused() -> None:
    with pytest.raises(
        ConfigError, match="WANDB_MODE = 'of': expected online, offline or disabled"
    ):
        choose_mode("offline", {"WANDB_MODE": "of"})


def test_facts_of_a_run_are_not_taken_from_the_environment() -> None:
    environment = {
        "WANDB_RUN_ID": "x",
        "WANDB_DIR": "/d",
        "WANDB_API_KEY": "k",
        "WANDB_SERVICE": "s",
        "PATH": "p",
    }
    (sentence,) = choose_mode("offline", environment).said
    assert "WANDB_DIR, WANDB_RUN_ID" in sentence
    assert choose_mode("disabled", environment).said == ()
    assert mirror_environment(environment) == {"WANDB_API_KEY": "k", "PATH": "p"}
