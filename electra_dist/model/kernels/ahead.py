"""Compile the kernels of our attention for a GPU that is not here: whether they compile, and what
they take of it.

Comes in: a kernel's name, its configuration, sizes and a compute capability. Goes out: registers,
bytes that did not fit into them, shared memory. Nothing runs. Triton must not interpret in this
process.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from typing import Any, NamedTuple

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from electra_dist.model.kernels import flash_kernels
from electra_dist.model.kernels.flash_attention import Config, constants

#: Compute capability -> shared memory a block, in bytes (CUDA programming guide,
#: technical specifications).
SHARED_MEMORY = {(8, 0): 163 * 1024, (8, 9): 99 * 1024, (9, 0): 227 * 1024}
TYPES = {torch.float32: "fp32", torch.float16: "fp16", torch.bfloat16: "bf16"}
KERNELS: dict[str, Any] = {
    "forward": flash_kernels.forward_kernel,
    "query_grad": flash_kernels.query_grad_kernel,
    "key_grad": flash_kernels.key_grad_kernel,
}
_POINTERS = {
    "low_ptr": "*i32",
    "high_ptr": "*i32",
    "lse_ptr": "*fp32",
    "delta_ptr": "*fp32",
    "seed_ptr": "*i64",
}


class Compiled(NamedTuple):
    """What a kernel takes: registers and spilled bytes of a thread, shared memory of a block.

    `four_byte_copies` are asynchronous copies of single numbers in the code, each as slow as one of
    four numbers.
    """

    registers: int
    spilled_bytes: int
    shared_bytes: int
    four_byte_copies: int


def compile_for(
    function: Any,
    types: dict[str, str],
    constexprs: dict[str, Any],
    capability: tuple[int, int],
    warps: int,
    stages: int,
) -> Any:
    """Triton's compiled kernel, for arguments of `types`; pointers and strides are multiples of 16.

    Arguments in neither dictionary are 32-bit integers.
    """
    names = function.arg_names
    signature = {
        name: "constexpr" if name in constexprs else types.get(name, "i32") for name in names
    }
    aligned = [name for name in names if signature[name][0] == "*" or name.startswith("stride")]
    source = ASTSource(
        fn=function,
        signature=signature,
        constexprs={(names.index(name),): value for name, value in constexprs.items()},
        attrs={(names.index(name),): [["tt.divisibility", 16]] for name in aligned},
    )
    target = GPUTarget("cuda", capability[0] * 10 + capability[1], 32)
    options = {"num_warps": warps, "num_stages": stages, "enable_fp_fusion": True}
    return triton.compile(source, target=target, options=options)


def compile_attention(
    kernel: str,
    config: Config,
    size: int,
    dtype: torch.dtype,
    dropout: bool,
    capability: tuple[int, int] = (9, 0),
) -> Compiled:
    """One of `KERNELS` for heads of `size`; raises what Triton raises where it does not compile."""
    function = KERNELS[kernel]
    element = f"*{TYPES[dtype]}"
    types = dict.fromkeys(("scale", "scale_log2", "keep_scale"), "fp32")
    types |= {
        name: _POINTERS.get(name, element) for name in function.arg_names if name.endswith("_ptr")
    }
    constexprs = constants(kernel, config, size, dtype, dropout)
    if not dropout:
        constexprs["seed_ptr"] = None
    compiled = compile_for(function, types, constexprs, capability, config.warps, config.stages)
    registers, spilled = _resources(compiled.asm["cubin"])
    copies = re.findall(
        r"cp\.async\.ca\.shared\.global \[[^]]*\], \[[^]]*\], (?:0x)?4\b", compiled.asm["ptx"]
    )
    return Compiled(registers, spilled, int(compiled.metadata.shared), len(copies))


def _resources(cubin: bytes) -> tuple[int, int]:
    """Registers and stack bytes a thread, by the `cuobjdump` that comes with Triton."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        words = [triton.knobs.nvidia.cuobjdump.path, "--dump-resource-usage", file.name]
        said = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    found = re.search(r"REG:(\d+) STACK:(\d+)", said)
    assert found is not None, said
    return int(found[1]), int(found[2])
