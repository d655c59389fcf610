"""What the environment says of W&B: the more private of WANDB_MODE and `tracking.wandb` holds; a
run's own facts win.

In: the environment of training and `tracking.wandb`. Out: the mode, the environment of the mirror,
and the sentences that say what was not taken as it stood.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple

from electra_dist.errors import ConfigError

Mode = Literal["online", "offline", "disabled"]
_PRIVACY: tuple[Mode, ...] = ("online", "offline", "disabled")
#: What W&B takes for WANDB_MODE -> what it comes to.
_MODES: dict[str, Mode] = {
    "online": "online",
    "run": "online",
    "shared": "online",
    "offline": "offline",
    "dryrun": "offline",
    "disabled": "disabled",
}
#: Facts of a run that stand in its configuration, run.json and directory;
#: W&B would take them from here instead.
_NOT_FOLLOWED = (
    "WANDB_DIR",
    "WANDB_JOB_TYPE",
    "WANDB_NAME",
    "WANDB_NOTES",
    "WANDB_PROJECT",
    "WANDB_RESUME",
    "WANDB_RUN_GROUP",
    "WANDB_RUN_ID",
    "WANDB_TAGS",
)
#: Spoken for by `choose_mode`, or of another process: the socket of a service that may be gone.
_TAKEN_OUT = ("WANDB_MODE", "WANDB_DISABLED", "WANDB_SERVICE")


class Choice(NamedTuple):
    """The mode of W&B, and one sentence for each thing of the environment
    that changed it or was not followed.
    """

    mode: Mode
    said: tuple[str, ...]


def choose_mode(key: Mode, environment: Mapping[str, str]) -> Choice:
    """The more private of `tracking.wandb` (`key`) and WANDB_MODE;
    raises `ConfigError` for a mode W&B has not.
    """
    wanted = _environment_mode(environment)
    if wanted is None:
        return Choice(key, _not_followed(key, environment))
    name, mode = wanted
    chosen = max(key, mode, key=_PRIVACY.index)
    said: tuple[str, ...] = ()
    if chosen != key:
        said = (
            f"W&B is {chosen}: {name} of the environment is more private than tracking.wandb ="
            f" {key}",
        )
    elif chosen != mode:
        said = (
            f"W&B is {chosen}, as tracking.wandb says: {name} of the environment would be less"
            " private",
        )
    return Choice(chosen, said + _not_followed(chosen, environment))


def _environment_mode(environment: Mapping[str, str]) -> tuple[str, Mode] | None:
    """What is set, as `NAME=value`, and the mode that it means."""
    disabled = environment.get("WANDB_DISABLED", "")
    if disabled.lower() in ("1", "true", "yes", "on"):
        return f"WANDB_DISABLED={disabled}", "disabled"
    value = environment.get("WANDB_MODE", "")
    if not value:
        return None
    if value.lower() not in _MODES:
        raise ConfigError(
            f"environment: WANDB_MODE = {value!r}: expected online, offline or disabled; unset it,"
            " or set one of them"
        )
    return f"WANDB_MODE={value}", _MODES[value.lower()]


def _not_followed(mode: Mode, environment: Mapping[str, str]) -> tuple[str, ...]:
    if mode != "disabled":
        found = [name for name in _NOT_FOLLOWED if environment.get(name)]
    else:
        found = []
    if not found:
        return ()
    return (
        f"W&B does not follow {', '.join(found)} of the environment: the configuration and"
        " run.json say these",
    )


def mirror_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment of the mirror: without what the run itself decides,
    and without another process's service.
    """
    dropped = {*_NOT_FOLLOWED, *_TAKEN_OUT}
    return {name: value for name, value in environment.items() if name not in dropped}
