"""FlashAttention 3 and 4 behind varlen: taken where they are and run,
named, and left with the reason otherwise.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.attention import _registry

from electra_dist.model.attention.backends import described, flash_implementation

CUDA = torch.device("cuda")
HEADS = [(64, torch.bfloat16), (32, torch.bfloat16), (64, torch.bfloat16)]


class Handle:
    """What a package's registration gives PyTorch."""

    removed = False

    def remove(self) -> None:
        self.removed = True


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., list[Any]]:
    """`install("FA3", capability=(9, 0), fails_for=(32,))`:
    packages that can be found; every registration's handle.
    """
    monkeypatch.setattr(flash_implementation, "_in_use", flash_implementation.DEFAULT)
    monkeypatch.setattr(_registry, "_FLASH_ATTENTION_ACTIVE", None)
    monkeypatch.syspath_prepend(str(tmp_path))

    def make(
        *names: str, capability: tuple[int, int] = (9, 0), fails_for: tuple[int, ...] = ()
    ) -> list[Any]:
        handles: list[Any] = []

        def registered() -> Handle:
            handles.append(Handle())
            return handles[-1]

        def attempt(_: torch.device, size: int, __: torch.dtype) -> None:
            if size in fails_for:
                raise RuntimeError(f"no kernel image for heads of {size}\nand a long story")

        for name in names:
            file = tmp_path / (flash_implementation.MODULES[name].replace(".", "/") + ".py")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.touch()
            if name == "FA4":  # a package that must not be imported to be found
                (tmp_path / "flash_attn" / "__init__.py").write_text(
                    "raise OSError('undefined symbol')"
                )
                (tmp_path / "flash_attn" / "cute" / "__init__.py").touch()
            monkeypatch.setitem(_registry._FLASH_ATTENTION_IMPLS, name, registered)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
        monkeypatch.setattr(flash_implementation, "_try", attempt)
        return handles

    return make


@pytest.mark.parametrize(
    ("names", "capability", "expected"),
    [
        ((), (9, 0), "FA2"),
        (("FA3",), (9, 0), "FA3"),
        (("FA4",), (9, 0), "FA4"),
        (("FA3", "FA4"), (9, 0), "FA3"),
        (("FA3",), (10, 0), "FA2"),
        (("FA3", "FA4"), (10, 3), "FA4"),
        (("FA3", "FA4"), (8, 0), "FA2"),
        (("FA3", "FA4"), (12, 0), "FA2"),
    ],
)
def test_the_best_that_is_installed_for_the_gpu_is_used_and_named(
    install: Callable[..., list[Any]],
    names: tuple[str, ...],
    capability: tuple[int, int],
    expected: str,
) -> None:
    handles = install(*names, capability=capability)
    assert flash_implementation.activate(CUDA, HEADS) == flash_implementation.in_use() == expected
    assert len(handles) == (expected != "FA2")
    assert (_registry.current_flash_attention_impl() or "FA2") == expected
    assert described("varlen") == f"varlen ({expected})"
    assert described("triton") == "triton"
    assert flash_implementation.activate(torch.device("cpu"), HEADS) == "FA2"


def test_one_that_does_not_run_is_named_with_its_reason_and_left(
    install: Callable[..., list[Any]], caplog: pytest.LogCaptureFixture
) -> None:
    handles = install("FA3", fails_for=(32,))
    assert flash_implementation.activate(CUDA, HEADS) == "FA2"
    assert handles[0].removed
    assert _registry.current_flash_attention_impl() is None
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    words = (
        "FA3 (flash_attn_interface) is installed but does not run: RuntimeError: no kernel"
        " image for heads of 32; going"
    )
    assert words in record.getMessage()


def test_a_package_that_cannot_be_imported_is_named_too(
    monkeypatch: pytest.MonkeyPatch,
    install: Callable[..., list[Any]],
    caplog: pytest.LogCaptureFixture,
) -> None:
    from torch.nn.attention import _fa4

    install("FA4")
    monkeypatch.setitem(_registry._FLASH_ATTENTION_IMPLS, "FA4", _fa4.register_flash_attention_fa4)
    assert flash_implementation.activate(CUDA, HEADS) == "FA2"
    assert "OSError: undefined symbol" in caplog.text


def test_the_trial_finds_a_wrong_result(monkeypatch: pytest.MonkeyPatch) -> None:
    from torch.nn.attention import varlen

    def by_document(q: Any, k: Any, v: Any, *_: Any) -> Any:
        parts = (x.view(2, -1, *x.shape[1:]).transpose(1, 2) for x in (q, k, v))
        return (
            torch.nn.functional.scaled_dot_product_attention(*parts).transpose(1, 2).flatten(0, 1)
        )

    monkeypatch.setattr(varlen, "varlen_attn", by_document)
    flash_implementation._try(torch.device("cpu"), 32, torch.bfloat16)
    monkeypatch.setattr(varlen, "varlen_attn", lambda *given: by_document(*given) * 1.5)
    with pytest.raises(RuntimeError, match=r"its results are wrong by .* for heads of 32"):
        flash_implementation._try(torch.device("cpu"), 32, torch.bfloat16)


@pytest.mark.gpu
def test_what_is_used_on_this_gpu_passes_its_trial() -> None:
    print(flash_implementation.activate(CUDA, HEADS))
    flash_implementation._try(CUDA, 64, torch.bfloat16)
