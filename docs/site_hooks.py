"""Hooks of the documentation site (mkdocs.yml): pages from the root of the repository, and links
that leave docs/.

The pages are written for the repository, where `../tests/test_docs.py` is a link. On the site

    a page of docs/ or of `ROOT_PAGES`   is linked as a page of the site
    any other file of the repository     is linked at its address in the repository

A link to a file that does not exist raises an error. Comments for the tests
(`<!-- test: ... -->`) are left out.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
#: Files in the root of the repository that are pages of the site, and what they are called there.
ROOT_PAGES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
}
_SOURCES = {name: source for source, name in ROOT_PAGES.items()}
_LINK = re.compile(r"\]\((?P<target>[^)\s#]*)(?P<anchor>#[^)\s]*)?\)")
_ELSEWHERE = re.compile(r"[a-z]+:")
_FENCE = re.compile(r"^```.*?^```$", re.M | re.S)
_TEST_COMMENT = re.compile(r"^<!-- (?:test|figures): [^\n]* -->\n", re.M)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that lie in the root of the repository."""
    for source, name in ROOT_PAGES.items():
        text = (ROOT / source).read_text(encoding="utf-8")
        files.append(File.generated(config, name, content=text))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """The text of a page with links of the site; what stands in code blocks stays as it is."""
    name = page.file.src_uri
    source = ROOT / _SOURCES[name] if name in _SOURCES else DOCS / name
    text = _TEST_COMMENT.sub("", markdown)
    repository = str(config.repo_url).rstrip("/")
    pieces = []
    end = 0
    for fence in _FENCE.finditer(text):
        pieces.append(with_site_links(text[end : fence.start()], source, repository))
        pieces.append(fence[0])
        end = fence.end()
    pieces.append(with_site_links(text[end:], source, repository))
    return "".join(pieces)


def with_site_links(text: str, source: Path, repository: str) -> str:
    """`text` of the file `source`, its links to files turned into those of the site."""

    def replaced(match: re.Match[str]) -> str:
        target = match["target"]
        if not target or _ELSEWHERE.match(target):
            return match[0]
        return f"]({site_link(target, source, repository)}{match['anchor'] or ''})"

    return _LINK.sub(replaced, text)


def site_link(target: str, source: Path, repository: str) -> str:
    """Where a link of the file `source` leads on the site."""
    path = (source.parent / target).resolve()
    if not path.exists() or not path.is_relative_to(ROOT):
        raise PluginError(f"{source.relative_to(ROOT)}: {target} is no file of the repository")
    inside = path.relative_to(ROOT).as_posix()
    here = DOCS
    if source.is_relative_to(DOCS):
        here = source.parent
    if inside in ROOT_PAGES:
        return os.path.relpath(DOCS / ROOT_PAGES[inside], here)
    if path.is_file() and path.is_relative_to(DOCS) and path.suffix != ".py":
        return os.path.relpath(path, here)
    kind = "tree" if path.is_dir() else "blob"
    return f"{repository}/{kind}/main/{inside}"
