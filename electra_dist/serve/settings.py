"""What one who starts a server may choose."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from electra_dist.errors import UserError


@dataclass(frozen=True)
class Limits:
    """What one request may ask for, and how many may wait.

    bytes            of a body
    inputs           of a request
    characters       of all texts of an input together
    waiting          inputs that wait for the model, of all requests together
    timeout_seconds  from the first byte of a body to the answer
    """

    bytes: int = 1 << 20
    inputs: int = 128
    characters: int = 20_000
    waiting: int = 1024
    timeout_seconds: float = 30.0


@dataclass(frozen=True)
class Settings:
    """Of a server.

    batch          the most inputs that the model answers at a time
    wait_seconds   how long an input waits for others that share its batch
    workers        copies of the model that answer side by side
    threads        of PyTorch or onnxruntime for each of them; None: what the cores give
    onnx, int8     onnxruntime runs the graph of each folder, the quantised one
    suspects       a discriminator marks words; `generator` suggests others
    token          what a client must send as a bearer token; None: anybody may ask
    """

    folders: tuple[Path, ...]
    host: str = "127.0.0.1"
    port: int = 8000
    device: str | None = None
    batch: int = 32
    wait_seconds: float = 0.002
    workers: int = 1
    threads: int | None = None
    onnx: bool = False
    int8: bool = False
    suspects: bool = False
    generator: Path | None = None
    token: str | None = None
    limits: Limits = Limits()

    def check(self) -> None:
        """Raise `UserError` for a number that makes no sense."""
        least = {
            "port": (self.port, 0),
            "batch": (self.batch, 1),
            "workers": (self.workers, 1),
            "wait_ms": (self.wait_seconds, 0),
            "max_bytes": (self.limits.bytes, 2),
            "max_inputs": (self.limits.inputs, 1),
            "max_characters": (self.limits.characters, 1),
            "threads": (1 if self.threads is None else self.threads, 1),
            "queue": (self.limits.waiting, 1),
        }
        for name, (value, expected) in least.items():
            if value < expected:
                raise UserError(f"`{name}` {value}: expected {expected} or more")
        if self.int8 and not self.onnx:
            raise UserError("`int8`: is about a graph; give `onnx` too")
        if self.onnx and self.device == "cuda":
            raise UserError("`device` cuda: with `onnx`, the model runs on the CPU; leave it out")
        if self.onnx and self.suspects:
            raise UserError("`suspects`: runs with PyTorch; leave `onnx` out")
        if self.generator is not None and not self.suspects:
            raise UserError("`generator`: is an option of `suspects`; give that too")
        if self.port > 65535:
            raise UserError(f"`port` {self.port}: expected at most 65535")
        if not 0 < self.limits.timeout_seconds < float("inf"):
            raise UserError(
                f"`timeout` {self.limits.timeout_seconds:g}: expected a number of seconds above 0"
            )
        if self.limits.inputs > self.limits.waiting:
            raise UserError(
                f"`queue` {self.limits.waiting}: is smaller than the {self.limits.inputs} inputs"
                " that one request may have; raise it or lower `max_inputs`"
            )
