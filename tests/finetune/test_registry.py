"""The registry of tasks: every row leads to real code, and to classes that transformers has."""

from __future__ import annotations

import dataclasses
import pkgutil
import subprocess
import sys

import pytest
import transformers

from electra_dist.errors import UserError
from electra_dist.finetune.recipe import Recipe
from electra_dist.finetune.registry import TASKS, check_options


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


def test_what_means_nothing_to_a_task_is_refused() -> None:
    fields = {field.name for field in dataclasses.fields(Recipe)}
    special = {name for task in TASKS.values() for name in task.options}
    assert special <= fields
    for task in TASKS.values():
        check_options(task.name, task.options)
        for name in special - set(task.options):
            with pytest.raises(UserError, match=f"`{name}`: means nothing to {task.name}, only"):
                check_options(task.name, ["epochs", name])
