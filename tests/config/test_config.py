"""The configuration: presets against the published sizes, overrides,
and an error for each way to get it wrong.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from electra_dist import config as configuration
from electra_dist import plan
from electra_dist.config import STAGES
from electra_dist.config.checks import divisors
from electra_dist.errors import ConfigError

MINIMAL: dict[str, Any] = {
    "data": {"shards": "shards"},
    "train": {"steps": 20000, "global_rows": 128, "micro_rows": 32},
}


def build(*overrides: str) -> configuration.Config:
    return configuration.build(configuration.apply_overrides(MINIMAL, overrides))


@pytest.mark.parametrize(
    ("preset", "trained", "backbone"),
    [("small", 14.2e6, 13.55e6), ("base", 119.4e6, 108.9e6), ("large", 354.7e6, 334.1e6)],
)
def test_presets_have_the_published_parameter_counts(
    preset: str, trained: float, backbone: float
) -> None:
    config = build(f"model.preset={preset}")
    count = plan.parameters(config, 30522)
    assert count.total == pytest.approx(trained, rel=1e-3)
    sizes, hidden = config.model.discriminator, config.model.discriminator.hidden_size
    head = hidden * hidden + 2 * hidden + 1
    assert sizes.layers in (12, 24)
    assert count.discriminator + count.embeddings - head == pytest.approx(backbone, rel=6e-3)


def test_xl_has_about_1_3_billion_parameters() -> None:
    assert plan.parameters(build("model.preset=xl"), 30522).total == pytest.approx(1.3e9, rel=0.05)


def test_a_key_beside_the_preset_wins() -> None:
    config = build("model.preset=base", "model.generator.layers=6", "data.mask_fraction=0.2")
    assert (config.model.generator.layers, config.model.generator.hidden_size) == (6, 256)
    assert config.data.mask_fraction == 0.2
    assert build("model.preset=large").data.mask_fraction == 0.25


def test_resolved_file_gives_the_same_configuration_again(tmp_path: Path) -> None:
    config = build(
        "optim.lr=5e-4", "zero.generator.stage=1", "tracking.tags=[a, b]", "optim.schedule=wsd"
    )
    path = tmp_path / "config.yaml"
    path.write_text(configuration.resolved_yaml(config), encoding="utf-8")
    assert configuration.load(path) == config


def test_networks_override_the_common_keys() -> None:
    config = build(
        "zero.stage=2",
        "zero.generator.stage=0",
        "optim.discriminator.lr=1e-4",
        "precision.generator.mode=fp32",
    )
    assert config.stage("generator") == STAGES[0]
    assert config.stage("discriminator") == STAGES[2]
    assert config.optimizer("discriminator").lr == 1e-4
    assert config.optimizer("generator").lr == config.optim.lr
    assert (config.precision_mode("generator"), config.precision_mode("discriminator")) == (
        "fp32",
        "bf16",
    )


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("optim.lrr=1", ["unknown key optim.lrr", "'lr'", "warmup_steps"]),
        ("optimizer.lr=1", ["unknown key optimizer", "'optim'"]),
        ("model.preset=bas", ["model.preset", "'bas'", "'base'"]),
        ("tracking.wandb=off", ["tracking.wandb", "'off'", "'offline'"]),
        ("train.steps=many", ["train.steps", "'many'", "integer"]),
        ("train.steps=0", ["train.steps", "0", "greater than 0"]),
        ("train.micro_rows=48", ["train.global_rows = 128", "micro_rows = 48", "64"]),
        ("data.streams=48", ["data.streams = 48", "64"]),
        ("data.row_length=1024", ["data.row_length = 1024", "model.max_positions = 512"]),
        ("model.generator.heads=3", ["model.generator.hidden_size = 64", "heads = 3"]),
        ("optim.warmup_steps=20001", ["optim.warmup_steps = 20001", "20000"]),
        ("train.cuda_graphs=true", ["zero.stage = 3 for the generator", "zero.stage=1"]),
        (
            "train.cuda_graphs=true,zero.stage=1,train.compile=false",
            ["train.cuda_graphs", "train.compile=true"],
        ),
        ("zero.stage=4", ["zero.stage", "4", "3"]),
        ("run.name=../elsewhere", ["run.name", "../elsewhere"]),
        ("run.name=$(reboot)", ["run.name"]),
        ("optim.lr=.nan", ["optim.lr", ".nan", "number"]),
        ("optim", ["'optim'", "key.sub=value"]),
        ("optim.lr.x=1", ["optim.lr"]),
    ],
)
def test_a_mistake_is_named_with_its_value_and_what_is_allowed(
    override: str, words: list[str]
) -> None:
    with pytest.raises(ConfigError) as caught:
        build(*override.split(","))
    for word in words:
        assert word in str(caught.value)


def test_missing_keys_are_named() -> None:
    with pytest.raises(ConfigError, match=r"data\.shards is missing"):
        configuration.build({"data": {}, "train": MINIMAL["train"]})


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"data: [", "not valid YAML"),
        (b"- a\n- b\n", "expected a mapping"),
        (b"train: {steps: 1}\ntrain: {steps: 2}\n", "'train' appears twice"),
        (b"\xff\xfe", "UTF-8"),
        (b"run: !!python/object/apply:os.system ['true']\n", "not valid YAML"),
    ],
)
def test_a_broken_file_is_one_clear_error(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "broken.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=words):
        configuration.load(path)


def test_numbers_in_scientific_notation_are_numbers_and_words_are_no_booleans() -> None:
    parsed = configuration.parse_yaml(
        "{a: 5e-4, b: 1e3, c: 1.5E+2, d: on, e: true, f: 12, g: 0.5}", "test"
    )
    assert parsed == {"a": 5e-4, "b": 1e3, "c": 150.0, "d": "on", "e": True, "f": 12, "g": 0.5}


def test_any_world_size_up_to_the_streams_fits() -> None:
    config = build("data.streams=64")  # 128 rows, micro-batches of 32
    for world_size in range(1, 65):
        configuration.check_world(config, world_size)
        # the rank with most streams has ceil(64 / W) of them, each with 2 rows
        most = 2 * ((64 + world_size - 1) // world_size)
        assert config.accumulation(world_size) * 32 >= most
        assert (config.accumulation(world_size) - 1) * 32 < most
        rows = config.accumulation(world_size) * 32 * world_size
        assert config.idle_share(world_size) == pytest.approx((rows - 128) / rows)
    assert [w for w in range(1, 65) if not configuration.idle_rows(config, w)] == [1, 2, 4]
    assert "33.3% of the rows of a step are empty" in configuration.idle_rows(config, 3)
    for world_size in (0, 65):
        with pytest.raises(ConfigError, match=r"1 to 64; without idle rows: \[1, 2, 4\]"):
            configuration.check_world(config, world_size)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({}, "key data.shards is missing: give the folder of the shards, or several as data.sour"),
        (
            {"shards": "a", "sources": [{"shards": "b"}]},
            r"data.shards = a and data.sources are both set.*data.shards=null or data.sources=\[\]",
        ),
        (
            {"sources": [{"shards": "a", "weight": 1}, {"shards": "b"}]},
            "data.sources: 1 of 2 sources have a weight",
        ),
        (
            {"sources": [{"shards": "a", "weight": 1}], "temperature": 0.5},
            "data.temperature = 0.5 goes with data.sources that have no weight",
        ),
        ({"shards": "a", "temperature": 0.5}, "data.temperature = 0.5 goes with data.sources"),
        (
            {"sources": [{"shards": "x/a/shards"}, {"shards": "y/a"}]},
            "data.sources: 2 sources are called a; give each a `name` of its own",
        ),
        ({"sources": [{"shards": "a", "weight": 0}]}, "key data.sources.0.weight = 0"),
        (
            {"sources": [{"shard": "a"}]},
            "unknown key data.sources.0.shard.*data.sources.0 has: shards, weight, name",
        ),
    ],
)
def test_sources_that_cannot_be_are_refused(data: dict[str, Any], message: str) -> None:
    tree = {"data": data, "train": {"steps": 1, "global_rows": 8, "micro_rows": 8}}
    with pytest.raises(ConfigError, match=message):
        configuration.build(tree)


def test_shipped_files_resolve_and_follow_the_schema(repo_root: Path) -> None:
    schema = configuration.json_schema()
    for path in sorted((repo_root / "configs").glob("*.yaml")):
        config = configuration.load(path)
        jsonschema.validate(configuration.read_yaml(path), schema)
        jsonschema.validate(
            configuration.parse_yaml(configuration.resolved_yaml(config), "resolved"), schema
        )
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**MINIMAL, "optim": {"lrr": 1}}, schema)


# --- what is offloaded and partitioned twice ------------------------------------------------------


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["zero.stage=0", "zero.offload_optimizer=true"],
            r"zero\.offload_optimizer = true with zero\.stage = 0 for the"
            r" generator.*zero\.generator\.stage=1",
        ),
        (
            ["zero.discriminator.stage=0", "zero.discriminator.offload_optimizer=true"],
            r"zero\.discriminator\.offload_optimizer = true with zero\.discriminator\.stage = 0 for"
            r" the discriminator",
        ),
        (
            ["zero.stage=2", "zero.offload_optimizer=true", "zero.offload_parameters=true"],
            r"zero\.offload_parameters = true with zero\.stage = 2.*zero\.generator\.stage=3",
        ),
        (
            ["zero.offload_parameters=true"],
            r"zero\.offload_optimizer = false.*zero\.generator\.offload_optimizer=true",
        ),
        (
            [
                "zero.offload_optimizer=true",
                "zero.offload_parameters=true",
                "zero.hpz_partition_size=4",
            ],
            r"zero\.hpz_partition_size = 4 with zero\.offload_parameters = true.*keep one of them",
        ),
        (
            ["zero.stage=2", "zero.hpz_partition_size=4"],
            r"zero\.hpz_partition_size = 4 with no network at stage 3",
        ),
        (
            ["precision.discriminator.mode=fp32", "zero.communication_data_type=bf16"],
            r"zero\.communication_data_type = bf16 with precision\.mode = fp32 for the"
            r" discriminator.*mode=bf16",
        ),
        (
            ["zero.stage=0", "precision.mode=bf16"],
            r"zero\.stage = 0 with precision\.mode = bf16 for the generator.*set zero\.stage=1",
        ),
        (["zero.hpz_partition_size=1"], r"key zero\.hpz_partition_size = 1"),
        (["zero.offload_optimiser=true"], r"did you mean 'offload_optimizer'"),
    ],
)
def test_what_deepspeed_cannot_offload_is_refused_with_the_alternatives(
    overrides: list[str], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        build(*overrides)


def test_what_follows_from_other_keys_is_filled_in_once_and_loads_again() -> None:
    config = build("data.row_length=256")
    assert (config.data.streams, config.data.max_documents_per_row) == (128, 32)
    assert config.data.open_blocks == 3  # three times the rows that a stream gives
    assert build("data.streams=8").data.open_blocks == 48
    assert build("data.streams=1").data.open_blocks == 64
    again = configuration.build(configuration.parse_yaml(configuration.resolved_yaml(config), "x"))
    assert again == config
    assert config.accumulation(2) == 2


def test_each_network_offloads_its_own() -> None:
    config = build(
        "zero.stage=3", "zero.offload_optimizer=true", "zero.generator.offload_optimizer=false"
    )
    assert not config.sharding("generator").offload_optimizer
    assert config.sharding("discriminator").offload_optimizer


@pytest.mark.parametrize(
    ("world_size", "per_node", "message"),
    [
        (32, 8, None),
        (32, 4, None),  # a group of two whole nodes
        (8, 8, None),  # one group: plain stage 3
        (4, 4, None),
        (64, 6, r"with 6 ranks a node a group would lie partly on another node; possible: \[2\]"),
    ],
)
def test_groups_of_ranks_must_lie_on_whole_nodes(
    world_size: int, per_node: int, message: str | None
) -> None:
    config = build("zero.hpz_partition_size=8", "train.micro_rows=1")
    assert config.hpz_partition_size("generator", world_size) == (8 if world_size > 8 else None)
    if message is None:
        configuration.check_world(config, world_size, per_node)
        return
    with pytest.raises(ConfigError, match=message):
        configuration.check_world(config, world_size, per_node)


def test_groups_of_ranks_must_divide_the_world() -> None:
    config = build("zero.hpz_partition_size=3", "train.micro_rows=1")
    with pytest.raises(
        ConfigError, match=r"zero\.hpz_partition_size = 3.*world size 16; possible: \[2, 4, 8\]"
    ):
        configuration.check_world(config, 16)


# --- a file that somebody else wrote --------------------------------------------------------------


def laughs(levels: int, width: int = 9) -> str:
    """`width` ** `levels` values in a few lines."""
    lines = [f"a0: &a0 [{', '.join(['lol'] * width)}]"]
    for level in range(1, levels):
        lines.append(f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * width)}]")
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (laughs(9), "too large: .* with all aliases followed"),
        ("a: &a " + "x" * 1000 + "\nb: [" + "*a, " * 10_000 + "]\n", "too large: .* characters"),
        ("a: &a [*a]\n", "an alias stands for something that it is part of"),
        ("a: " + "[" * 5_000 + "\n", "nested too deeply"),
        ("a: " + "9" * 5_000 + "\n", "not valid YAML: .*4300"),
        ("x" * 200_000, "is larger than"),
        ("? [a, b]\n: c\n", "a key must be a word"),
        ("a: !!timestamp x\n", "could not determine a constructor"),
        ("a: !!binary eHg=\n", "could not determine a constructor"),
        ("a: !!set {x}\n", "could not determine a constructor"),
        ("a: !!python/object/apply:os.system ['true']\n", "could not determine a constructor"),
        ("a: !!int x\n", "not valid YAML"),
        (
            "".join(f"key{number}: 1\n" for number in range(1000)),
            "unknown key key0.* and 9[0-9]{2} more",
        ),
        ("a: \x00\n", "not valid YAML"),
    ],
)
def test_a_file_that_would_fill_the_memory_or_run_something_is_refused_in_a_sentence(
    text: str, message: str, tmp_path: Path
) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message) as error:
        configuration.load(path)
    assert len(str(error.value)) < 10_000


def test_a_fifo_is_no_configuration_and_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "config.yaml")
    with pytest.raises(ConfigError, match="is not a regular file"):
        configuration.load(tmp_path / "config.yaml")


def test_aliases_of_an_honest_file_work_and_an_override_changes_one_of_them(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(
        "data: {shards: s}\ntrain: {steps: 9, global_rows: 4, micro_rows: 1}\noptim: {warmup_steps:"
        " 0}\n"
        "model:\n  embedding_size: 32\n"
        "  generator: &network {layers: 1, hidden_size: 16, heads: 1, ffn_size: 32}\n "
        " discriminator: *network\n"
    )
    config = configuration.load(path, ["model.discriminator.layers=3"])
    assert (config.model.generator.layers, config.model.discriminator.layers) == (1, 3)


@pytest.mark.parametrize(
    "override",
    [
        "model.discriminator.layers=10000000",
        "model.generator.hidden_size=10000000000",
        "model.vocab_size=1000000000000",
        "model.max_positions=1000000000000",
        "train.global_rows=1000000000000",
        "data.max_documents_per_row=1000000000000",
    ],
)
def test_sizes_that_nothing_could_hold_are_refused(override: str) -> None:
    with pytest.raises(ConfigError, match="less than or equal to"):
        build(override)


def test_divisors_are_all_there_in_order() -> None:
    for number in (1, 2, 12, 36, 97, 360):
        assert divisors(number) == [d for d in range(1, number + 1) if number % d == 0]
    assert len(divisors(2**24)) == 25
