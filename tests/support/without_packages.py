"""A process in which some packages are not installed, as far as imports can tell."""

from __future__ import annotations

import sys

import pytest


def hide(monkeypatch: pytest.MonkeyPatch, *packages: str) -> None:
    """Make the import of these packages, and of what is in them, fail."""
    for module in list(sys.modules):
        if module.partition(".")[0] in packages:
            monkeypatch.delitem(sys.modules, module)
    for package in packages:
        monkeypatch.setitem(sys.modules, package, None)  # what `import` takes for absent
