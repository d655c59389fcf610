"""An exported pair, which is evaluated without its run: a folder with both networks as
`electra-dist export` writes them.

    PAIR/
        discriminator/    config.json  model.safetensors  tokenizer.json  electra_dist.json  ...
        generator/        the same files of the other network

Comes in: such a folder, which may be anybody's. Goes out: a `Subject`. The weights go back into our
own networks, so that packed rows and masks are those of training; `transformers` is not needed.
How the run made and masked its held-out rows is in the marker of an export (`settings_of`). A pair
without these settings is evaluated with the defaults, and a warning says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NoReturn

import torch

from electra_dist import config as configuration
from electra_dist.architectures import find_architecture
from electra_dist.architectures.names import State
from electra_dist.batch import SPECIAL_TOKENS
from electra_dist.config import NETWORKS, Config, Network
from electra_dist.console import warn
from electra_dist.data.shards.files import sha256_of_file
from electra_dist.data.sources import RunData
from electra_dist.errors import UserError
from electra_dist.evaluate.heldout import Networks
from electra_dist.evaluate.subject import Loaded
from electra_dist.files.tokenizers import TOKENIZER_FILE
from electra_dist.finetune.model_folder import MARKER, WEIGHTS, ModelFolder
from electra_dist.finetune.own_files import changed_files
from electra_dist.model.discriminator import Discriminator
from electra_dist.model.generator import Generator

#: Where an export keeps the settings, and the keys of a configuration that they are.
SETTINGS = "evaluation"
_KEYS: dict[str, tuple[str, ...]] = {
    "data": ("row_length", "max_documents_per_row", "mask_fraction", "mask_token_fraction"),
    "model": ("architecture", "temperature"),
    "train": ("seed", "micro_rows"),
    "validation": ("rows",),
}
#: Rows of a micro-batch where an export does not say it.
_MICRO_ROWS = 8
#: Of a micro-batch; the file that names its rows may be anybody's.
_MOST_TOKENS = 2**24
#: Of a message of PyTorch, which may name every parameter.
_MOST_LETTERS = 300
#: Keys of config.json that change what is computed.
_COMPUTED = (
    "vocab_size",
    "embedding_size",
    "max_position_embeddings",
    "type_vocab_size",
    "hidden_act",
    "layer_norm_eps",
)
#: What both networks of a pair must say alike.
_OF_ONE_EXPORT = ("run", "run_id", "step")


def settings_of(config: Config, data_fingerprint: str) -> dict[str, Any]:
    """What the evaluation of an export has to know of the run, for its marker."""
    found: dict[str, Any] = {"dataset_fingerprint": data_fingerprint}
    for section, keys in _KEYS.items():
        values = getattr(config, section)
        found[section] = {key: getattr(values, key) for key in keys}
    return found


def is_pair(path: Path) -> bool:
    """Whether a folder is meant as an exported pair or a part of one, not as a run."""
    if (path / "config.yaml").is_file():
        return False
    parts = [path / network for network in NETWORKS]
    return (path / MARKER).is_file() or any(part.is_dir() for part in parts)


@dataclass(frozen=True)
class ExportedPair:
    """Both networks of one export. A `Subject`."""

    path: Path
    folders: Mapping[Network, ModelFolder]

    @classmethod
    def open(cls, path: Path) -> ExportedPair:
        """Look at both folders without loading weights; raises `UserError` where one is missing or
        damaged, or where they are not of one export.
        """
        folders: dict[Network, ModelFolder] = {}
        for network in NETWORKS:
            if not (path / network).is_dir():
                _refuse_alone(path, network)
            folders[network] = ModelFolder.open(path / network)
            if folders[network].marker and folders[network].kind != network:
                raise UserError(
                    f"{path / network}: holds a model of the kind {folders[network].kind!r},"
                    f" expected a {network}; export it there: electra-dist export RUN --network"
                    f" {network} --out {path / network}"
                )
        pair = cls(path, folders)
        pair._check_same_export()
        return pair

    @property
    def tokenizer(self) -> Path:
        """As in `Subject`; that of both networks."""
        return self.folders["discriminator"].path

    @property
    def tokenizer_fingerprint(self) -> str:
        """As in `Subject`. An export writes the same tokenizer in another way, and notes its own; a
        file that was changed since then speaks for itself.
        """
        marker = self.folders["discriminator"].marker
        noted = marker.get("tokenizer_fingerprint")
        changed = changed_files(self.tokenizer, marker.get("files"))
        if isinstance(noted, str) and TOKENIZER_FILE not in changed:
            return noted
        return sha256_of_file(self.tokenizer / TOKENIZER_FILE)

    @property
    def data_fingerprint(self) -> str | None:
        """As in `Subject`."""
        found = self._settings.get("dataset_fingerprint")
        if isinstance(found, str):
            return found
        return None

    @cached_property
    def config(self) -> Config:
        """As in `Subject`: the settings of the export, and the sizes that its weights have."""
        marker = self.folders["discriminator"].path / MARKER
        settings = self._settings
        tree: dict[str, Any] = {}
        for section, keys in _KEYS.items():
            values = settings.get(section, {})
            if not isinstance(values, dict):
                raise UserError(f"{marker}: {SETTINGS}.{section} is no object; export it again")
            tree[section] = {key: values[key] for key in keys if key in values}
        return configuration.build(self._completed(tree), str(marker))

    def _completed(self, tree: dict[str, Any]) -> dict[str, Any]:
        """A configuration that can be built: with the sizes, and one step of training, which no
        evaluation looks at.
        """
        sizes = self.folders["generator"].config
        positions = sizes["max_position_embeddings"]
        tree["model"] |= {
            "embedding_size": sizes["embedding_size"],
            "max_positions": positions,
            "layer_norm_epsilon": sizes.get("layer_norm_eps", 1e-12),
            "embedding_sharing": "none",
        }
        for network in NETWORKS:
            own = self.folders[network].config
            tree["model"][network] = {
                "layers": own["num_hidden_layers"],
                "hidden_size": own["hidden_size"],
                "heads": own["num_attention_heads"],
                "ffn_size": own["intermediate_size"],
            }
        unused = {"shards": str(self.path), "streams": 1}
        tree["data"] = unused | {"row_length": positions} | tree["data"]
        rows = tree["train"].get("micro_rows", _MICRO_ROWS)
        tree["train"] |= {"steps": 1, "global_rows": rows, "micro_rows": rows}
        tree["optim"] = {"warmup_steps": 0}
        return tree

    @property
    def _settings(self) -> dict[str, Any]:
        found = self.folders["discriminator"].marker.get(SETTINGS)
        if isinstance(found, dict):
            return found
        return {}

    @property
    def _step(self) -> int | None:
        step = self.folders["discriminator"].marker.get("step")
        if isinstance(step, int):
            return step
        return None

    def check(self) -> None:
        """As in `Subject`: whether `config.json` describes the networks that we would build, and
        the marker no micro-batch that fills the memory.
        """
        config = self.config
        tokens = config.train.micro_rows * config.data.row_length
        if tokens > _MOST_TOKENS:
            raise UserError(
                f"{self.tokenizer / MARKER}: train.micro_rows = {config.train.micro_rows} makes"
                f" micro-batches of {tokens:,} tokens, expected at most {_MOST_TOKENS:,}"
            )
        names = find_architecture(config.model.architecture).names()
        for network, folder in self.folders.items():
            vocabulary = self.folders["generator"].config["vocab_size"]
            expected = names.hf_config(config.model, vocabulary, network, SPECIAL_TOKENS)
            for key in _COMPUTED:
                if folder.config.get(key, expected[key]) != expected[key]:
                    raise UserError(
                        f"{folder.path / 'config.json'}: {key} is {folder.config[key]!r}, expected"
                        f" {expected[key]!r}; are generator and discriminator of one training?"
                    )

    def own_data(self) -> RunData:
        """As in `Subject`."""
        raise UserError(
            f"{self.path}: is an exported pair, which does not have the shards of its run; give"
            " `shards`, encoded with its tokenizer"
        )

    def load(self) -> Loaded:
        """As in `Subject`; warns of settings that are not known."""
        unknown = [
            f"{section}.{key}"
            for section, keys in _KEYS.items()
            for key in keys
            if key not in self._settings.get(section, {})
        ]
        if unknown:
            warn(
                f"{self.path}: does not say how held-out rows were made and masked in training (an"
                " export of an earlier version, or of another program); taking the defaults of"
                f" {', '.join(unknown)}"
            )
        return Loaded(self._step, self.load_step(self._step))

    def load_step(self, step: int | None) -> Networks:
        """As in `Subject`; there is one step."""
        model = self.config.model
        vocabulary = self.folders["generator"].config["vocab_size"]
        with torch.device("meta"):
            networks = Networks(
                Generator(model, vocabulary, "sdpa"), Discriminator(model, vocabulary, "sdpa")
            )
        for network in NETWORKS:
            module = getattr(networks, network)
            try:
                module.load_state_dict(self._state(network), assign=True)
            except RuntimeError as error:
                words = " ".join(str(error).split())
                raise UserError(
                    f"{self.folders[network].path / WEIGHTS}: does not hold the {network} of its"
                    f" config.json: {words[:_MOST_LETTERS]}"
                ) from error
            module.eval()
        return networks

    def _state(self, network: Network) -> State:
        """Our parameters of a network, fp32."""
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        file = self.folders[network].path / WEIGHTS
        try:
            theirs = load_file(file)
        except SafetensorError as error:
            raise UserError(f"{file}: cannot be read: {error}; export it again") from error
        names = find_architecture(self.config.model.architecture).names()
        ours = names.from_huggingface(theirs, network)
        for name, tensor in ours.items():
            if not bool(tensor.isfinite().all()):
                raise UserError(
                    f"{file}: {name} holds numbers that are not finite; the model diverged, or the"
                    " file is damaged"
                )
        return {name: tensor.float() for name, tensor in ours.items()}

    def _check_same_export(self) -> None:
        generator = self.folders["generator"]
        discriminator = self.folders["discriminator"]
        for key in _OF_ONE_EXPORT:
            one = generator.marker.get(key)
            other = discriminator.marker.get(key)
            if one != other:
                raise UserError(
                    f"{self.path}: the generator is of {key} {one!r}, the discriminator of"
                    f" {other!r}; export both from one checkpoint"
                )
        files = [folder.path / TOKENIZER_FILE for folder in (generator, discriminator)]
        if sha256_of_file(files[0]) != sha256_of_file(files[1]):
            raise UserError(
                f"{files[0]}: differs from {files[1]}; both networks of a pair have one tokenizer"
            )


def _refuse_alone(path: Path, missing: Network) -> NoReturn:
    """Say what a folder without one of the networks is, and how to make a pair."""
    if (path / MARKER).is_file():
        found = "is one exported network"
    else:
        found = f"has no folder {missing}"
    raise UserError(
        f"{path}: {found}; an evaluation needs both networks side by side: electra-dist export RUN"
        " --network generator --out PAIR/generator, and the same for discriminator"
    )
