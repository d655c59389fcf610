"""What a model's folder claims, held against the weights that are there, before `transformers` is
let near it.

The folder may be anybody's. `transformers` builds whatever config.json asks for before it looks at
the weights: ten million layers, a table for a billion labels. It opens any file with a known name,
a FIFO too. Here every size is compared with the header of model.safetensors, which cannot claim
more than the file holds.
"""

from __future__ import annotations

import json
import math
import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from electra_dist.errors import UserError
from electra_dist.files.reading import MIB, open_regular

#: The weights' shapes by name.
Shapes = dict[str, tuple[int, ...]]

#: ELECTRA's own sizes, which hold where config.json does not name them.
_DEFAULTS = {
    "vocab_size": 30522,
    "embedding_size": 128,
    "hidden_size": 256,
    "num_hidden_layers": 12,
    "num_attention_heads": 4,
    "intermediate_size": 1024,
    "max_position_embeddings": 512,
    "type_vocab_size": 2,
}
_WORDS = "embeddings.word_embeddings.weight"
_LAYER = re.compile(r"encoder\.layer\.(\d{1,4})\.")
#: Keys that make `transformers` import or convert something:
#: no export and no fine-tuning of ours has them.
_FOREIGN = ("auto_map", "quantization_config")
_MOST_LABELS = 100_000
_MOST_ENTRIES = 10_000
_HEADER_LIMIT = 16 * MIB


def check_entries(folder: Path) -> None:
    """Raise `UserError` when anything in `folder` is neither a regular file nor a folder,
    links followed.
    """
    for number, entry in enumerate(folder.rglob("*")):
        if number == _MOST_ENTRIES:
            raise UserError(
                f"{folder}: has more than {_MOST_ENTRIES:,} files; a folder of a model has about"
                " ten"
            )
        try:
            mode = entry.stat().st_mode
        except OSError as error:
            raise UserError(
                f"{entry}: cannot be read ({error.strerror}); is the folder whole?"
            ) from error
        if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
            raise UserError(
                f"{entry}: is a special file; a folder of a model has regular files only"
            )


def check_sizes(folder: Path, config: Mapping[str, Any], weights: Path) -> dict[str, int]:
    """The sizes of the model, those that `config` does not name too; raises `UserError` when it
    asks for others than the weights have, or for what no model here needs.
    """
    source = folder / "config.json"
    for name in _FOREIGN:
        if name in config:
            raise UserError(
                f"{source}: has {name}; only plain ELECTRA models are loaded, without code of their"
                " own"
            )
    shapes = read_shapes(weights)
    sizes = {name: config.get(name, default) for name, default in _DEFAULTS.items()}
    for name, found in _sizes_of(shapes, weights).items():
        if type(sizes[name]) is not int or sizes[name] != found:
            raise UserError(
                f"{source}: {name} is {_short(sizes[name])}, but the weights have {found}; is it"
                " whole?"
            )
    heads = sizes["num_attention_heads"]
    if type(heads) is not int or heads < 1 or sizes["hidden_size"] % heads:
        raise UserError(
            f"{source}: num_attention_heads is {_short(heads)}; expected a divisor of hidden_size"
        )
    labels = config.get("num_labels", 2)
    names = config.get("id2label") or {}
    if type(labels) is not int or not 0 <= labels <= _MOST_LABELS or len(names) > _MOST_LABELS:
        raise UserError(
            f"{source}: more than {_MOST_LABELS:,} labels, or no number of them ({_short(labels)})"
        )
    return sizes


def read_shapes(weights: Path) -> Shapes:
    """Shapes of all tensors, from the header of a safetensors file;
    raises `UserError` when it is none.
    """
    try:
        with open_regular(weights, follow=True) as file:
            length = int.from_bytes(file.read(8), "little")
            if not 0 < length <= _HEADER_LIMIT:
                raise ValueError(f"a header of {length:,} bytes")
            header = json.loads(file.read(length))
            room = os.fstat(file.fileno()).st_size - 8 - length
        return {
            name: _shape(entry, room) for name, entry in header.items() if name != "__metadata__"
        }
    except OSError as error:
        raise UserError(f"{weights}: cannot be read ({error.strerror})") from error
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise UserError(
            f"{weights}: is no safetensors file: {_short(error)}; copy it again"
        ) from error


def _shape(entry: Any, room: int) -> tuple[int, ...]:
    """The shape of a tensor, of at least a byte an element, which lies in `room` bytes."""
    shape = tuple(entry["shape"])
    (first, end) = entry["data_offsets"]
    if not all(type(number) is int and number >= 0 for number in (*shape, first, end)):
        raise ValueError("a shape or a place that is none")
    if not math.prod(shape) <= end - first <= room:
        raise ValueError(f"a tensor of shape {shape} is not in the file")
    return shape


def _sizes_of(shapes: Shapes, weights: Path) -> dict[str, int]:
    """The sizes of the weights, each of them present as a whole matrix, so that building them takes
    no more memory.

    Raises `UserError` when a matrix is missing or has another shape than the others say.
    """
    words = next((name for name in shapes if name.endswith(_WORDS)), _WORDS)
    prefix = words.removesuffix(_WORDS)

    def size(name: str, axis: int) -> int:
        shape = shapes.get(prefix + name)
        if shape is None or len(shape) != 2:
            raise UserError(
                f"{weights}: has no weights for {prefix}{name}; is it an ELECTRA model, and whole?"
            )
        return shape[axis]

    layers = 1 + max(
        (int(match[1]) for name in shapes if (match := _LAYER.match(name, len(prefix)))), default=-1
    )
    projection = "embeddings_project.weight"
    embedding = size(_WORDS, 1)
    if layers:
        hidden = size("encoder.layer.0.attention.self.query.weight", 0)
    elif prefix + projection in shapes:
        hidden = size(projection, 0)
    else:
        hidden = embedding
    found = {
        "vocab_size": size(_WORDS, 0),
        "embedding_size": embedding,
        "hidden_size": hidden,
        "max_position_embeddings": size("embeddings.position_embeddings.weight", 0),
        "type_vocab_size": size("embeddings.token_type_embeddings.weight", 0),
        "num_hidden_layers": layers,
    }
    expected = {}
    if embedding != hidden:
        expected[projection] = (hidden, embedding)
    if layers:
        inner = size("encoder.layer.0.intermediate.dense.weight", 0)
        found["intermediate_size"] = inner
    for layer in range(layers):
        expected[f"encoder.layer.{layer}.attention.self.query.weight"] = (hidden, hidden)
        expected[f"encoder.layer.{layer}.intermediate.dense.weight"] = (inner, hidden)
    for name, shape in expected.items():
        if (size(name, 0), size(name, 1)) != shape:
            raise UserError(
                f"{weights}: {prefix}{name} has shape {shapes[prefix + name]}, expected {shape}"
            )
    return found


def _short(value: Any) -> str:
    if isinstance(value, int | float | str | None):
        return repr(value)[:80]
    return str(value)[:80]
