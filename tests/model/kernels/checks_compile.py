"""Every kernel configuration compiles for the GPUs it is meant for, and fits their shared memory. Needs no GPU.

Not collected by itself: `test_model_flash_attention.py` runs it in a process of its own (Triton must not interpret).
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from electra_dist.model.kernels import flash_attention as fa
from electra_dist.model.kernels import flash_kernels, head_kernels
from electra_dist.model.kernels import generator_head as gh

#: Compute capability -> shared memory a block, in bytes (CUDA programming guide, technical specifications).
SHARED_MEMORY = {(8, 0): 163 * 1024, (8, 9): 99 * 1024, (9, 0): 227 * 1024}
NAMES = {torch.float32: "fp32", torch.float16: "fp16", torch.bfloat16: "bf16"}

FLASH = {
    "forward": flash_kernels.forward_kernel,
    "query_grad": flash_kernels.query_grad_kernel,
    "key_grad": flash_kernels.key_grad_kernel,
}
POINTERS = {
    "low_ptr": "*i32",
    "high_ptr": "*i32",
    "tile_ptr": "*i32",
    "targets_ptr": "*i64",
    "keys_ptr": "*i64",
    "sample_ptr": "*i64",
    "correct_ptr": "*i8",
}
FP32_POINTERS = (
    "lse_ptr", "delta_ptr", "max_ptr", "sum_ptr", "target_logit_ptr", "score_ptr", "tile_logits_ptr", "nll_ptr",
    "grad_nll_ptr", "grad_bias_ptr",
)  # fmt: skip


def kind(name: str, dtype: torch.dtype) -> str:
    if name in POINTERS:
        return POINTERS[name]
    if name.endswith("_ptr"):
        return "*fp32" if name in FP32_POINTERS else f"*{NAMES[dtype]}"
    return "fp32" if name.startswith("scale") or name == "inverse_temperature" else "i32"


def compile_for(
    kernel: Any, constants: dict[str, Any], dtype: torch.dtype, capability: tuple[int, int], warps: int, stages: int
) -> None:
    names = kernel.arg_names
    signature = {name: "constexpr" if name in constants else kind(name, dtype) for name in names}
    aligned = [name for name in names if signature[name][0] == "*" or name.startswith("stride")]
    source = ASTSource(
        fn=kernel,
        signature=signature,
        constexprs={(names.index(name),): value for name, value in constants.items()},
        attrs={(names.index(name),): [["tt.divisibility", 16]] for name in aligned},
    )
    target = GPUTarget("cuda", capability[0] * 10 + capability[1], 32)
    options = {"num_warps": warps, "num_stages": stages, "enable_fp_fusion": True}
    compiled = triton.compile(source, target=target, options=options)
    assert compiled.metadata.shared <= SHARED_MEMORY[capability]


@pytest.mark.parametrize("capability", SHARED_MEMORY)
@pytest.mark.parametrize(("size", "dtype"), [(32, torch.bfloat16), (64, torch.bfloat16), (128, torch.float16)])
@pytest.mark.parametrize("kernel", FLASH)
def test_attention(kernel: str, size: int, dtype: torch.dtype, capability: tuple[int, int]) -> None:
    config = fa.config_for(kernel, size, dtype, capability)
    constants = {"head_dim": size, "block_d": size, "block_m": config.block_m, "block_n": config.block_n}
    compile_for(FLASH[kernel], {**constants, "precision": "ieee"}, dtype, capability, config.warps, config.stages)


@pytest.mark.parametrize("capability", SHARED_MEMORY)
@pytest.mark.parametrize("size", [128, 768])
@pytest.mark.parametrize("kernel", ["forward", "backward"])
def test_generator_head(kernel: str, size: int, capability: tuple[int, int]) -> None:
    config = gh.config_for(kernel, size, torch.bfloat16, capability)
    constants = {"size": size, "block_m": config.block_m, "block_e": config.block_e, "precision": "ieee"}
    function, extra = {
        "forward": (head_kernels.forward_kernel, {"tempered": True}),
        "backward": (head_kernels.grad_logits_kernel, {"block_v": gh._BACKWARD_ENTRIES}),
    }[kernel]
    compile_for(function, {**constants, **extra}, torch.bfloat16, capability, config.warps, config.stages)


def test_the_end_of_the_generator_head() -> None:
    constants = {"block_m": gh._FINISH_POSITIONS, "block_s": 8}
    compile_for(head_kernels.finish_kernel, constants, torch.bfloat16, (9, 0), 4, 3)
