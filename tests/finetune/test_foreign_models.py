"""Folders of models that somebody made to do harm:
refused in a sentence before anything is built or waited for.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import shutil
import signal
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from electra_dist.cli import main as cli
from electra_dist.errors import UserError
from electra_dist.finetune.model_folder import ModelFolder


@pytest.fixture
def folder(encoder: Path, tmp_path: Path) -> Path:
    """A copy of a whole model to do damage to."""
    shutil.copytree(encoder, tmp_path / "model")
    return tmp_path / "model"


class Late(BaseException):
    """It takes too long; no code that is tested catches this."""


@pytest.fixture(autouse=True)
def short_and_small() -> Iterator[None]:
    """What hangs or takes tens of GB ends in an exception."""

    def too_long(number: int, frame: object) -> None:
        raise Late("it waits")

    before, handler = (
        resource.getrlimit(resource.RLIMIT_AS),
        signal.signal(signal.SIGALRM, too_long),
    )
    mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (mapped + 3 * 2**30, before[1]))
    signal.alarm(240)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, handler)
    resource.setrlimit(resource.RLIMIT_AS, before)


def change(folder: Path, **values: Any) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def test_a_whole_folder_is_opened_also_through_links(folder: Path, tmp_path: Path) -> None:
    ModelFolder.open(folder)
    linked = tmp_path / "snapshot"  # as the cache of a hub keeps it
    linked.mkdir()
    for file in folder.iterdir():
        (linked / file.name).symlink_to(file)
    assert ModelFolder.open(linked).kind == "discriminator"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"num_hidden_layers": 10**7}, "num_hidden_layers is 10000000, but the weights have 2"),
        ({"num_hidden_layers": 1e9}, "num_hidden_layers is 1000000000.0, but"),
        ({"num_hidden_layers": True}, "num_hidden_layers is True"),
        ({"num_hidden_layers": "9" * 500}, "num_hidden_layers is '9999"),
        ({"vocab_size": 10**12}, "vocab_size is 1000000000000, but the weights have 512"),
        ({"hidden_size": 10**9}, "hidden_size is 1000000000, but the weights have 64"),
        ({"embedding_size": 10**9}, "embedding_size"),
        ({"intermediate_size": 10**9}, "intermediate_size"),
        ({"max_position_embeddings": 10**10}, "max_position_embeddings"),
        ({"type_vocab_size": 10**10}, "type_vocab_size"),
        ({"num_attention_heads": 0}, "num_attention_heads is 0; expected a divisor"),
        ({"num_attention_heads": 7}, "num_attention_heads is 7; expected a divisor"),
        ({"num_labels": 10**9}, "more than 100,000 labels"),
        ({"id2label": {str(number): "x" for number in range(100_001)}}, "more than 100,000 labels"),
        ({"auto_map": {"AutoModel": "evil.Model"}}, "has auto_map"),
        ({"quantization_config": {"quant_method": "gptq"}}, "has quantization_config"),
        ({"model_type": "bert"}, "expected 'electra'"),
    ],
)
def test_sizes_that_the_weights_do_not_have_are_refused_before_anything_is_built(
    folder: Path, values: dict[str, Any], message: str
) -> None:
    change(folder, **values)
    with pytest.raises(UserError, match=message):
        ModelFolder.open(folder)


@pytest.mark.parametrize("command", ["predict", "finetune"])
def test_the_commands_say_so_in_one_line(
    folder: Path, command: str, labelled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    change(folder, num_hidden_layers=10**7)
    table = str(labelled / "dev.tsv")
    words = {
        "predict": ["predict", str(folder), "--input", table],
        "finetune": ["finetune", str(folder), "--train", table, "--out", str(tmp_path / "out")],
    }
    assert cli.main(words[command]) == 2
    said = capsys.readouterr().err
    assert "num_hidden_layers is 10000000" in said
    assert "Traceback" not in said


@pytest.mark.parametrize(
    "name", ["config.json", "model.safetensors", "tokenizer.json", "added_tokens.json", "a/b"]
)
def test_a_fifo_or_a_device_is_not_waited_for(folder: Path, name: str) -> None:
    path = folder / name
    path.unlink(missing_ok=True)
    path.parent.mkdir(exist_ok=True)
    os.mkfifo(path)
    with pytest.raises(UserError, match="is a special file"):
        ModelFolder.open(folder)
    path.unlink()
    path.symlink_to("/dev/zero")
    with pytest.raises(UserError, match="is a special file"):
        ModelFolder.open(folder)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is no safetensors file"),
        (struct.pack("<Q", 2**63), "a header of 9,223,372,036,854,775,808 bytes"),
        (struct.pack("<Q", 10**7) + b"{", "is no safetensors file"),
        (struct.pack("<Q", 10**6) + b"[" * 10**6, "is no safetensors file"),
        (struct.pack("<Q", 2) + b"{}", "has no weights for embeddings.word_embeddings.weight"),
        (struct.pack("<Q", 12) + b'{"a": [1,2]}', "is no safetensors file"),
        (struct.pack("<Q", 40) + b'{"a":{"shape":[2],"data_offsets":[0,8]}}', "is not in the file"),
        (b"\x80\x04\x95cos\nsystem\n", "is no safetensors file"),
    ],
)
def test_weights_that_are_no_safetensors_are_refused(
    folder: Path, content: bytes, message: str
) -> None:
    (folder / "model.safetensors").write_bytes(content)
    with pytest.raises(UserError, match=message):
        ModelFolder.open(folder)


def test_a_header_that_claims_more_than_the_file_holds_is_refused(folder: Path) -> None:
    """The shapes agree with config.json, both claim a table of 40 GB, and nothing is behind it."""
    weights = folder / "model.safetensors"
    content = weights.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    name = next(name for name in header if name.endswith("word_embeddings.weight"))
    header[name]["shape"] = [10**9, 32]
    text = json.dumps(header).encode()
    weights.write_bytes(struct.pack("<Q", len(text)) + text + content[8 + length :])
    change(folder, vocab_size=10**9)
    with pytest.raises(UserError, match=r"a tensor of shape \(1000000000, 32\) is not in the file"):
        ModelFolder.open(folder)


@pytest.mark.parametrize(
    "content",
    [b"{", b"[" * 10**5, b'{"auto_map": {"AutoTokenizer": ["evil.Tokenizer", null]}}', b'"x"'],
)
def test_a_tokenizer_configuration_that_cannot_be_read_or_names_code_runs_nothing(
    folder: Path, content: bytes
) -> None:
    (folder / "evil.py").write_text("raise SystemExit('it ran')")
    (folder / "tokenizer_config.json").write_bytes(content)
    opened = ModelFolder.open(folder)
    with contextlib.suppress(UserError):  # transformers forgives some of them
        opened.tokenizer()


def test_huge_files_are_not_read(folder: Path) -> None:
    for name in ("config.json", "tokenizer.json"):
        kept = (folder / name).read_bytes()
        with (folder / name).open("r+b") as file:
            file.truncate(40 * 10**9)
        with pytest.raises(UserError, match="is larger than"):
            ModelFolder.open(folder)
        (folder / name).write_bytes(kept)
    ModelFolder.open(folder)


@pytest.mark.parametrize("cut", [b"{}", None, b"[1]", b""])
def test_a_damaged_tokenizer_is_one_sentence(folder: Path, cut: bytes | None) -> None:
    file = folder / "tokenizer.json"
    content = file.read_bytes()
    if cut is None:
        cut = content[: len(content) // 2]
    file.write_bytes(cut)
    with pytest.raises(UserError, match=r"tokenizer"):
        ModelFolder.open(folder).tokenizer()


def test_ids_that_the_model_does_not_have_are_refused(folder: Path) -> None:
    file = folder / "tokenizer.json"
    content = json.loads(file.read_text())
    piece = next(iter(content["model"]["vocab"]))
    content["model"]["vocab"][piece] = 9000
    file.write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"highest id is 9000, but the model has 512 entries"):
        ModelFolder.open(folder).tokenizer()


def test_sizes_that_config_json_does_not_name_are_those_of_the_weights(folder: Path) -> None:
    content = json.loads((folder / "config.json").read_text())
    del content["type_vocab_size"]  # 2 where nothing is said
    (folder / "config.json").write_text(json.dumps(content))
    assert ModelFolder.open(folder).config["type_vocab_size"] == 2
    del content["hidden_size"]  # 256 where nothing is said
    (folder / "config.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match="hidden_size is 256, but the weights have 64"):
        ModelFolder.open(folder)
