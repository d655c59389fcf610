"""config.yaml and run.json of a run directory: as they stand there, or as its checkpoints carry
them.

Comes in: a run directory, whatever a crash, a full disk or a person left of it. Goes out: what they
say, and a sentence for each that is lost or broken. Touches nothing; `start.open_run` writes. Needs
no torch.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from electra_dist import config as configuration
from electra_dist.config import Config
from electra_dist.errors import ConfigError, UserError
from electra_dist.runs.checkpoints.carried import all_carried
from electra_dist.runs.checkpoints.folders import saved_steps
from electra_dist.runs.directory import RunDir
from electra_dist.runs.facts import RunFacts


@dataclass(frozen=True)
class OwnFiles:
    """What the two files say.

    config     None where the run has none yet, or has lost it before anything was saved
    facts      None likewise
    whole      run.json stands there as it should; it is the last thing that a first start makes
    said       one sentence for each file that is not as a run left it
    """

    config: Config | None
    facts: RunFacts | None
    whole: bool
    said: tuple[str, ...]


def own_files(run: RunDir) -> OwnFiles:
    """Read both files; what is lost or broken comes from the newest checkpoint that carries it
    undamaged.

    Raises `UserError` where config.yaml can be had from nowhere and something was saved under it.
    """
    config, config_problem = _config(run)
    facts, facts_problem = _facts(run)
    whole = facts is not None
    said = []
    saved = bool(saved_steps(run))
    if config is None and (saved or run.facts.exists()):
        config, sentence = _lost_config(run, config_problem, saved)
        said.append(sentence)
    if facts is None and (saved or facts_problem is not None):
        facts, sentence = _lost_facts(run, facts_problem, saved)
        said.append(sentence)
    return OwnFiles(_with_changes(config, facts) if whole else config, facts, whole, tuple(said))


def _config(run: RunDir) -> tuple[Config | None, str | None]:
    """config.yaml; or what is wrong with it, where it is there."""
    if not run.config.exists():
        return None, None
    try:
        return configuration.load(run.config), None
    except ConfigError as error:
        return None, str(error).removeprefix(f"{run.config}: ")


def _facts(run: RunDir) -> tuple[RunFacts | None, str | None]:
    if not run.facts.exists():
        return None, None
    try:
        return run.read_facts(), None
    except UserError as error:
        return None, str(error).removeprefix(f"{run.facts}: ")


def _lost_config(run: RunDir, problem: str | None, saved: bool) -> tuple[Config | None, str]:
    what = f"{run.config}: {problem or 'is gone'}"
    for found in all_carried(run):
        if found.config_yaml is None:
            continue
        try:
            tree = configuration.parse_yaml(found.config_yaml, str(run.config))
            return configuration.build(tree), (
                f"{what}; restored from the checkpoint of step {found.step}"
            )
        except (ConfigError, TypeError, ValueError):
            continue
    if saved:
        raise UserError(
            f"{what}, and no checkpoint carries a copy that can be read. Put it back, or write it"
            f" again as it was: electra-dist config show CONFIG run.dir={run.path.parent}"
            f" run.name={run.path.name} > {run.config}"
        )
    return None, (
        f"{what}; nothing was saved under it, so it is written from the given configuration"
    )


def _with_changes(config: Config | None, facts: RunFacts | None) -> Config | None:
    """The configuration with the changes that run.json has recorded,
    which it knows before config.yaml does.
    """
    if config is None or facts is None or not facts.changes:
        return config
    values = (f"{one.key}={json.dumps(one.new)}" for one in facts.changes)  # JSON is YAML
    return configuration.build(
        configuration.apply_overrides(config.model_dump(mode="json"), list(values))
    )


def _lost_facts(run: RunDir, problem: str | None, saved: bool) -> tuple[RunFacts | None, str]:
    what = f"{run.facts}: {problem or 'is gone'}"
    for found in all_carried(run):
        if found.facts is not None:
            return found.facts, f"{what}; restored from the checkpoint of step {found.step}"
    if not saved:
        return None, f"{what}; nothing was saved yet, so it is made anew"
    return None, (
        f"{what}, and no checkpoint carries a copy; made anew: W&B shows a run of its own from here"
        " on, and that the shards are the same as before is taken for granted"
    )
