"""Opening the folder of a model: what kind it is, and the encoder with a task's head on it, offline
and without pickle.

The kind is in the marker that an export or a fine-tuning of ours leaves beside the weights; a
folder without one is taken for a discriminator as `transformers` keeps it, when its configuration
says ELECTRA. What the folder claims is held against its weights first (`model_claims`).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from electra_dist.errors import UserError
from electra_dist.files import tokenizers
from electra_dist.files.reading import (
    MIB,
    NotRegularError,
    TooLargeError,
    read_bounded,
    read_json,
)
from electra_dist.files.tokenizers import CONFIG_FILE, LIMIT, TOKENIZER_FILE
from electra_dist.finetune.model_claims import check_entries, check_sizes

#: Marks a folder as an export or a fine-tuned model of ours.
MARKER = "electra_dist.json"
WEIGHTS = "model.safetensors"
#: What a folder of `transformers` may keep of a tokenizer.
TOKENIZER_FILES = (*tokenizers.TOKENIZER_FILES, "vocab.txt", "added_tokens.json")
#: Weights that only a task's head has.
_HEADS = ("classifier.", "qa_outputs.", "sequence_summary.")


@dataclass(frozen=True)
class ModelFolder:
    """A folder that `transformers` loads; `marker` is empty where it is not ours."""

    path: Path
    config: dict[str, Any]
    marker: dict[str, Any]

    @classmethod
    def open(cls, path: Path) -> ModelFolder:
        """Look at a folder without loading weights;
        raises `UserError` when it is not an ELECTRA model.
        """
        if (path / "checkpoints").is_dir():
            raise UserError(
                f"{path}: is a run; export its discriminator first: electra-dist export {path}"
                " --out DIR"
            )
        check_entries(path)
        config = _read_json(path / "config.json", f"{path}: not the folder of a model")
        if config.get("model_type") != "electra":
            raise UserError(
                f"{path}/config.json: model_type is {config.get('model_type')!r}; expected"
                " 'electra'"
            )
        for name in (WEIGHTS, TOKENIZER_FILE):
            if not (path / name).is_file():
                raise UserError(
                    f"{path}: has no {name}; a folder written by `electra-dist export` has"
                )
        if (path / TOKENIZER_FILE).stat().st_size > LIMIT:
            raise UserError(
                f"{path / TOKENIZER_FILE}: is larger than {LIMIT:,} bytes, the most that it can"
                " have"
            )
        sizes = check_sizes(path, config, path / WEIGHTS)
        if (path / MARKER).is_file():
            marker = _read_json(path / MARKER, "")
        else:
            marker = {}
        return cls(path, config | sizes, marker)

    @property
    def kind(self) -> str:
        """`discriminator`, `generator`, or the task that it was fine-tuned for."""
        return str(self.marker.get("task") or self.marker.get("network") or "discriminator")

    def fact(self, name: str) -> Any:
        """What the marker says under `name`; raises `UserError` where it says nothing."""
        if name not in self.marker:
            raise UserError(
                f"{self.path / MARKER}: has no {name!r}; was it written by `electra-dist finetune`?"
            )
        return self.marker[name]

    def tokenizer(self) -> Any:
        """The tokenizer of the folder; raises `UserError` where it cannot be read, or has ids that
        the model does not have.
        """
        from transformers import AutoTokenizer

        try:
            tokenizer = AutoTokenizer.from_pretrained(
                self.path, local_files_only=True, trust_remote_code=False
            )
        except (
            Exception
        ) as error:  # whatever the library meets in files that anybody may have written
            raise UserError(
                f"{self.path}: transformers cannot load its tokenizer: {_first_line(error)}"
            ) from error
        highest = max(tokenizer.get_vocab().values(), default=-1)
        if not 0 <= highest < self.config["vocab_size"]:
            raise UserError(
                f"{self.path / TOKENIZER_FILE}: its highest id is {highest}, but the model has"
                f" {self.config['vocab_size']} entries; is it the tokenizer of this model?"
            )
        return tokenizer

    def copy_tokenizer(self, target: Path) -> None:
        """Copy the tokenizer's files to the folder `target`, as they are, but free of what a
        training left in them: a truncation or padding, and a class that only newer versions of
        transformers know.
        """
        for name in TOKENIZER_FILES:
            try:
                content = read_bounded(self.path / name, LIMIT, follow=True)
            except FileNotFoundError:
                continue
            if name == TOKENIZER_FILE:
                content = _with(content, truncation=None, padding=None)
            if name == CONFIG_FILE and b'"TokenizersBackend"' in content:
                content = _with(content, tokenizer_class="PreTrainedTokenizerFast")
            (target / name).write_bytes(content)

    def load(self, auto_class: str, new_head: bool = False, **settings: Any) -> Any:
        """The model as `transformers.<auto_class>`; with `new_head`, its head starts at random,
        whether the folder has weights for one or not.

        Raises `UserError` when weights are missing, or not finite: nothing but a new head may start
        at random.
        """
        import transformers
        from transformers.utils import logging

        verbosity = logging.get_verbosity()
        logging.set_verbosity_error()  # it warns of the new head, which is checked below
        logging.disable_progress_bar()
        try:
            model, found = getattr(transformers, auto_class).from_pretrained(
                self.path,
                local_files_only=True,
                use_safetensors=True,
                trust_remote_code=False,
                output_loading_info=True,
                ignore_mismatched_sizes=new_head,
                **settings,
            )
        except (
            Exception
        ) as error:  # whatever the library meets in files that anybody may have written
            raise UserError(
                f"{self.path}: transformers cannot load it as {auto_class}: {_first_line(error)}"
            ) from error
        finally:
            logging.set_verbosity(verbosity)
        other = [name for name, *_ in found["mismatched_keys"]]
        missing = [
            name
            for name in (*found["missing_keys"], *other)
            if not (new_head and name.startswith(_HEADS))
        ]
        if missing:
            raise UserError(
                f"{self.path}: has no weights for {', '.join(sorted(missing)[:3])}; is the export"
                " whole?"
            )
        if new_head:
            _restart_head(model)
        self._check_finite(model)
        return model

    def _check_finite(self, model: Any) -> None:
        for name, parameter in model.named_parameters():
            if not bool(parameter.isfinite().all()):
                raise UserError(
                    f"{self.path / WEIGHTS}: {name} holds numbers that are not finite; the model"
                    " diverged, or the file is damaged"
                )


def _restart_head(model: Any) -> None:
    """Draw the head anew, as ELECTRA's own code starts it."""
    from torch import nn

    for name, module in model.named_modules():
        if isinstance(module, nn.Linear) and f"{name}.".startswith(_HEADS):
            nn.init.normal_(module.weight, std=model.config.initializer_range)
            nn.init.zeros_(module.bias)


def _with(content: bytes, **values: Any) -> bytes:
    """The JSON object `content` with other `values`; the same bytes where it has them already."""
    found = json.loads(content)
    if found | values == found:
        return content
    return json.dumps(found | values, ensure_ascii=False, indent=2).encode()


def _read_json(path: Path, what: str) -> dict[str, Any]:
    try:
        content = read_json(path, 16 * MIB, follow=True)
    except (NotRegularError, TooLargeError):
        raise
    except OSError as error:
        raise UserError(f"{what or path}: {path.name} cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise UserError(f"{path}: is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise UserError(f"{path}: is {type(content).__name__}; expected an object")
    return content


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:500]
