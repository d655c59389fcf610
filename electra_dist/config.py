"""The typed run configuration: YAML and `key.sub=value` overrides in, frozen objects out.

The only place that reads YAML. A file is resolved in four steps: parse, apply the overrides, fill in the model
preset, validate. An unknown key, a wrong type or an impossible combination raises `ConfigError` naming the
key, the value, what is allowed and the nearest valid name (DESIGN D10). What `resolved_yaml` prints is complete:
loading it again gives the same configuration.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import pydantic
import yaml
from pydantic import BaseModel, ConfigDict, Field

from electra_dist.errors import ConfigError, nearest
from electra_dist.presets import PRESETS

Network = Literal["generator", "discriminator"]
NETWORKS: tuple[Network, ...] = get_args(Network)

PositiveInt = Annotated[int, Field(gt=0)]
NonNegativeInt = Annotated[int, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Probability = Annotated[float, Field(ge=0, lt=1)]
PositiveFloat = Annotated[float, Field(gt=0)]
NonNegativeFloat = Annotated[float, Field(ge=0)]
Beta = Annotated[float, Field(ge=0, lt=1)]
Stage = Annotated[int, Field(ge=0, le=3)]
PrecisionMode = Literal["bf16", "fp16", "fp32"]
#: A name that becomes a folder, a W&B run and a Slurm job.
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")]


class Section(BaseModel):
    """A frozen group of keys; unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True)


class RunConfig(Section):
    """Where the run lives: everything it writes lies in `dir/name`."""

    dir: str = "runs"
    """Folder that holds all runs."""
    name: Name = "run"
    """Name of this run and of its folder: letters, digits, '.', '_' and '-'."""

    @property
    def path(self) -> Path:
        return Path(self.dir) / self.name


class DataConfig(Section):
    """The shards and how rows are made of them."""

    shards: str
    """Folder written by `electra-dist data build` (holds manifest.json)."""
    row_length: Annotated[int, Field(ge=8, le=32768)] = 512
    """Tokens a row, [CLS] and [SEP] included."""
    streams: PositiveInt | None = None
    """Canonical streams; divides train.global_rows; the world size must divide it. Default: the largest divisor of
    train.global_rows up to 256."""
    max_documents_per_row: PositiveInt | None = None
    """Documents packed into one row at most. Default: row_length / 8, at least 4."""
    mask_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.15
    """Fraction of the non-special tokens of a row that the generator predicts."""
    mask_token_fraction: Fraction = 0.85
    """Fraction of the selected tokens shown as [MASK]; the others are shown unchanged."""
    prefetch_steps: PositiveInt = 2
    """Whole steps prepared ahead of the one that trains."""
    verify: Literal["sizes", "checksums"] = "sizes"
    """What is checked of every shard before training: file sizes, or SHA-256 as well."""


class NetworkConfig(Section):
    """The encoder of one network."""

    layers: PositiveInt
    hidden_size: PositiveInt
    heads: PositiveInt
    ffn_size: PositiveInt


class ModelConfig(Section):
    """Sizes and structure of both networks."""

    preset: Literal["tiny", "small", "base", "large", "xl"] = "small"
    """Named sizes; keys set beside it win."""
    vocab_size: PositiveInt | None = None
    """Default: the vocabulary of the shards; when set, it must equal it."""
    embedding_size: PositiveInt
    max_positions: PositiveInt = 512
    embedding_sharing: Literal["shared", "disentangled", "none"] = "shared"
    """shared: one embedding for both (ELECTRA). disentangled: the discriminator adds its own delta to the detached
    embeddings of the generator (DeBERTaV3). none: each network has its own."""
    generator: NetworkConfig
    discriminator: NetworkConfig
    dropout: Probability = 0.0
    attention_dropout: Probability = 0.0
    layer_norm_epsilon: PositiveFloat = 1e-12
    initializer_range: PositiveFloat = 0.02
    generator_bias: Literal["zeros", "unigram"] = "unigram"
    """Start of the generator's output bias: zeros (ELECTRA), or the log frequency of each token in the shards."""
    temperature: PositiveFloat = 1.0
    """Temperature of the softmax that replaced tokens are sampled from."""
    attention: Literal["auto", "sdpa", "varlen", "triton"] = "auto"
    """Attention backend. auto: the fastest one that this machine runs; the choice is logged."""


