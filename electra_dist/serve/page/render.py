"""Puts the fields of a task into the template of the page.

Comes in: the model and the form of its inputs. Goes out: HTML with its script and style inside, and
the policy that lets a browser run these two and ask this server, and nothing else.
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from electra_dist.serve.answers import ServedModel
from electra_dist.serve.schema import InputForm

_HERE = Path(__file__).parent


@dataclass(frozen=True)
class Page:
    """`policy` is the value of the header Content-Security-Policy."""

    html: str
    policy: str


def render_page(model: ServedModel, form: InputForm, *, asks_token: bool) -> Page:
    """The page of a model; with `asks_token` it has a field for the bearer token."""
    script = _shipped("form.js")
    style = _shipped("form.css")
    html = _template().render(
        name=model.name,
        kind=model.kind,
        fields=form.fields,
        asks_token=asks_token,
        script=script,
        style=style,
    )
    policy = "; ".join(
        (
            "default-src 'none'",
            f"script-src {_hash(script)}",
            f"style-src {_hash(style)}",
            "connect-src 'self'",
            "img-src data:",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
        )
    )
    return Page(html, policy)


def _template() -> Any:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_HERE),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("form.html")


def _shipped(name: str) -> str:
    return (_HERE / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    """As a policy names an inline script or style."""
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return f"'sha256-{digest}'"
