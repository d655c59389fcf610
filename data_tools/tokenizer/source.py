"""Any tokenizer that a user has, as the files that shards, runs and exports carry.

Comes in: a folder of `data tokenizer` or of `transformers`, a `tokenizer.json`, or a `vocab.txt`.
Goes out: `Source`, whose files `transformers.AutoTokenizer` loads with the ids of the shards.

What would give other ids there is mended here, and the card names each change: a length that texts
are cut to, padding, special tokens that nothing marks as such, a template that wraps a text in
other tokens than [CLS] and [SEP]. What cannot be mended is refused before anything is encoded.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tokenizers

from data_tools.tokenizer.mending import Draft, added_tokens, mend, parse_tokenizer
from data_tools.tokenizer.rules import transformers_config
from data_tools.tokenizer.vocabulary_file import read_vocabulary, word_piece
from electra_dist.batch import SpecialTokens
from electra_dist.errors import DataError
from electra_dist.files.tokenizers import (
    CARD_FILE,
    CONFIG_FILE,
    MODEL_FILE,
    REQUIRED_SPECIALS,
    SPECIAL_FILE,
    TOKENIZER_FILE,
    parse_object,
    read_tokenizer_file,
)

VOCABULARY_FILE = "vocab.txt"
#: What special tokens are called where no configuration says it.
_USUAL = {
    "pad": ("[PAD]", "<pad>"),
    "unk": ("[UNK]", "<unk>"),
    "cls": ("[CLS]", "<s>", "<cls>"),
    "sep": ("[SEP]", "</s>", "<sep>"),
    "mask": ("[MASK]", "<mask>"),
}


@dataclass(frozen=True)
class Source:
    """A tokenizer, its files as they are carried on, and the ids of its special tokens."""

    tokenizer: tokenizers.Tokenizer
    files: dict[str, bytes]
    specials: SpecialTokens


def open_source(path: Path) -> Source:
    """The tokenizer at `path`; raises `DataError` where it is missing, damaged or lacks a special
    token.
    """
    file = _find(path)
    around = _read_around(file)
    config = _json_or_nothing(around, CONFIG_FILE, file.parent)
    changes: list[str] = []
    if file.name.endswith(".txt"):
        vocabulary = read_vocabulary(_read(file), file)
        made, reason = word_piece(vocabulary, config)
        changes.append(f"made of {file.name}: {reason}")
        original = made.to_str(pretty=True).encode("utf-8")
    else:
        original = _read(file)
    tokenizer = parse_tokenizer(original, file)
    content = parse_object(original, file)
    _check_case(content, config, file)
    names, ids = _special_tokens(content, _named(around, config, file), file)
    draft = Draft(file, content, names, ids, changes)
    specials = _specials(draft)
    tokenizer = mend(draft, tokenizer, specials, around_masks=not _is_ours(config, names))
    if changes:
        original = tokenizer.to_str(pretty=True).encode("utf-8")
    if not changes and _is_ours(config, names):
        carried = {TOKENIZER_FILE: original, **around}
    else:
        carried = _carried(draft, tokenizer, original, around)
    return Source(tokenizer, carried, specials)


# --- reading --------------------------------------------------------------------------------------


def _find(path: Path) -> Path:
    """The file that decides: `tokenizer.json` of a folder, else its `vocab.txt`."""
    if not path.is_dir():
        if path.name.endswith((".json", ".txt")) or not path.exists():
            return path
        raise DataError(
            f"{path}: expected a folder, a {TOKENIZER_FILE} or a {VOCABULARY_FILE} of BERT"
        )
    for name in (TOKENIZER_FILE, VOCABULARY_FILE):
        if (path / name).exists() or (path / name).is_symlink():
            return path / name
    others = ", ".join(sorted(entry.name for entry in path.iterdir())[:5]) or "nothing"
    raise DataError(
        f"{path}: has neither {TOKENIZER_FILE} nor {VOCABULARY_FILE}, but {others}; write one with"
        ' transformers: AutoTokenizer.from_pretrained("...").save_pretrained("...")'
    )


def _read(file: Path) -> bytes:
    try:
        return read_tokenizer_file(file)
    except FileNotFoundError as error:
        raise DataError(
            f"{file}: cannot be read (no such file); give a folder that `data tokenizer` made, or"
            f" a {TOKENIZER_FILE}"
        ) from error


def _read_around(file: Path) -> dict[str, bytes]:
    """The files next to it that belong to it."""
    if file.name not in (TOKENIZER_FILE, VOCABULARY_FILE):
        return {}
    found = {}
    for name in (CONFIG_FILE, SPECIAL_FILE, MODEL_FILE, CARD_FILE):
        try:
            found[name] = read_tokenizer_file(file.parent / name)
        except FileNotFoundError:
            continue
    return found


def _json_or_nothing(around: Mapping[str, bytes], name: str, folder: Path) -> dict[str, Any]:
    if name not in around:
        return {}
    return parse_object(around[name], folder / name)


def _check_case(content: Mapping[str, Any], config: Mapping[str, Any], file: Path) -> None:
    """A folder whose two files disagree gives other ids to each version of `transformers`."""
    normalizer = content.get("normalizer")
    wanted = config.get("do_lower_case")
    if not isinstance(normalizer, dict) or normalizer.get("type") != "BertNormalizer":
        return
    if isinstance(wanted, bool) and normalizer.get("lowercase") is not wanted:
        raise DataError(
            f"{file}: its normaliser has lowercase = {normalizer.get('lowercase')}, but"
            f" `do_lower_case` of {CONFIG_FILE} is {wanted}; make the two agree"
        )


# --- special tokens -------------------------------------------------------------------------------


def _named(around: Mapping[str, bytes], config: Mapping[str, Any], file: Path) -> dict[str, str]:
    """The special tokens that the files next to it name."""
    special = _json_or_nothing(around, SPECIAL_FILE, file.parent)
    found = {}
    for name in _USUAL:
        for settings in (config, special):
            token = settings.get(f"{name}_token")
            if isinstance(token, dict):
                token = token.get("content")
            if isinstance(token, str):
                found[name] = token
                break
    return found


def _special_tokens(
    content: Mapping[str, Any], named: Mapping[str, str], file: Path
) -> tuple[dict[str, str], dict[str, int]]:
    """The text and the id of each special token; raises `DataError` for one that is missing."""
    vocabulary = _vocabulary(content)
    names: dict[str, str] = {}
    for name, usual in _USUAL.items():
        candidates = usual
        if name in named:
            candidates = (named[name],)
        there = [piece for piece in candidates if piece in vocabulary]
        if there:
            names[name] = there[0]
        elif name in REQUIRED_SPECIALS:
            raise DataError(
                f"{file}: has no {candidates[0]} token (`{name}_token`), which pre-training needs;"
                f' add it with transformers: tokenizer.add_special_tokens({{"{name}_token":'
                f' "{usual[0]}"}}) and tokenizer.save_pretrained("...")'
            )
    ids = {name: vocabulary[piece] for name, piece in names.items()}
    needed = [ids[name] for name in REQUIRED_SPECIALS]
    if len(set(needed)) < len(needed):
        listed = ", ".join(f"{name} {names[name]} = {ids[name]}" for name in REQUIRED_SPECIALS)
        raise DataError(
            f"{file}: two special tokens have one id ({listed}); expected four different ones: add"
            " the missing one with tokenizer.add_special_tokens of transformers"
        )
    return names, ids


def _vocabulary(content: Mapping[str, Any]) -> dict[str, int]:
    """Every piece with its id, added tokens included."""
    model = content.get("model")
    vocabulary: Any = None
    if isinstance(model, dict):
        vocabulary = model.get("vocab")
    found: dict[str, int] = {}
    if isinstance(vocabulary, dict):
        found.update(vocabulary)
    elif isinstance(vocabulary, list):  # of a unigram model: pairs of a piece and its score
        found.update({str(entry[0]): number for number, entry in enumerate(vocabulary)})
    for token in added_tokens(content):
        found[str(token.get("content"))] = int(token.get("id", -1))
    return found


def _specials(draft: Draft) -> SpecialTokens:
    return SpecialTokens(
        pad=draft.ids["pad"],
        unk=draft.ids.get("unk"),
        cls=draft.ids["cls"],
        sep=draft.ids["sep"],
        mask=draft.ids["mask"],
    )


# --- what is carried on ---------------------------------------------------------------------------


def _is_ours(config: Mapping[str, Any], names: dict[str, str]) -> bool:
    """Whether the folder is as we write it; an export says how many positions its model has."""
    plain = {key: value for key, value in config.items() if key != "model_max_length"}
    return plain == transformers_config(names)


def _carried(
    draft: Draft,
    tokenizer: tokenizers.Tokenizer,
    content: bytes,
    around: Mapping[str, bytes],
) -> dict[str, bytes]:
    """The files that are carried on: `content` as it is, the others written anew."""
    tokens = {f"{name}_token": piece for name, piece in draft.names.items()}
    carried = {
        TOKENIZER_FILE: content,
        CONFIG_FILE: as_json(transformers_config(draft.names)),
        SPECIAL_FILE: as_json(tokens),
    }
    if MODEL_FILE in around:
        carried[MODEL_FILE] = around[MODEL_FILE]
    if CARD_FILE in around:
        card = parse_object(around[CARD_FILE], CARD_FILE)
    else:
        card = {"kind": type(tokenizer.model).__name__, "made_of": draft.file.name}
        card["written_out"] = _written_out(draft, tokenizer)
    carried[CARD_FILE] = as_json(card | {"changes": [*card.get("changes", []), *draft.changes]})
    return carried


def _written_out(draft: Draft, tokenizer: tokenizers.Tokenizer) -> str:
    """What becomes of a special token that a text spells."""
    tokenizer.encode_special_tokens = True
    special = [
        piece
        for name, piece in draft.names.items()
        if draft.ids[name] in tokenizer.encode(f"a {piece} b", add_special_tokens=False).ids
        and name != "unk"
    ]
    tokenizer.encode_special_tokens = False
    if special:
        return f"{', '.join(special)} written out in a text become the special token"
    return WRITTEN_OUT_IS_TEXT


#: The sentence of a card where a text cannot smuggle in special tokens.
WRITTEN_OUT_IS_TEXT = "a special token that is written out in a text stays ordinary text"


def as_json(content: Mapping[str, Any]) -> bytes:
    """A file of the folder: readable JSON in UTF-8."""
    return (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode("utf-8")
