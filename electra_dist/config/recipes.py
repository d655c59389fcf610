"""The recipes that come with the program: `configs/*.yaml` of the repository, by name.

Comes in: a name. Goes out: the text of the file, comments included, and one sentence about it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from electra_dist.errors import ConfigError, nearest
from electra_dist.files.reading import MIB, read_bounded
from electra_dist.files.shipped import shipped_folder


@dataclass(frozen=True)
class ShippedRecipe:
    """One recipe.

    name   `quickstart` of `quickstart.yaml`
    about  the first sentence of the comment that the file begins with
    text   the whole file
    """

    name: str
    about: str
    text: str


def recipe_path(name: str) -> Path:
    """The file of the recipe `name`; raises `ConfigError` with the names that there are."""
    path = shipped_folder("configs") / f"{name}.yaml"
    names = recipe_names()
    if name not in names:
        raise ConfigError(
            f"{name}: no such recipe{nearest(name, names)}; there are: {', '.join(names)}"
        )
    return path


def recipe_names() -> tuple[str, ...]:
    """The names of all recipes, sorted."""
    return tuple(sorted(path.stem for path in shipped_folder("configs").glob("*.yaml")))


def read_recipe(name: str) -> ShippedRecipe:
    """The recipe `name`; raises `ConfigError` with the names that there are."""
    text = read_bounded(recipe_path(name), MIB, follow=True).decode("utf-8")
    return ShippedRecipe(name, _first_sentence(text), text)


def recipes() -> tuple[ShippedRecipe, ...]:
    """All recipes, sorted by name."""
    return tuple(read_recipe(name) for name in recipe_names())


def _first_sentence(text: str) -> str:
    """The first sentence of the comment at the head of a file; empty where there is none."""
    lines = []
    for line in text.splitlines():
        if not line.startswith("#"):
            break
        lines.append(line.removeprefix("#").strip())
    comment = " ".join(lines)
    sentence = re.match(r".*?\.(?=\s|$)", comment)
    if sentence is None:
        return comment
    return sentence[0]
