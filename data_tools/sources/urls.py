"""URLs of inputs, through `fsspec`: what they may say, what is printed of them, how they open.

Credentials come from the environment, as each service documents them. A URL that holds one is
refused: it would stand in the history of the shell, in the list of processes and in logs.
"""

from __future__ import annotations

import re
from pathlib import PurePath
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from electra_dist.errors import DataError

#: What begins the names of datasets of the hub.
HUB_PREFIX = "hub:"
#: How the temporary copies of standard input are named.
STANDARD_INPUT_PREFIX = "electra-dist-input-"
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
#: Names of parameters whose values open a door.
_SECRET = re.compile(r"sig(nature)?|token|secret|passw|credential|access.?key|api.?key|auth", re.I)
#: Services whose users sign in by name, with a key of SSH or Kerberos.
_WITH_USERS = ("sftp", "ssh", "hdfs", "smb", "ftp", "webhdfs")
#: Services whose packages are not named by `fsspec` in its error.
_HELP = "its service needs a package of its own, such as s3fs, gcsfs or aiohttp"


def is_url(name: str) -> bool:
    """Whether `name` is a URL and no path."""
    return _URL.match(name) is not None


def check_url(url: str) -> None:
    """Raise `DataError`, without printing the secret, for a URL that holds one."""
    parts = urlsplit(url)
    user, at, _ = parts.netloc.rpartition("@")
    if at and (":" in user or parts.scheme.lower() not in _WITH_USERS):
        raise DataError(
            f"{parts.scheme}://...@{parts.netloc.rpartition('@')[2]}{parts.path}: a credential is"
            " written in this URL; take it out and set it in the environment, as the service"
            " documents it"
        )
    for name, _ in parse_qsl(parts.query, keep_blank_values=True):
        if _SECRET.search(name):
            raise DataError(
                f"{shown(url)}: the parameter {name} of this URL holds a credential; take it out"
                " and set it in the environment, as the service documents it"
            )
    if "::" in url:
        raise DataError(f"{shown(url)}: a chain of URLs; give one URL, of the files themselves")


def identified(name: str) -> str:
    """`name`, but one and the same for each copy of standard input."""
    if PurePath(name).name.startswith(STANDARD_INPUT_PREFIX):
        return "standard input"
    return name


def shown(name: str) -> str:
    """`name` as it may be printed: a URL without its parameters, no name of a copy, no bytes that
    are no text.
    """
    name = identified(name).encode("utf-8", "backslashreplace").decode("utf-8")
    if is_url(name) and "?" in name:
        return name.partition("?")[0] + "?..."
    return name


def file_system(url: str) -> tuple[Any, str]:
    """The file system of `fsspec` behind a URL, and the path in it.

    Raises `DataError` when the service is unknown, or the package that reads it is missing.
    """
    import fsspec.core

    try:
        system, path = fsspec.core.url_to_fs(url)
    except ImportError as error:
        raise DataError(f"{shown(url)}: {_HELP}, and it is not installed ({error})") from error
    except ValueError as error:
        raise DataError(f"{shown(url)}: is no URL that fsspec knows: {error}") from error
    return system, path
