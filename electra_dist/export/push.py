"""Pushing a model folder to the Hugging Face hub, by `huggingface_hub`.

Comes in: a folder that an export or a fine-tuning of ours wrote. Goes out: one commit with the
files that it wrote, and nothing else of the folder.

The token is the library's own business: from `HF_TOKEN`, or from where `hf auth login` keeps it. It
stands in no message and no file of ours.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from electra_dist.errors import UserError
from electra_dist.finetune.model_folder import MARKER, ModelFolder
from electra_dist.finetune.own_files import CARD, changed_files, own_files

_REPOSITORY = re.compile(r"[\w.-]{1,96}/[\w.-]{1,96}", re.ASCII)
#: What the hub means by the status of an answer, and what to do.
_REFUSALS = {
    401: "the hub does not know your token; log in again with `hf auth login`, or set HF_TOKEN",
    403: "your token may not write there; make one with write access to this name",
    404: "the hub knows no such owner or repository, or hides it from your token",
    409: "somebody else changes it at this moment; push again",
    412: "somebody else changed it at this moment; push again",
    413: "the hub takes no files of this size",
    429: "the hub wants fewer requests; push again later",
}


@dataclass(frozen=True)
class PushReport:
    """Where a folder was pushed, and its files in the repository."""

    url: str
    commit: str
    files: list[str]

    def to_dict(self) -> dict[str, Any]:
        return {"pushed": asdict(self)}

    def summary(self) -> str:
        """One line for the terminal."""
        return f"pushed {len(self.files)} files to {self.url}"


def check_push(repository: str) -> None:
    """Raise `UserError` where a push cannot begin: a wrong name, a package or a token missing."""
    if not _REPOSITORY.fullmatch(repository):
        raise UserError(f"`push` {repository}: expected OWNER/NAME, as in jane/small-electra")
    if importlib.util.find_spec("huggingface_hub") is None:
        raise UserError(
            "huggingface_hub is not installed, and it talks to the hub; install the extra: pip"
            " install 'electra-dist[hub]'"
        )
    from huggingface_hub import get_token

    if get_token() is None:
        raise UserError(
            f"`push` {repository}: there is no token of the Hugging Face hub; log in with `hf auth"
            " login`, or set HF_TOKEN"
        )


def push(path: Path, repository: str, private: bool) -> PushReport:
    """Push the files of the folder `path` that an export wrote, as one commit; a repository that
    does not exist is made, with `private` as a private one.

    Raises `UserError` where the folder is not ours, a file but the card was changed since, the
    repository is public against `private`, or the hub refuses.
    """
    check_push(repository)
    from huggingface_hub import CommitOperationAdd, HfApi

    files = files_to_push(path)
    api = HfApi(library_name="electra-dist")
    with _one_sentence(repository):
        # not asked for: what is usual for this owner
        url = str(api.create_repo(repository, private=private or None, exist_ok=True))
        if private and not api.repo_info(repository).private:
            raise UserError(
                f"`private`: {repository} exists on the hub and is public; nothing was pushed, give"
                " another name or make it private there"
            )
        commit = api.create_commit(
            repository,
            [CommitOperationAdd(name, path / name) for name in files],
            commit_message="Model written by electra-dist",
        )
    return PushReport(url, str(commit.oid), files)


def files_to_push(path: Path) -> list[str]:
    """The files in `path` that an export wrote; the card also where somebody has edited it.

    Raises `UserError` where the folder has no marker, or another file was changed.
    """
    folder = ModelFolder.open(path)
    if not folder.marker:
        raise UserError(
            f"{path}: has no {MARKER}, so which of its files are the model's is not known; push a"
            " folder that `electra-dist export` or `finetune` wrote"
        )
    listed = folder.marker.get("files")
    names = own_files(path, listed)
    changed = changed_files(path, listed)
    if CARD in changed:
        names.append(CARD)
    others = [name for name in changed if name != CARD]
    if others:
        raise UserError(
            f"{path}: {', '.join(others[:5])} was changed since the export; nothing was pushed,"
            " export again"
        )
    return sorted(names)


@contextmanager
def _one_sentence(repository: str) -> Iterator[None]:
    """What the hub or the network says against a push becomes one `UserError`.

    Messages of the libraries are left out but for their kind: they may quote a request.
    """
    # HTTPError is that of the client that this version of the library talks with
    from huggingface_hub.errors import HfHubHTTPError, HTTPError, OfflineModeIsEnabled

    problem = None
    try:
        yield
    except HfHubHTTPError as error:
        status = error.response.status_code
        problem = f"the hub answered {status}: " + _REFUSALS.get(
            status, "see https://status.huggingface.co, and push again later"
        )
    except OfflineModeIsEnabled:
        problem = "HF_HUB_OFFLINE is set, and a push needs the hub"
    except (HTTPError, OSError) as error:
        problem = f"the hub cannot be reached ({type(error).__name__}); check the network"
    if problem is not None:
        raise UserError(f"`push` {repository}: {problem}")
