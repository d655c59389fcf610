"""What `validation.evaluate_every` needs is asked for before a run is touched."""

from __future__ import annotations

import importlib.util
from typing import Any

import pytest

from electra_dist.errors import ConfigError, UserError
from electra_dist.evaluate.in_training import EvaluatorInTraining
from electra_dist.train.heldout.evaluator import check_evaluator
from tests.support.small import make_config


def test_a_program_without_an_evaluator_is_told_what_to_do() -> None:
    asking = make_config("validation.evaluate_every=5")
    with pytest.raises(ConfigError, match=r"evaluate_every = 5: .*`electra-dist train`"):
        check_evaluator(asking, None)
    check_evaluator(make_config(), None)
    check_evaluator(asking, EvaluatorInTraining())


@pytest.mark.parametrize("package", ["sklearn", "matplotlib"])
def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    find = importlib.util.find_spec

    def without(name: str, *rest: Any) -> Any:
        return None if name == package else find(name, *rest)

    monkeypatch.setattr(importlib.util, "find_spec", without)
    with pytest.raises(UserError, match=rf"needs {package}, .*pip install"):
        check_evaluator(make_config("validation.evaluate_every=5"), EvaluatorInTraining())
    check_evaluator(make_config(), EvaluatorInTraining())
