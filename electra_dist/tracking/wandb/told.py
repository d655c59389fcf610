"""What W&B is told of a run beside its rows: its configuration, data, machines and versions.

Comes in: config.yaml and run.json. Goes out: one dictionary that JSON takes. Where things lie on
this machine is nobody's concern: of an absolute path the last name is left, of a URL neither user
nor parameters, and no host is named.
"""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from electra_dist.config import Config
from electra_dist.files.urls import is_url
from electra_dist.runs.facts import KeyChange, RunFacts, Start

#: An absolute path inside a text, or one in somebody's home.
_PATH = re.compile(r"(?<![\w.:/~-])~?(?:/[^\s/:,;'\"]+)+/?")


def told(config: Config, facts: RunFacts) -> dict[str, Any]:
    """The configuration of the W&B run: every key of config.yaml, and facts of run.json."""
    content = config.model_dump(mode="json")
    content["tracking"]["on_event"] = _program(config.tracking.on_event)
    return {
        **_without_places(content),
        "dataset": _dataset(facts),
        **_networks(facts),
        **_start(facts.starts),
        "changes": [_change(change) for change in facts.changes],
    }


def without_places(value: str) -> str:
    """A text without absolute paths, and without what a URL says beside its place."""
    if is_url(value):
        return _address(value)
    if value.startswith(("/", "~")) and " /" not in value:
        return PurePosixPath(value).name
    return _PATH.sub(lambda found: PurePosixPath(found[0]).name, value)


def _address(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme.lower() == "file":
        return PurePosixPath(parts.path).name
    host = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{host}{parts.path}"


def _without_places(value: Any) -> Any:
    if isinstance(value, str):
        return without_places(value)
    if isinstance(value, dict):
        return {name: _without_places(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_without_places(one) for one in value]
    return value


def _program(command: tuple[str, ...]) -> list[str]:
    """The name of a program; its arguments may be keys and addresses."""
    if len(command) > 1:
        return [command[0], "..."]
    return list(command)


def _dataset(facts: RunFacts) -> dict[str, Any]:
    found: dict[str, Any] = {"fingerprint": facts.dataset_fingerprint}
    if facts.about is not None:
        found |= {
            "tokens": facts.about.corpus_tokens,
            "vocab_size": facts.about.vocab_size,
            "tokenizer": facts.about.tokenizer,
            "unigram_entropy": facts.about.unigram_entropy,
        }
    return found


def _networks(facts: RunFacts) -> dict[str, Any]:
    """Sizes of the networks; nothing where an earlier version made the run."""
    about = facts.about
    if about is None:
        return {}
    return {
        "parameters": {
            "total": about.parameters,
            "generator": about.generator_parameters,
            "discriminator": about.discriminator_parameters,
        },
        "promised_tokens_per_s": about.promised_tokens_per_s,
    }


def _start(starts: tuple[Start, ...]) -> dict[str, Any]:
    """Machines and versions of the newest start; nothing before the first one."""
    if not starts:
        return {"starts": 0}
    newest = starts[-1]
    return {
        "starts": len(starts),
        "machines": {
            "world_size": newest.world_size,
            "nodes": newest.nodes,
            "device": newest.device,
            "slurm_job": newest.job_id,
        },
        "versions": {
            **{version.package: version.number for version in newest.software},
            "revision": newest.revision,
        },
    }


def _change(change: KeyChange) -> dict[str, Any]:
    old = _without_places(change.old)
    new = _without_places(change.new)
    return {"step": change.step, "key": change.key, "old": old, "new": new}
