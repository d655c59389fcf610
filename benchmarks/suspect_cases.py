"""Texts with one word that does not belong, planted where its place is known.

    misspellings   a word of a real sentence becomes one of its common misspellings
    misuse         a use of a variable in a real function becomes another variable of that function

Comes in: files with text or source. Goes out: `Case`s, always the same ones for a seed.
"""

from __future__ import annotations

import ast
import json
import random
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

Span = tuple[int, int]
_WORD = re.compile(r"\w+(?:['’]\w{1,2}\b)?")
_LETTERS = re.compile(r"[A-Za-z]+")
#: Characters of a function.
_SHORTEST = 80
_LONGEST = 4000


@dataclass(frozen=True)
class Case:
    """A text, the spans of the words that are compared, and which of them was planted."""

    text: str
    candidates: tuple[Span, ...]
    planted: int
    original: str


def misspellings(text: Path, dictionary: Path, count: int, seed: int) -> list[Case]:
    """Sentences of `text` (WikiText's form) with one word misspelt as `dictionary` has it."""
    draw = random.Random(seed)
    wrong = _read_dictionary(dictionary)
    sentences = list(_sentences(text))
    draw.shuffle(sentences)
    cases = []
    for sentence in sentences:
        words = list(_WORD.finditer(sentence))
        known = [place for place, word in enumerate(words) if word[0] in wrong]
        if not known:
            continue
        planted = draw.choice(known)
        cases.append(_planted(sentence, words, planted, draw.choice(wrong[words[planted][0]])))
        if len(cases) == count:
            break
    return cases


def _read_dictionary(path: Path) -> dict[str, list[str]]:
    """Word -> its misspellings, of a dictionary with lines `wrong->right`; entries with several
    corrections, or a remark, are left out.
    """
    found: dict[str, list[str]] = defaultdict(list)
    for line in path.read_text(encoding="utf-8").splitlines():
        wrong, _, right = line.partition("->")
        if _LETTERS.fullmatch(wrong) and _LETTERS.fullmatch(right):
            found[right].append(wrong)
    return found


def _sentences(path: Path) -> Iterator[str]:
    """Whole sentences without words that WikiText left out, punctuation set as usual."""
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.strip().startswith("="):
            continue
        for part in line.split(" . "):
            if "<unk>" in part or not 60 <= len(part) <= 300:
                continue
            joined = re.sub(r" @([-,.])@ ", r"\1", part.strip())
            joined = re.sub(r" ([,;:!?)]|'s\b)", r"\1", joined)
            yield joined.replace("( ", "(").removesuffix(" .") + "."


def misuse(modules: Path, count: int, seed: int, each: int = 6) -> list[Case]:
    """Functions of the modules of a .jsonl with one variable in the place of another; up to `each`
    of a module.
    """
    draw = random.Random(seed)
    cases = []
    for line in modules.read_text(encoding="utf-8").splitlines():
        functions = list(_functions(json.loads(line)["text"]))
        draw.shuffle(functions)
        found = [case for source in functions if (case := _misused(source, draw)) is not None]
        cases += found[:each]
    draw.shuffle(cases)
    return cases[:count]


def _functions(source: str) -> Iterator[str]:
    """The source of each function that is in no other function."""
    tree = ast.parse(source)
    lines = source.splitlines(keepends=True)
    inner = {
        child
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef)
        for child in ast.walk(node)
        if child is not node
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and node not in inner:
            text = "".join(lines[node.lineno - 1 : node.end_lineno])
            if _SHORTEST <= len(text) <= _LONGEST and text.isascii():
                yield text


def _misused(source: str, draw: random.Random) -> Case | None:
    """The function with one use of a local variable replaced; None where it has no two."""
    indent = len(source) - len(source.lstrip(" "))
    tree = ast.parse("if True:\n" + source if indent else source)
    above = 1 if indent else 0
    names = [node for node in ast.walk(tree) if isinstance(node, ast.Name)]
    local = {node.id for node in names if isinstance(node.ctx, ast.Store)}
    local |= {node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)}
    starts = [0]
    for line in source.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    uses = sorted(
        (starts[node.lineno - 1 - above] + node.col_offset, node.id)
        for node in names
        if isinstance(node.ctx, ast.Load) and node.id in local
    )
    uses = [(start, name) for start, name in uses if source.startswith(name, start)]
    if len(local) < 2 or len(uses) < 2:
        return None
    words = [(start, start + len(name)) for start, name in uses]
    planted = draw.randrange(len(uses))
    other = draw.choice(sorted(local - {uses[planted][1]}))
    return _replaced(source, words, planted, other)


def _planted(text: str, words: list[re.Match[str]], planted: int, other: str) -> Case:
    return _replaced(text, [word.span() for word in words], planted, other)


def _replaced(text: str, words: list[Span], planted: int, other: str) -> Case:
    """The text with another word at one of the spans, and the spans that it has then."""
    start, end = words[planted]
    moved = len(other) - (end - start)
    spans = [
        (low + moved * (place > planted), high + moved * (place >= planted))
        for place, (low, high) in enumerate(words)
    ]
    return Case(text[:start] + other + text[end:], tuple(spans), planted, text[start:end])
