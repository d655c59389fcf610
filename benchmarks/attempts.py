"""What the GPU benchmarks share: a measurement that fails is a result with its reason, and never
ends the others.

Comes in: something to measure. Goes out: its figures, or `{"refused": reason}`. Figures are written
as they come, so that a script that is stopped half-way keeps what it has.
"""

from __future__ import annotations

import gc
import json
import signal
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import torch

from electra_dist.errors import UserError

Figures = dict[str, Any]
_LONGEST_REASON = 200


class Stopped(BaseException):
    """`timeout` ran out: nothing catches it but the one who prints what there is."""


def stop_on_sigterm() -> None:
    """Turn SIGTERM, which `timeout` sends first, into `Stopped`."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise Stopped

    signal.signal(signal.SIGTERM, stop)


def attempt(measure: Callable[[], Figures], device: torch.device) -> Figures:
    """The figures of `measure`, or why there are none;
    memory of what came before is given back first.
    """
    torch._dynamo.reset()
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    start = time.monotonic()
    try:
        found = measure()
    except torch.OutOfMemoryError:
        return {"refused": "out of memory"}
    except UserError as error:
        return {"refused": str(error)}
    except Exception as error:
        return {"refused": f"failed: {reason(error)}"}
    return found | {"measured_in_seconds": round(time.monotonic() - start, 2)}


def reason(error: Exception) -> str:
    """The kind of an error and its first line with words, short enough for a table."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if lines:
        text = f"{type(error).__name__}: {lines[0]}"
    else:
        text = type(error).__name__
    if len(text) <= _LONGEST_REASON:
        return text
    return text[: _LONGEST_REASON - 3] + "..."


def write_json(path: Path | None, content: Figures) -> None:
    """Write `content`, whole or not at all; no path, nothing written."""
    if path is None:
        return
    temporary = path.with_suffix(path.suffix + ".part")
    temporary.write_text(json.dumps(content, indent=2, default=str) + "\n", encoding="utf-8")
    temporary.replace(path)
