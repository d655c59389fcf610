"""The documentation site builds without a warning, and its links lead to pages of the site or to
files of the repository.
"""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]
#: Names that are in the API reference today; each stands for its module.
DOCUMENTED = ("electra_dist.config.Config", "electra_dist.errors.UserError")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the built site."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "WARNING" not in done.stderr
    return folder


@pytest.fixture(scope="module")
def hooks() -> ModuleType:
    """The module docs/site_hooks.py."""
    spec = importlib.util.spec_from_file_location("site_hooks", ROOT / "docs" / "site_hooks.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def text_of(page: Path) -> str:
    """The content of a page, without navigation."""
    whole = page.read_text(encoding="utf-8")
    return whole[whole.index("<article") : whole.index("</article>")]


def test_every_page_of_the_repository_is_a_page_of_the_site(site: Path) -> None:
    docs = ROOT / "docs"
    pages = [path.relative_to(docs).with_suffix("").as_posix() for path in docs.rglob("*.md")]
    for name in [*pages, "contributing", "changelog"]:
        assert (site / name / "index.html").is_file(), name
    assert (site / "index.html").is_file()
    assert not list(site.glob("*.py")), "a module of docs/ was published"


def test_no_link_of_the_site_leaves_it_but_with_a_full_address(site: Path) -> None:
    for page in site.rglob("index.html"):
        for target in re.findall(r'href="([^"]+)"', text_of(page)):
            if re.match(r"[a-z]+:|#", target):
                continue
            path = (page.parent / target.partition("#")[0]).resolve()
            assert path.exists(), f"{page.relative_to(site)}: {target}"
            assert path.is_relative_to(site), f"{page.relative_to(site)}: {target}"


def test_every_address_in_the_repository_is_a_file_of_it(site: Path) -> None:
    pattern = r"https://github\.com/electra-dist/electra-dist/(blob|tree)/main/([^\"#]+)"
    found: set[tuple[str, str]] = set()
    for page in site.rglob("index.html"):
        found.update(re.findall(pattern, text_of(page)))
    assert len(found) > 20
    for kind, name in sorted(found):
        path = ROOT / name
        assert path.is_dir() if kind == "tree" else path.is_file(), name


def test_no_comment_for_the_tests_and_no_raw_markdown_is_left(site: Path) -> None:
    for page in site.rglob("index.html"):
        text = text_of(page)
        assert "<!-- test:" not in text, page.relative_to(site)
        assert "```" not in text, page.relative_to(site)
        assert not re.search(r"<p>:::", text), page.relative_to(site)


@pytest.mark.parametrize("name", DOCUMENTED)
def test_the_api_reference_has_the_docstrings(name: str, site: Path) -> None:
    assert f'id="{name}"' in text_of(site / "api" / "index.html")


@pytest.mark.parametrize(
    ("page", "target", "expected"),
    [
        ("docs/train.md", "resume.md", "resume.md"),
        ("docs/train.md", "../README.md", "index.md"),
        ("docs/train.md", "../configs", "https://example.org/tree/main/configs"),
        ("README.md", "docs/train.md", "train.md"),
        ("README.md", "docs/quickstart-curves.png", "quickstart-curves.png"),
        ("README.md", "LICENSE", "https://example.org/blob/main/LICENSE"),
        (
            "docs/extend.md",
            "../tests/test_house.py",
            "https://example.org/blob/main/tests/test_house.py",
        ),
    ],
)
def test_a_link_leads_to_the_site_or_to_the_repository(
    hooks: ModuleType, page: str, target: str, expected: str
) -> None:
    assert hooks.site_link(target, ROOT / page, "https://example.org") == expected


def test_a_link_to_nothing_ends_the_build(hooks: ModuleType) -> None:
    with pytest.raises(Exception, match="is no file of the repository"):
        hooks.site_link("nowhere.md", ROOT / "docs" / "train.md", "https://example.org")


def test_code_blocks_and_full_addresses_stay_as_they_are(hooks: ModuleType) -> None:
    text = "[a](https://example.com/x) and [b](#here)"
    assert hooks.with_site_links(text, ROOT / "README.md", "https://example.org") == text
