"""Every kernel configuration compiles for the GPUs it is meant for, and fits their shared memory.
Needs no GPU.

Not collected by itself: `test_flash_attention.py` runs it in a process of its own (Triton
must not interpret).
"""

from __future__ import annotations

from typing import Any

import pytest
import torch

from electra_dist.model.kernels import ahead, head_kernels
from electra_dist.model.kernels import flash_attention as fa
from electra_dist.model.kernels import generator_head as gh
from electra_dist.model.kernels.ahead import SHARED_MEMORY, TYPES, compile_attention

HEAD_POINTERS = {
    "tile_ptr": "*i32",
    "targets_ptr": "*i64",
    "keys_ptr": "*i64",
    "sample_ptr": "*i64",
    "larger_ptr": "*i32",
    "correct_ptr": "*i8",
    "in_top_ptr": "*i8",
}
FP32_POINTERS = (
    "lse_ptr", "max_ptr", "sum_ptr", "target_logit_ptr", "score_ptr", "tile_logits_ptr", "nll_ptr",
    "grad_nll_ptr", "grad_bias_ptr",
)  # fmt: skip


def compile_head(
    kernel: Any,
    constants: dict[str, Any],
    dtype: torch.dtype,
    capability: tuple[int, int],
    warps: int,
    stages: int,
) -> None:
    types = {name: f"*{TYPES[dtype]}" for name in kernel.arg_names if name.endswith("_ptr")}
    types |= dict.fromkeys(FP32_POINTERS, "*fp32") | HEAD_POINTERS | {"inverse_temperature": "fp32"}
    compiled = ahead.compile_for(kernel, types, constants, capability, warps, stages)
    assert compiled.metadata.shared <= SHARED_MEMORY[capability]


@pytest.mark.parametrize("dropout", [False, True])
@pytest.mark.parametrize("capability", SHARED_MEMORY)
@pytest.mark.parametrize(
    ("size", "dtype"), [(32, torch.bfloat16), (64, torch.bfloat16), (128, torch.float16)]
)
@pytest.mark.parametrize("kernel", ahead.KERNELS)
def test_attention(
    kernel: str, size: int, dtype: torch.dtype, capability: tuple[int, int], dropout: bool
) -> None:
    config = fa.config_for(kernel, size, dtype, capability)
    compiled = compile_attention(kernel, config, size, dtype, dropout, capability)
    print(f"{kernel}, {size}, {capability}, dropout {dropout}: {compiled}")
    assert compiled.shared_bytes <= SHARED_MEMORY[capability]
    assert compiled.four_byte_copies <= 24
    if capability == (9, 0):
        assert compiled.spilled_bytes <= 128


@pytest.mark.parametrize("capability", SHARED_MEMORY)
@pytest.mark.parametrize("size", [128, 768])
@pytest.mark.parametrize("kernel", ["forward", "backward"])
def test_generator_head(kernel: str, size: int, capability: tuple[int, int]) -> None:
    config = gh.config_for(kernel, size, torch.bfloat16, capability)
    constants = {
        "size": size,
        "block_m": config.block_m,
        "block_e": config.block_e,
        "precision": "ieee",
    }
    function, extra = {
        "forward": (head_kernels.forward_kernel, {"tempered": True}),
        "backward": (head_kernels.grad_logits_kernel, {"block_v": gh._BACKWARD_ENTRIES}),
    }[kernel]
    compile_head(
        function, {**constants, **extra}, torch.bfloat16, capability, config.warps, config.stages
    )


def test_the_end_of_the_generator_head() -> None:
    constants = {"block_m": gh._FINISH_POSITIONS, "block_s": 8}
    compile_head(head_kernels.finish_kernel, constants, torch.bfloat16, (9, 0), 4, 3)
