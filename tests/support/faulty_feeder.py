"""The loader's process with a planted fault: from step FAULTY_STEP on it waits for its data, for
FAULTY_SECONDS per step, or for ever.
"""

from __future__ import annotations

import os
import threading
import time
from typing import Any

from electra_dist.data.loading import feeder
from electra_dist.data.steps import StepSource

STEP = int(os.environ.get("FAULTY_STEP", "0"))
SECONDS = os.environ.get("FAULTY_SECONDS")
make = StepSource._make


def faulty_make(source: StepSource, index: int) -> Any:
    if index >= STEP and SECONDS:
        time.sleep(float(SECONDS))
    elif index >= STEP:
        threading.Event().wait()
    return make(source, index)


def main() -> None:
    StepSource._make = faulty_make  # type: ignore[method-assign]
    feeder.main()
