"""What the sections of a configuration are made of: the frozen base class, and types of values with
their limits.
"""

from __future__ import annotations

from typing import Annotated, Literal, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, WithJsonSchema
from pydantic_core import PydanticCustomError

from electra_dist.architectures import ARCHITECTURES
from electra_dist.architectures import Network as Network

NETWORKS: tuple[Network, ...] = get_args(Network)

PositiveInt = Annotated[int, Field(gt=0)]
NonNegativeInt = Annotated[int, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Probability = Annotated[float, Field(ge=0, lt=1)]
PositiveFloat = Annotated[float, Field(gt=0)]
NonNegativeFloat = Annotated[float, Field(ge=0)]
Beta = Annotated[float, Field(ge=0, lt=1)]
StageNumber = Annotated[int, Field(ge=0, le=3)]
PrecisionMode = Literal["bf16", "fp16", "fp32"]
#: Sizes of networks, bounded by far more than anybody trains:
#: a configuration may be somebody else's.
Layers = Annotated[int, Field(gt=0, le=1000)]
Width = Annotated[int, Field(gt=0, le=2**18)]
Vocabulary = Annotated[int, Field(gt=0, le=2**24)]
#: A name that becomes a folder, a W&B run and a Slurm job.
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")]


def _registered(name: str) -> str:
    if name not in ARCHITECTURES:
        expected = " or ".join(repr(known) for known in ARCHITECTURES)
        raise PydanticCustomError(  # as of a `Literal`, so that the nearest name is told
            "literal_error", "Input should be {expected}", {"expected": expected}
        )
    return name


#: A registered architecture.
ArchitectureName = Annotated[
    str,
    AfterValidator(_registered),
    WithJsonSchema({"type": "string", "enum": list(ARCHITECTURES)}),
]


class Section(BaseModel):
    """A frozen group of keys; unknown keys are refused."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True
    )