class TrainConfig(Section):
    """The loop."""

    steps: PositiveInt
    """Optimizer steps of the whole run."""
    global_rows: PositiveInt
    """Rows of one optimizer step over all ranks and accumulation steps."""
    micro_rows: PositiveInt
    """Rows of one forward and backward on one rank."""
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 1234
    generator_weight: NonNegativeFloat = 1.0
    discriminator_weight: NonNegativeFloat = 50.0
    device: Literal["auto", "cuda", "cpu"] = "auto"
    """auto: cuda where there is one."""
    compile: bool | None = None
    """Compile each layer's forward. Default: on cuda only."""
    activation_checkpointing: bool = False
    """Recompute each layer in backward instead of keeping its activations."""


class OptimOverrides(Section):
    """Keys of `optim` that one network has for itself; unset ones follow `optim`."""

    lr: PositiveFloat | None = None
    weight_decay: NonNegativeFloat | None = None
    beta1: Beta | None = None
    beta2: Beta | None = None
    epsilon: PositiveFloat | None = None


class OptimConfig(Section):
    """AdamW and the learning-rate schedule."""

    lr: PositiveFloat = 5e-4
    warmup_steps: NonNegativeInt = 10000
    schedule: Literal["linear", "cosine", "wsd"] = "linear"
    """After the warm-up: linear or cosine decay to the end, or warm-up, stable, linear decay."""
    decay_steps: PositiveInt | None = None
    """Steps of the final decay of schedule wsd. Default: 10% of train.steps."""
    final_lr_fraction: Fraction = 0.0
    """Learning rate at the end, as a fraction of the peak."""
    weight_decay: NonNegativeFloat = 0.01
    beta1: Beta = 0.9
    beta2: Beta = 0.999
    epsilon: PositiveFloat = 1e-6
    clip_norm: NonNegativeFloat = 1.0
    """Largest norm of the gradient; 0 turns clipping off."""
    clip_mode: Literal["joint", "separate"] = "joint"
    """One norm over both networks (ELECTRA), or one for each."""
    generator: OptimOverrides = OptimOverrides()
    discriminator: OptimOverrides = OptimOverrides()


class ZeroOverrides(Section):
    """Keys of `zero` that one network has for itself; unset ones follow `zero`."""

    stage: Stage | None = None


class ZeroConfig(Section):
    """DeepSpeed ZeRO."""

    stage: Stage = 3
    persistence_threshold: NonNegativeInt = 100_000
    """Stage 3: parameters of fewer elements stay whole on every rank."""
    generator: ZeroOverrides = ZeroOverrides()
    discriminator: ZeroOverrides = ZeroOverrides()


class PrecisionOverrides(Section):
    """Keys of `precision` that one network has for itself; unset ones follow `precision`."""

    mode: PrecisionMode | None = None


class PrecisionConfig(Section):
    """Arithmetic of forward and backward; master weights and moments are always fp32."""

    mode: PrecisionMode = "bf16"
    initial_scale_power: Annotated[int, Field(ge=0, le=32)] = 16
    """fp16: the first loss scale is 2 to this power."""
    scale_window: PositiveInt = 1000
    """fp16: steps without overflow after which the loss scale doubles."""
    generator: PrecisionOverrides = PrecisionOverrides()
    discriminator: PrecisionOverrides = PrecisionOverrides()


class CheckpointConfig(Section):
    """When the state is saved; an interruption and the end of the run always save."""

    every: PositiveInt = 1000
    """Steps between two checkpoints."""
    keep: PositiveInt = 3
    """Newest checkpoints kept; older ones are removed after a new one is whole."""


class ValidationConfig(Section):
    """Losses on the held-out split."""

    every: NonNegativeInt = 1000
    """Steps between two validations; 0 turns them off (the end of the run still has one)."""
    rows: PositiveInt = 512
    """Rows of one validation at most; always the same ones, with the same masks."""


class TrackingConfig(Section):
    """Metrics: metrics.jsonl always, W&B beside it."""

    every: PositiveInt = 10
    """Steps between two logged ones."""
    wandb: Literal["online", "offline", "disabled"] = "offline"
    project: str = "electra-dist"
    entity: str | None = None
    tags: tuple[str, ...] = ()


class Config(Section):
    """One run, complete."""

    run: RunConfig = RunConfig()
    data: DataConfig
    model: ModelConfig
    train: TrainConfig
    optim: OptimConfig = OptimConfig()
    zero: ZeroConfig = ZeroConfig()
    precision: PrecisionConfig = PrecisionConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    validation: ValidationConfig = ValidationConfig()
    tracking: TrackingConfig = TrackingConfig()

    def network(self, network: Network) -> NetworkConfig:
        return self.model.generator if network == "generator" else self.model.discriminator

    def zero_stage(self, network: Network) -> int:
        override = getattr(self.zero, network).stage
        return self.zero.stage if override is None else override

    def precision_mode(self, network: Network) -> PrecisionMode:
        return getattr(self.precision, network).mode or self.precision.mode

    def optimizer(self, network: Network) -> OptimConfig:
        """`optim` as `network` sees it: its own keys in place of the common ones."""
        own = getattr(self.optim, network).model_dump(exclude_none=True)
        return self.optim.model_copy(update=own)


