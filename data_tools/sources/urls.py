"""URLs of inputs, through `fsspec`: what they may say, what is printed of them, how they open."""

from __future__ import annotations

from pathlib import PurePath
from typing import Any

from electra_dist.errors import DataError
from electra_dist.files.urls import credential_in, is_url, without_parameters

#: What begins the names of datasets of the hub.
HUB_PREFIX = "hub:"
#: How the temporary copies of standard input are named.
STANDARD_INPUT_PREFIX = "electra-dist-input-"
#: Services whose packages are not named by `fsspec` in its error.
_HELP = "its service needs a package of its own, such as s3fs, gcsfs or aiohttp"


def check_url(url: str) -> None:
    """Raise `DataError`, without printing the secret, for a URL that holds one."""
    problem = credential_in(url)
    if problem:
        raise DataError(problem)
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
    if is_url(name):
        return without_parameters(name)
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
