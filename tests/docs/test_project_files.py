"""CITATION.cff, pyproject.toml, LICENSE and the changelog speak of the same project and version."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import yaml

from electra_dist import __version__

ROOT = Path(__file__).resolve().parents[2]
#: What version 1.2.0 of the Citation File Format requires.
REQUIRED = {"cff-version", "message", "title", "authors"}


def project() -> dict[str, Any]:
    """The table `project` of pyproject.toml."""
    content = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    table: dict[str, Any] = content["project"]
    return table


def citation() -> dict[str, Any]:
    """The content of CITATION.cff."""
    content: dict[str, Any] = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    return content


def test_the_citation_has_what_the_format_requires() -> None:
    cited = citation()
    assert cited.keys() >= REQUIRED
    assert cited["cff-version"] == "1.2.0"
    for author in cited["authors"]:
        assert "name" in author or "family-names" in author


def test_the_citation_is_of_this_project() -> None:
    cited = citation()
    assert cited["title"] == project()["name"]
    assert cited["version"] == __version__
    assert cited["license"] == project()["license"]
    assert cited["repository-code"] == project()["urls"]["Repository"]


def test_every_url_of_the_project_lies_in_its_repository_and_its_file_exists() -> None:
    urls = project()["urls"]
    assert {"Repository", "Documentation", "Changelog", "Issues"} <= urls.keys()
    for url in urls.values():
        assert url.startswith(urls["Repository"])
        _, found, path = url.partition("/main/")
        assert not found or (ROOT / path).exists(), url


def test_the_changelog_begins_with_what_is_unreleased() -> None:
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    versions = re.findall(r"^## \[([^\]]+)\]", text, re.M)
    assert versions[0] == "Unreleased"
    for version in versions:
        assert f"\n[{version}]: https://" in text, f"{version}: no link at the end"