# --- reading ---------------------------------------------------------------------------------------------------------


class _Yaml(yaml.SafeLoader):
    """YAML as people write it: `5e-4` is a number, only true and false are booleans, a key twice is an error."""


_Yaml.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith((":bool", ":float", ":timestamp"))]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Yaml.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"^(?:true|True|false|False)$"), list("tTfF"))
_Yaml.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(
        r"^[-+]?(?:[0-9][0-9_]*\.[0-9_]*(?:[eE][-+]?[0-9]+)?|\.[0-9]+(?:[eE][-+]?[0-9]+)?|[0-9]+[eE][-+]?[0-9]+)$"
    ),
    list("-+0123456789."),
)


def _mapping_without_repeats(loader: _Yaml, node: yaml.MappingNode) -> dict[Any, Any]:
    mapping: dict[Any, Any] = {}
    for key_node, value_node in node.value:
        key = loader.construct_object(key_node, deep=True)
        if key in mapping:
            raise yaml.constructor.ConstructorError(None, None, f"key {key!r} appears twice", key_node.start_mark)
        mapping[key] = loader.construct_object(value_node, deep=True)
    return mapping


_Yaml.add_constructor("tag:yaml.org,2002:map", _mapping_without_repeats)


def parse_yaml(text: str, source: str) -> Any:
    """Parse YAML text; `source` names it in the error."""
    try:
        return yaml.load(text, Loader=_Yaml)  # noqa: S506 -- a SafeLoader
    except yaml.YAMLError as error:
        raise ConfigError(f"{source}: not valid YAML: {' '.join(str(error).split())}") from error


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file; raises `ConfigError` when it is missing, not UTF-8, or holds no mapping."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: no such configuration file") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read as UTF-8 text: {error}") from error
    content = parse_yaml(text, str(path))
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: expected a mapping of sections (run, data, model, ...), found {content!r}")
    return content


def _set(tree: dict[str, Any], dotted: str, value: Any) -> None:
    *parents, last = dotted.split(".")
    for depth, part in enumerate(parents):
        branch = tree.setdefault(part, {})
        if not isinstance(branch, dict):
            raise ConfigError(f"override {dotted}: {'.'.join(parents[: depth + 1])} is not a section")
        tree = branch
    tree[last] = value


