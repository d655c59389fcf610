"""Which FlashAttention runs behind PyTorch's variable-length attention (`model.attention =
varlen`).

FlashAttention-2 comes with PyTorch. On Hopper (compute capability 9) FlashAttention-3 is used where
its package `flash_attn_interface` is installed, on Hopper and Blackwell (10) FlashAttention-4 where
`flash_attn.cute` is. There is no key: what is installed is used, `activate` says what that is, and
one that is installed but does not pass a small trial is named in a warning, with the reason, and
left.
"""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Iterable
from importlib.machinery import PathFinder

import torch
from torch import Tensor
from torch.nn import attention as registry
from torch.nn import functional as F

logger = logging.getLogger(__name__)

DEFAULT = "FA2"
#: Major compute capability -> the later ones that it has, the best first.
LATER = {9: ("FA3", "FA4"), 10: ("FA4",)}
MODULES = {"FA3": "flash_attn_interface", "FA4": "flash_attn.cute.interface"}

_NEEDED = (
    "activate_flash_attention_impl",
    "current_flash_attention_impl",
    "restore_flash_attention_impl",
)
_LENGTH = 16
_HEADS = 2
_TOLERANCE = 0.05
_in_use = DEFAULT


def in_use() -> str:
    """The implementation of this process: FA2, FA3 or FA4."""
    return _in_use


def activate(device: torch.device, heads: Iterable[tuple[int, torch.dtype]]) -> str:
    """Make the best implementation that is installed the one of this process, before anything is
    compiled.

    heads: head size and type of every network that has it; the trial is of each.

    Returns its name, which `in_use` returns from then on.
    """
    global _in_use
    _in_use = DEFAULT
    wanted = dict.fromkeys(heads)
    for name in _installed(device):
        try:
            registry.activate_flash_attention_impl(name)
            for size, dtype in wanted:
                _try(device, size, dtype)
        except Exception as error:  # a foreign package, built for some machine: anything may come
            if registry.current_flash_attention_impl():
                registry.restore_flash_attention_impl()
            reason = str(error).strip().partition("\n")[0] or "no message"
            logger.warning(
                "attention: %s (%s) is installed but does not run: %s: %s; going on without it,"
                " slower. Build it for torch %s and this GPU, or remove it",
                name, MODULES[name], type(error).__name__, reason, torch.__version__,
            )  # fmt: skip
        else:
            _in_use = name
            break
    return _in_use


def _installed(device: torch.device) -> list[str]:
    """What this device has and can be found, without importing it."""
    if device.type != "cuda" or not all(hasattr(registry, name) for name in _NEEDED):
        return []
    major, _ = torch.cuda.get_device_capability(device)
    return [name for name in LATER.get(major, ()) if _found(MODULES[name])]


def _found(module: str) -> bool:
    """Whether there is such a module; its packages are looked for one by one,
    so that none of them is imported.
    """
    top, *others = module.split(".")
    spec = importlib.util.find_spec(top)
    for part in others:
        if spec is not None:
            spec = PathFinder.find_spec(part, list(spec.submodule_search_locations or []))
    return spec is not None


def _try(device: torch.device, size: int, dtype: torch.dtype) -> None:
    """Forward and backward over two documents and an empty one;
    RuntimeError where the formula says otherwise.
    """
    from torch.nn.attention.varlen import varlen_attn

    tokens = 2 * _LENGTH
    numbers = torch.arange(tokens * 3 * _HEADS * size, device=device, dtype=torch.float32)
    qkv = numbers.sin().view(tokens, 3, _HEADS, size).to(dtype).requires_grad_()
    cu_seqlens = torch.tensor([0, _LENGTH, tokens, tokens], dtype=torch.int32, device=device)
    q, k, v = qkv.unbind(1)
    found = varlen_attn(q, k, v, cu_seqlens, cu_seqlens, _LENGTH, _LENGTH)
    assert isinstance(found, Tensor)
    documents = qkv.detach().float().requires_grad_()
    parts = documents.view(2, _LENGTH, 3, _HEADS, size).permute(2, 0, 3, 1, 4)
    expected = F.scaled_dot_product_attention(*parts).transpose(1, 2).reshape(found.shape)
    upstream = expected.detach()
    (grad,) = torch.autograd.grad(found, qkv, upstream.to(dtype))
    (expected_grad,) = torch.autograd.grad(expected, documents, upstream)
    for one, other in ((found, upstream), (grad, expected_grad)):
        difference = float((one.detach().float() - other).abs().max())
        if not difference < _TOLERANCE:
            raise RuntimeError(
                f"its results are wrong by {difference:.2g} for heads of {size} in {dtype}"
            )
