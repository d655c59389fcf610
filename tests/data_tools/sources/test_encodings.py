"""The advice for a text that is not UTF-8 names the encoding that gives its letters back."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from data_tools.sources.encodings import guess
from electra_dist.errors import DataError
from tests.support.reading import read_all

WESTERN = "She wouldn’t say – not in 1890–1895, “the long years” — what it cost: 40 €. Déjà vu. "
RUSSIAN = "Поезд опоздал на два часа, и никто не удивился. Ёлка стояла ещё в марте. "
CHINESE = "河水慢慢地流过村庄，老人坐在门口看着远处的山。孩子们在田里跑来跑去，没有人说话。"
TRADITIONAL = "河水慢慢地流過村莊，老人坐在門口看著遠處的山。孩子們在田裡跑來跑去，沒有人說話。"
JAPANESE = "昼には雨が降った。夜には風が吹いて、港には誰もいなかった。カモメが鳴いている。"
KOREAN = "강물은 천천히 마을을 지나갔고, 노인은 문 앞에 앉아 먼 산을 바라보았다. "


@pytest.mark.parametrize(
    ("text", "codec", "name"),
    [
        (WESTERN, "cp1252", "cp1252"),
        ("Příliš žluťoučký kůň úpěl ďábelské ódy. ", "cp1250", "cp1250"),
        (RUSSIAN, "cp1251", "cp1251"),
        (RUSSIAN, "koi8-r", "koi8-r"),
        (CHINESE, "gb18030", "gb18030"),
        (TRADITIONAL, "big5", "big5"),
        (JAPANESE, "euc-jp", "euc-jp"),
        (JAPANESE, "cp932", "cp932"),
        (KOREAN, "cp949", "cp949"),
        (WESTERN, "utf-16", "utf-16"),
        (WESTERN, "utf-16-le", "utf-16le"),
        (WESTERN, "utf-16-be", "utf-16be"),
        (WESTERN, "utf-32", "utf-32"),
    ],
)
def test_the_usual_encodings_are_told_apart(text: str, codec: str, name: str) -> None:
    content = text.encode(codec)
    assert guess(content) == name
    converted = subprocess.run(
        ["iconv", "-f", name, "-t", "utf-8"], input=content, capture_output=True, check=True
    )
    assert converted.stdout.decode("utf-8") == text


def test_utf8_with_a_damaged_place_is_still_utf8(tmp_path: Path) -> None:
    content = (RUSSIAN * 20).encode()
    path = tmp_path / "a.txt"
    path.write_bytes(content + b"\xff" + content)
    with pytest.raises(DataError, match=rf"byte {len(content)}: .*the rest of it is UTF-8"):
        read_all(path)


def test_the_command_that_is_named_loses_no_dash_and_no_quote(samples: Path) -> None:
    with pytest.raises(DataError, match=r"cp1252\.txt, line 1, byte 10: not UTF-8") as caught:
        read_all(samples / "cp1252.txt")
    command = str(caught.value).split("`")[1].split()
    done = subprocess.run([*command, str(samples / "cp1252.txt")], capture_output=True, check=True)
    assert all(mark in done.stdout.decode() for mark in "’–“”—€")


@pytest.mark.parametrize("name", ["a.txt", "a.jsonl", "a.json", "a.csv", "a.tsv"])
@pytest.mark.parametrize("codec", ["cp1252", "utf-16"])
def test_the_advice_is_given_for_every_format_of_text(
    tmp_path: Path, name: str, codec: str
) -> None:
    content = {"a.json": f'["ok", "{WESTERN}"]', "a.jsonl": f'"ok"\n"{WESTERN}"\n'}
    text = content.get(name, f"text\nok\n{WESTERN.replace(',', '')}\n")
    (tmp_path / name).write_bytes(text.encode(codec))
    with pytest.raises(DataError, match=rf"not UTF-8 .*`iconv -f {codec} -t utf-8`"):
        read_all(tmp_path / name)


def test_a_bad_byte_far_into_a_file_is_found_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    lines = b"A line of plain words.\n" * 200_000
    path.write_bytes(lines + "“quoted”".encode("cp1252") + b"\n")
    with pytest.raises(
        DataError, match=rf"line 200001, byte {len(lines)}: .*`iconv -f cp1252 -t utf-8`"
    ):
        read_all(path)
