"""What Triton needs beside itself: a C compiler and Python's headers, with which it builds the
launcher of each kernel.

Containers for training often lack both, and what is said then depends on the version: a command
that "returned non-zero exit status 1" in the worst case. This says which of them is missing and how
to get it.
"""

from __future__ import annotations

import os
import shutil
import sys
import sysconfig
from collections.abc import Mapping
from pathlib import Path

#: As Triton looks for one, where CC is not set.
COMPILERS = ("gcc", "clang")
#: Folders of headers that compilers look into beside those they are told.
_HEADER_VARIABLES = ("CPATH", "C_INCLUDE_PATH")


def missing_for_triton(environment: Mapping[str, str] | None = None) -> str | None:
    """What is missing on this machine and how to get it, in one line; None where all is there."""
    if environment is None:
        environment = os.environ
    found = [
        words for words in (_about_compiler(environment), _about_headers(environment)) if words
    ]
    if found:
        return f"Triton needs a C compiler and Python's headers; {'; '.join(found)}"
    return None


def _about_compiler(environment: Mapping[str, str]) -> str | None:
    path = environment.get("PATH")
    named = environment.get("CC")
    if named is not None:
        if shutil.which(named, path=path):
            return None
        return (
            f"CC = {named!r} is no program here (set CC to the path of a C compiler, or unset it)"
        )
    if any(shutil.which(name, path=path) for name in COMPILERS):
        return None
    return (
        f"no {' or '.join(COMPILERS)} in PATH (apt-get install gcc, or set CC to the path of a"
        " C compiler)"
    )


def _about_headers(environment: Mapping[str, str]) -> str | None:
    scheme = sysconfig.get_default_scheme()
    # as Triton does
    include = sysconfig.get_paths("posix_prefix" if scheme == "posix_local" else scheme)["include"]
    others = [
        folder
        for name in _HEADER_VARIABLES
        for folder in environment.get(name, "").split(os.pathsep)
        if folder
    ]
    if any(Path(folder, "Python.h").is_file() for folder in (include, *others)):
        return None
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    return (
        f"no Python.h in {include} (apt-get install python{version}-dev, or add the folder that"
        " has it to CPATH)"
    )
