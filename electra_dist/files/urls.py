"""URLs that a user names: what is one, and what of it may be printed and kept.

Credentials come from the environment, as each service documents them. A URL that holds one is
refused: it would stand in the history of the shell, in the list of processes, in files and in logs.
"""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
#: Names of parameters whose values open a door.
_SECRET = re.compile(r"sig(nature)?|token|secret|passw|credential|access.?key|api.?key|auth", re.I)
#: Services whose users sign in by name, with a key of SSH or Kerberos.
_WITH_USERS = ("sftp", "ssh", "hdfs", "smb", "ftp", "webhdfs")


def is_url(where: str | Path) -> bool:
    """Whether `where` is a URL and no path."""
    return isinstance(where, str) and _URL.match(where) is not None


def without_parameters(url: str) -> str:
    """The URL as it may be printed."""
    address, mark, _ = url.partition("?")
    if mark:
        return f"{address}?..."
    return address


def credential_in(url: str) -> str | None:
    """What is wrong with a URL that holds a credential, without the credential; else None."""
    parts = urlsplit(url)
    user, at, host = parts.netloc.rpartition("@")
    if at and (":" in user or parts.scheme.lower() not in _WITH_USERS):
        return (
            f"{parts.scheme}://...@{host}{parts.path}: a credential is written in this URL; take it"
            " out and set it in the environment, as the service documents it"
        )
    for name, _ in parse_qsl(parts.query, keep_blank_values=True):
        if _SECRET.search(name):
            return (
                f"{without_parameters(url)}: the parameter {name} of this URL holds a credential;"
                " take it out and set it in the environment, as the service documents it"
            )
    return None
