"""The typed run configuration: YAML and overrides in,
frozen objects out (`schema`, `reading`, `checks`).
"""

from electra_dist.config.checks import check_world, divisors, idle_rows
from electra_dist.config.fields import (
    NETWORKS,
    Name,
    Network,
    NonNegativeInt,
    PositiveInt,
    PrecisionMode,
    Section,
)
from electra_dist.config.networks import ModelConfig, NetworkConfig
from electra_dist.config.operation import (
    CheckpointConfig,
    GuardConfig,
    HealthRule,
    Sink,
    TrackingConfig,
    WatchdogConfig,
)
from electra_dist.config.presets import ELECTRA_VOCABULARY
from electra_dist.config.reading import (
    apply_overrides,
    build,
    json_schema,
    load,
    parse_yaml,
    read_yaml,
    resolved_yaml,
)
from electra_dist.config.schedule import decay_start, lr_factor
from electra_dist.config.schema import Config, DataConfig, SourceConfig
from electra_dist.config.shapes import (
    GROUP_ELEMENTS,
    SEQUENCE_STEP,
    layers_of_groups,
    sequence_entries,
)
from electra_dist.config.stages import STAGES, Stage
from electra_dist.config.training import OptimConfig

__all__ = [
    "ELECTRA_VOCABULARY",
    "GROUP_ELEMENTS",
    "NETWORKS",
    "SEQUENCE_STEP",
    "STAGES",
    "CheckpointConfig",
    "Config",
    "DataConfig",
    "GuardConfig",
    "HealthRule",
    "ModelConfig",
    "Name",
    "Network",
    "NetworkConfig",
    "NonNegativeInt",
    "OptimConfig",
    "PositiveInt",
    "PrecisionMode",
    "Section",
    "Sink",
    "SourceConfig",
    "Stage",
    "TrackingConfig",
    "WatchdogConfig",
    "apply_overrides",
    "build",
    "check_world",
    "decay_start",
    "divisors",
    "idle_rows",
    "json_schema",
    "layers_of_groups",
    "load",
    "lr_factor",
    "parse_yaml",
    "read_yaml",
    "recipes",
    "resolved_yaml",
    "sequence_entries",
]
