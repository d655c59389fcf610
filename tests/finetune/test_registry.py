"""The registry of tasks: every row leads to real code, and to classes that transformers has."""

from __future__ import annotations

import pkgutil
import subprocess
import sys

import transformers

from electra_dist.finetune.registry import TASKS


def test_every_row_leads_to_code_and_to_transformers() -> None:
    for name, task in TASKS.items():
        assert task.name == name
        for place in (task.learner, task.predictor):
            assert callable(pkgutil.resolve_name(f"electra_dist.finetune.tasks.{place}"))
        assert hasattr(transformers, task.auto_class)


def test_to_read_it_loads_neither_torch_nor_transformers() -> None:
    code = (
        "import sys; import electra_dist.finetune.registry;"
        " print([name for name in ('torch', 'transformers') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