def apply_overrides(tree: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """A copy of `tree` with each `key.sub=value` set; values are read as YAML."""
    copied: dict[str, Any] = yaml.safe_load(yaml.safe_dump(dict(tree)))
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals or not re.fullmatch(r"[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)*", key):
            raise ConfigError(f"override {override!r}: expected key.sub=value, for example optim.lr=5e-4")
        _set(copied, key, parse_yaml(text, f"override {key}"))
    return copied


def _with_preset(tree: dict[str, Any]) -> dict[str, Any]:
    """`tree` with the values of its model preset below the ones that it sets itself."""
    model = tree.get("model") or {}
    name = model.get("preset", ModelConfig.model_fields["preset"].default) if isinstance(model, dict) else None
    if name not in PRESETS:
        return tree  # the validation that follows names the key and the allowed values
    return _merge(PRESETS[name], tree)


def _merge(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(under)
    for key, value in over.items():
        below = merged.get(key)
        if isinstance(below, Mapping) and (isinstance(value, Mapping) or value is None):
            merged[key] = _merge(below, value or {})
        else:
            merged[key] = value
    return merged


def _valid_keys(location: Sequence[str | int]) -> list[str]:
    section: type[BaseModel] = Config
    for part in location:
        field = section.model_fields.get(str(part))
        if field is None or not (isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)):
            return []
        section = field.annotation
    return list(section.model_fields)


def _explain(error: pydantic.ValidationError, source: str) -> str:
    lines = []
    for detail in error.errors():
        key = ".".join(str(part) for part in detail["loc"])
        if detail["type"] == "extra_forbidden":
            valid = _valid_keys(detail["loc"][:-1])
            where = ".".join(str(part) for part in detail["loc"][:-1]) or "the top level"
            lines.append(f"unknown key {key}{nearest(str(detail['loc'][-1]), valid)}; {where} has: {', '.join(valid)}")
        elif detail["type"] == "missing":
            lines.append(f"key {key} is missing")
        else:
            message = detail["msg"][0].lower() + detail["msg"][1:]
            close = ""
            if detail["type"] == "literal_error" and isinstance(detail["input"], str):
                allowed = re.findall(r"'([^']*)'", str(detail.get("ctx", {}).get("expected", "")))
                close = nearest(detail["input"], allowed)
            lines.append(f"key {key} = {detail['input']!r}: {message}{close}")
    return f"{source}: " + "; ".join(lines)


def build(tree: Mapping[str, Any], source: str = "configuration") -> Config:
    """Fill in the preset and the derived defaults, validate, check the combinations; raises `ConfigError`."""
    try:
        config = Config.model_validate(_with_preset(dict(tree)))
    except pydantic.ValidationError as error:
        raise ConfigError(_explain(error, source)) from error
    config = _with_derived_defaults(config)
    for problem in _contradictions(config):
        raise ConfigError(f"{source}: {problem}")
    return config


def load(path: Path | str, overrides: Sequence[str] = ()) -> Config:
    """Read, override, fill in and check a configuration file; raises `ConfigError`."""
    tree = apply_overrides(read_yaml(Path(path)), overrides)
    return build(tree, str(path) if not overrides else f"{path} with overrides")


def resolved_yaml(config: Config) -> str:
    """The complete configuration as YAML; `load` of it gives the same object."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def json_schema() -> dict[str, Any]:
    """JSON Schema of a configuration file, for editors: what a preset supplies is not required."""
    schema = Config.model_json_schema()
    schema["title"] = "electra-dist run configuration"
    schema["required"] = [name for name in schema.get("required", []) if name != "model"]
    schema["$defs"]["ModelConfig"].pop("required", None)
    schema["$defs"]["NetworkConfig"].pop("required", None)
    return schema


# --- what follows from what, and what cannot be ----------------------------------------------------------------------


def divisors(number: int) -> list[int]:
    """All divisors of `number`, ascending."""
    return [d for d in range(1, number + 1) if number % d == 0]


def _with_derived_defaults(config: Config) -> Config:
    rows, length = config.train.global_rows, config.data.row_length
    data = config.data.model_copy(
        update={
            "streams": config.data.streams or max(d for d in divisors(rows) if d <= 256),
            "max_documents_per_row": config.data.max_documents_per_row or max(4, length // 8),
        }
    )
    optim = config.optim
    if optim.schedule == "wsd" and optim.decay_steps is None:
        optim = optim.model_copy(update={"decay_steps": max(1, config.train.steps // 10)})
    return config.model_copy(update={"data": data, "optim": optim})


def _contradictions(config: Config) -> list[str]:
    """One sentence for each impossible combination."""
    found = []
    data, train, optim, model = config.data, config.train, config.optim, config.model
    streams = data.streams or 1
    if train.global_rows % streams:
        found.append(
            f"train.global_rows = {train.global_rows} is not divisible by data.streams = {streams}: every stream gives"
            f" the same number of rows to a step; streams may be one of {divisors(train.global_rows)}"
        )
    if train.global_rows % train.micro_rows:
        found.append(
            f"train.global_rows = {train.global_rows} is not divisible by train.micro_rows = {train.micro_rows};"
            f" micro_rows may be one of {divisors(train.global_rows)}"
        )
    if data.row_length > model.max_positions:
        found.append(
            f"data.row_length = {data.row_length} is more than model.max_positions = {model.max_positions}:"
            f" raise model.max_positions to at least {data.row_length}"
        )
    for network in NETWORKS:
        sizes = config.network(network)
        if sizes.hidden_size % sizes.heads:
            found.append(
                f"model.{network}.hidden_size = {sizes.hidden_size} is not divisible by"
                f" model.{network}.heads = {sizes.heads}"
            )
    end = "train.steps" if optim.schedule != "wsd" else "train.steps - optim.decay_steps"
    room = train.steps - (optim.decay_steps or 0 if optim.schedule == "wsd" else 0)
    if optim.warmup_steps > room:
        found.append(f"optim.warmup_steps = {optim.warmup_steps} is more than {end} = {room}")
    return found


def check_world(config: Config, world_size: int) -> None:
    """Raise `ConfigError` when `world_size` ranks cannot train this configuration; the message lists those that can."""
    streams, rows, micro = config.data.streams or 1, config.train.global_rows, config.train.micro_rows
    fits = [w for w in divisors(streams) if (rows // w) % micro == 0]
    if world_size in fits:
        return
    if streams % world_size:
        reason = f"it does not divide data.streams = {streams}"
    else:
        reason = (
            f"its {rows // world_size} rows a rank (train.global_rows = {rows}) are not divisible by"
            f" train.micro_rows = {micro}"
        )
    raise ConfigError(f"world size {world_size}: {reason}; possible world sizes: {fits}")
