"""Plans: sizes against the networks, memory against what DeepSpeed is told,
network against ring formulas.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from electra_dist import config as configuration
from electra_dist import plan
from electra_dist.cli.prepare import plan as command
from electra_dist.config import NETWORKS, STAGES, Config
from electra_dist.errors import ConfigError, UserError

VOCABULARY = 16384


def make(preset: str = "base", **keys: Any) -> Config:
    tree: dict[str, Any] = {
        "data": {"shards": "shards", "row_length": 512},
        "model": {"preset": preset},
        "train": {"steps": 1000, "global_rows": 256, "micro_rows": 16},
        "optim": {"warmup_steps": 0},
        "zero": {"stage": 1},
    }
    overrides = [f"{name.replace('__', '.')}={value}" for name, value in keys.items()]
    return configuration.build(configuration.apply_overrides(tree, overrides), "test")


@pytest.mark.parametrize("preset", ["tiny", "small"])
@pytest.mark.parametrize("sharing", ["shared", "disentangled", "none"])
def test_parameters_are_those_of_the_networks(preset: str, sharing: str) -> None:
    from electra_dist.model.discriminator import Discriminator
    from electra_dist.model.generator import Generator

    config = make(preset, model__embedding_sharing=sharing)
    count = plan.parameters(config, 1000)
    generator, discriminator = (
        Generator(config.model, 1000, "sdpa"),
        Discriminator(config.model, 1000, "sdpa"),
    )
    assert count.generator == sum(p.numel() for p in generator.parameters())
    assert count.discriminator == sum(p.numel() for p in discriminator.parameters())


def test_flops_a_token_are_those_of_the_published_script() -> None:
    # google-research/electra, flops_computation.py: 1.29e18 for small, 6.42e19 for base; it counts
    # every embedding look-up, softmax, LayerNorm and activation too, hence the tolerance.
    for preset, length, published in (("small", 128, 1.29e18), ("base", 512, 6.42e19)):
        steps, rows = {"small": (10**6, 128), "base": (766_000, 256)}[preset]
        config = make(preset, data__row_length=length, train__global_rows=rows)
        flops = plan.plan_run(config, 30522, 1, 1, "h100").flops_per_token * steps * rows * length
        assert flops == pytest.approx(published, rel=0.12), preset


def test_shorter_documents_cost_less_attention_and_nothing_else() -> None:
    config = make()
    whole, halves = (
        plan.plan_run(config, VOCABULARY, 1, 1, "h100", document_length=n) for n in (512, 256)
    )
    layers_times_hidden = sum(
        config.network(name).layers * config.network(name).hidden_size for name in NETWORKS
    )
    assert whole.flops_per_token - halves.flops_per_token == pytest.approx(
        3 * 4 * layers_times_hidden * 256
    )


def test_the_bucket_is_the_one_that_deepspeed_is_given() -> None:
    from electra_dist.model.generator import Generator
    from electra_dist.parallel.world import World
    from electra_dist.plan import engine_memory
    from electra_dist.zero import engines

    assert engine_memory.BUCKET_ELEMENTS == engines._BUCKET_ELEMENTS
    config = make("tiny")
    generator = Generator(config.model, 1000, "sdpa")
    generator.flatten(partitioned=True)
    told = engines.deepspeed_config(config, "generator", generator, 1, World())
    buffers = engine_memory.engine_bytes(config, "generator", 1000, STAGES[3], 1).buffers
    assert buffers == pytest.approx(4 * told["zero_optimization"]["reduce_bucket_size"], abs=8)


def test_each_stage_shares_out_what_zero_says() -> None:
    config = make(precision__mode="fp32")
    count = plan.parameters(config, VOCABULARY).total
    stages = plan.plan_run(config, VOCABULARY, 1, 8, "h100").stages
    assert [stage.memory.optimizer for stage in stages] == pytest.approx(
        [8 * count] + [12 * count / 8] * 3
    )
    assert (
        stages[0].memory.weights
        == stages[1].memory.weights
        == stages[2].memory.weights
        == 4 * count
    )
    at_update = [stage.memory.phases["update"] for stage in stages[:3]]
    assert at_update == sorted(at_update, reverse=True)


def test_stage_3_shares_out_weights_beyond_what_deepspeed_keeps_gathered() -> None:
    from electra_dist.plan.engine_memory import LIVE_PARAMETERS, engine_bytes

    config = make("xl")
    count = plan.parameters(config, 30522).discriminator
    assert count > LIVE_PARAMETERS
    engine = engine_bytes(config, "discriminator", 30522, STAGES[3], 8)
    assert engine.weights == pytest.approx(2 * count / 8)
    assert engine.gathered == 2 * LIVE_PARAMETERS


def test_network_volume_follows_the_ring_formulas() -> None:
    config = make(precision__mode="fp32", train__micro_rows=16)  # 8 ranks, 2 micro-batches a step
    n = plan.parameters(config, VOCABULARY).total
    sent = [stage.network_bytes for stage in plan.plan_run(config, VOCABULARY, 1, 8, "h100").stages]
    ring = 7 / 8
    assert sent == pytest.approx(
        [ring * n * 8, ring * n * (8 + 4), ring * n * (2 * 8 + 4), ring * n * 2 * (4 + 4)]
    )
    assert plan.plan_run(config, VOCABULARY, 1, 1, "h100").configured.network_bytes == 0


def test_gradients_sent_in_bf16_halve_what_they_cost_and_leave_the_weights() -> None:
    # 8 ranks, 2 micro-batches a step
    config = make(zero__communication_data_type="bf16", train__micro_rows=16)
    n = plan.parameters(config, VOCABULARY).total
    sent = [
        stage.network_bytes for stage in plan.plan_run(config, VOCABULARY, 1, 8, "h100").stages[1:]
    ]
    ring = 7 / 8
    assert sent == pytest.approx(
        [ring * n * (4 + 2), ring * n * (2 * 4 + 2), ring * n * 2 * (2 + 2)]
    )


def test_time_follows_from_rate_utilisation_and_network() -> None:
    config = make()
    run = plan.plan_run(
        config, VOCABULARY, 2, 8, "h100", utilisation=0.5, rate=100e12, network_gbit=80
    )
    compute = run.step_tokens / 16 * run.flops_per_token / 50e12
    sent = run.configured.network_bytes
    # one of the eight links of a ring on each node leaves it
    assert run.configured.between_bytes == sent / 8
    assert compute > run.configured.host_seconds > 0
    assert run.configured.utilisation == pytest.approx(0.5 * compute / run.configured.step_seconds)
    # Stage 1 hides nothing in fp32, in bf16 all but the weights after the update;
    # stage 3 hides all.
    byte = 15 / 16 * run.parameters.total * (7 / 8 / 450e9 + 1 / 8 / 10e9)
    cases = (
        ("fp32", 1, compute + 12 * byte),
        ("bf16", 1, compute + 2 * byte),
        ("bf16", 3, compute),
    )
    for mode, stage, wanted in cases:
        other = plan.plan_run(
            make(precision__mode=mode),
            VOCABULARY,
            2,
            8,
            "h100",
            utilisation=0.5,
            rate=100e12,
            network_gbit=80,
        )
        assert other.stages[stage].step_seconds == pytest.approx(wanted)
    assert run.configured.days == pytest.approx(1000 * run.configured.step_seconds / 86400)
    assert run.checkpoint_bytes == 12 * run.parameters.total


def test_the_backward_of_varlen_attention_has_its_buffer() -> None:
    """1.7 GB at base with an entry for every document that there might be;
    some 0.2 GB with those that there are.
    """
    from electra_dist.plan.activations import Surroundings, varlen_temporaries

    config = make("base", train__micro_rows=64, precision__mode="bf16")
    buffer = varlen_temporaries(config, "discriminator", Surroundings("cuda", "varlen"))
    assert buffer == (64 * 512 + 128 * 256) * 12 * (64 + 1) * 4
    assert varlen_temporaries(config, "discriminator", Surroundings("cuda", "triton")) == 0
    many = make("base", train__micro_rows=64, precision__mode="bf16", data__row_length=128)
    assert varlen_temporaries(many, "discriminator", Surroundings("cuda", "varlen")) > buffer / 2


def test_attention_with_dropout_on_a_gpu_is_our_kernel_and_keeps_no_mask() -> None:
    from electra_dist.plan.activations import attention_saved
    from electra_dist.plan.memory import surroundings

    plain, dropped = (
        make(
            "base",
            precision__mode="bf16",
            model__attention_dropout=dropout,
            train__deterministic=True,
        )
        for dropout in (0.0, 0.1)
    )
    around = surroundings(dropped, "cuda")
    assert around.attention == "triton"
    assert attention_saved(dropped, "discriminator", around) == attention_saved(
        plain, "discriminator", around
    )
    assert surroundings(dropped, "cpu").attention == "sdpa"


def test_a_step_is_no_faster_than_the_host_starts_it() -> None:
    """Small on 8 H100 came out at 25 M tokens a second."""
    config = make("small", train__global_rows=1024, train__micro_rows=16, precision__mode="bf16")
    few, many = (plan.plan_run(config, 30522, nodes, 8, "h100") for nodes in (1, 8))
    for stage in few.stages[1:]:
        assert stage.host_seconds > 24 * 0.3e-3
        assert stage.step_seconds >= stage.host_seconds
    # Twelve layers in each network, and as much work for the host at any number of ranks.
    assert many.configured.host_seconds * many.world_size == pytest.approx(
        few.configured.host_seconds * 8
    )
    assert plan.plan_run(config, 30522, 1, 1, "cpu").configured.host_seconds == 0


def test_stage_3_below_a_billion_parameters_is_advised_against_where_it_costs_time() -> None:
    keys = {"train__global_rows": 2048, "train__micro_rows": 4, "precision__mode": "bf16"}
    (advice,) = plan.plan_run(make("base", zero__stage=3, **keys), 30522, 16, 8, "h100").advice
    assert advice.startswith("zero.stage=1 fits too, and is estimated ")
    assert plan.plan_run(make("base", zero__stage=1, **keys), 30522, 16, 8, "h100").advice == ()
    assert plan.plan_run(make("xl", zero__stage=3, **keys), 30522, 16, 8, "h100").advice == ()


@pytest.mark.parametrize("preset", ["tiny", "small", "base", "large"])
@pytest.mark.parametrize("sharing", ["shared", "disentangled", "none"])
def test_flat_parameters_are_those_of_the_networks(preset: str, sharing: str) -> None:
    import torch

    from electra_dist.model.discriminator import Discriminator
    from electra_dist.model.generator import Generator

    config = make(preset, model__embedding_sharing=sharing)
    for kind in (Generator, Discriminator):
        with torch.device("meta"):
            network = kind(config.model, 1000, "sdpa")
            network.flatten(partitioned=True)
        planned = plan.flat_parameters(config, 1000)[kind.__name__.lower()]  # type: ignore[index]
        assert sorted(planned) == sorted(p.numel() for p in network.parameters())


def test_what_is_proposed_fits_and_nothing_faster_of_its_kind_does() -> None:
    config = make("base", train__global_rows=4096, train__micro_rows=1, precision__mode="bf16")
    found = plan.fits(plan.costs_of(config, 30522, 1, 8, "a100-40gb"))
    fastest = min(fit.step_seconds for fit in found)
    equals = [fit for fit in found if fit.step_seconds < 1.019 * fastest]
    assert found[0] in equals
    assert found[0].micro_rows == max(fit.micro_rows for fit in equals) > 1
    assert found[0].stage == min(
        fit.stage for fit in equals if fit.micro_rows == found[0].micro_rows
    )
    assert {fit.stage for fit in found} == {1, 2, 3}
    for stage, recomputed in {(fit.stage, fit.activation_checkpointing) for fit in found}:
        rows = max(
            f.micro_rows
            for f in found
            if (f.stage, f.activation_checkpointing) == (stage, recomputed)
        )
        keys = {"train__global_rows": 4096, "precision__mode": "bf16", "zero__stage": stage}
        keys["train__activation_checkpointing"] = str(recomputed).lower()
        for micro_rows, fits in ((rows, True), (2 * rows, False)):
            changed = make("base", train__micro_rows=micro_rows, **keys)
            if micro_rows <= 512:
                assert plan.plan_run(changed, 30522, 1, 8, "a100-40gb").configured.fits is fits
    assert (
        max(fit.micro_rows for fit in found if fit.activation_checkpointing) > found[0].micro_rows
    )
    assert plan.fits(plan.costs_of(config, 30522, 1, 8, "a100-40gb", memory_bytes=1e9)) == []


def test_a_run_that_does_not_fit_is_warned_about_with_what_would_fit() -> None:
    run = plan.plan_run(make("large", train__micro_rows=64), 30522, 1, 4, "l4")
    assert run.configured.fits is False
    (warning,) = run.warnings
    assert "will not fit" in warning
    assert "train.activation_checkpointing=true with zero.stage=" in warning
    assert not plan.plan_run(make("small"), 30522, 1, 4, "h100").warnings


def test_what_the_engines_refuse_is_marked() -> None:
    run = plan.plan_run(make(), VOCABULARY, 1, 1, "v100")
    assert run.stages[0].problem == "stage 0 needs precision.mode=fp32, found bf16"
    assert "precision.mode=fp16" in run.warnings[0]


def test_checkpointing_keeps_a_fraction_of_the_activations() -> None:
    plain, thrifty = (
        plan.plan_memory(make(train__activation_checkpointing=c), 30522).activations for c in (0, 1)
    )
    assert thrifty < plain / 4


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"gpu": "h1000"}, "did you mean 'h100'"),
        ({"nodes": 0}, "nodes = 0"),
        ({"utilisation": 1.5}, "utilisation = 1.5"),
    ],
)
def test_numbers_that_cannot_be_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        plan.plan_run(
            make(), VOCABULARY, **({"nodes": 1, "gpus_per_node": 8, "gpu": "h100"} | change)
        )


def test_a_world_that_cannot_train_it_is_refused() -> None:
    with pytest.raises(ConfigError, match="possible world sizes"):
        plan.plan_run(make(), VOCABULARY, 40, 8, "h100")


def run_command(*words: str) -> int:
    import argparse

    parser = argparse.ArgumentParser()
    command.add(parser.add_subparsers())
    arguments = parser.parse_args(["plan", *words])
    return int(arguments.run(arguments))


@pytest.fixture
def config_file(tmp_path: Any) -> str:
    path = tmp_path / "run.yaml"
    path.write_text(configuration.resolved_yaml(make("large", train__micro_rows=32)))
    return str(path)


def test_the_command_prints_every_stage_and_the_assumptions(config_file: str, capsys: Any) -> None:
    assert (
        run_command(config_file, "--nodes", "2", "--gpus-per-node", "4", "--gpu", "a100-40gb") == 0
    )
    out = capsys.readouterr().out
    assert "2 x 4 a100-40gb" in out
    assert "1 *" in out
    assert "assumed" in out
    assert "vocabulary of 30,522 assumed" in out


def test_json_has_every_figure(config_file: str, capsys: Any) -> None:
    assert run_command(config_file, "--gpu", "h200", "--vocab-size", "32768", "--json") == 0
    content = json.loads(capsys.readouterr().out)
    assert content["world_size"] == 1
    assert content["configured"]["fits"] is True
    assert [stage["stage"] for stage in content["stages"]] == [0, 1, 2, 3]
    kinds = ("weights", "gradients", "optimizer", "activations", "buffers")
    for stage in content["stages"]:
        memory = stage["memory"]
        assert memory["peak"] == pytest.approx(sum(memory[kind] for kind in kinds))
        assert memory["peak"] == max(memory["phases"].values())


# --- offload and hierarchical partitioning --------------------------------------------------------


def test_offload_moves_the_optimizer_to_the_host_and_nothing_else() -> None:
    count = plan.parameters(make(), VOCABULARY).total
    for stage in (1, 2, 3):
        here, there = (
            plan.plan_run(
                make(zero__stage=stage, zero__offload_optimizer=o), VOCABULARY, 1, 8, "h100"
            ).configured
            for o in ("false", "true")
        )
        assert here.host_bytes == 0
        assert there.memory.optimizer == 0
        # Master weights, moments and the gradient that AdamW reads. Stage 3 keeps the accumulating
        # ones there as well; below it, the weights on their way back in bf16 and, on each rank, the
        # largest parameter on its way.
        flat = plan.flat_parameters(make(), VOCABULARY)
        largest = sum(max(elements) for elements in flat.values())
        more = 4 * count if stage == 3 else 2 * count + 8 * 2 * largest
        assert there.host_bytes == pytest.approx(16 * count + more)
        # at stage 1 in bf16 we reduce without DeepSpeed's buckets, unless it offloads
        if stage > 1:
            assert there.memory.peak < here.memory.peak
        assert there.network_bytes == here.network_bytes


def test_offloaded_parameters_leave_a_bucket_of_weights_on_the_gpu() -> None:
    from electra_dist.plan.engine_memory import BUCKET_ELEMENTS, engine_bytes

    keys = {"zero__stage": 3, "zero__offload_optimizer": "true"}
    weights = [
        engine_bytes(
            make("xl", zero__offload_parameters=p, **keys), "discriminator", 30522, STAGES[3], 8
        )
        for p in ("false", "true")
    ]
    assert weights[1].weights == 0
    config = make("xl", **keys)
    assert weights[1].gathered == 2 * max(
        BUCKET_ELEMENTS, *plan.flat_parameters(config, 30522)["discriminator"]
    )
    assert weights[1].host - weights[0].host == pytest.approx(weights[0].weights)


def test_hierarchical_partitioning_gathers_over_all_ranks_once_a_step() -> None:
    # 16 ranks on two nodes, two micro-batches: fp32 gradients twice,
    # weights once over all, once within a node.
    keys = {"zero__stage": 3, "precision__mode": "fp32", "train__micro_rows": 8}
    plain, hpz = (
        plan.plan_run(make(**keys, **more), VOCABULARY, 2, 8, "h100").configured
        for more in ({}, {"zero__hpz_partition_size": 8})
    )
    n = plan.parameters(make(), VOCABULARY).total
    assert plain.network_bytes == pytest.approx(15 / 16 * n * 2 * (4 + 4))
    assert hpz.network_bytes == pytest.approx(15 / 16 * n * (2 * 4 + 4) + 7 / 8 * n * 4)
    assert plain.between_bytes == pytest.approx(plain.network_bytes / 8)
    assert hpz.between_bytes == pytest.approx(15 / 16 * n * 12 / 8)
    assert hpz.step_seconds <= plain.step_seconds
    assert hpz.memory.weights - plain.memory.weights == pytest.approx(4 * n / 8)


def test_what_a_node_cannot_hold_does_not_fit() -> None:
    config = make("xl", zero__stage=3, zero__offload_optimizer="true", train__micro_rows=1)
    enough, little, unknown = (
        plan.plan_run(config, 30522, 1, 1, "h100", host_memory_bytes=m) for m in (100e9, 10e9, None)
    )
    assert [run.configured.fits for run in (enough, little, unknown)] == [True, False, None]
    assert "10 GB" in little.warnings[0]
    assert "CPU memory" in little.warnings[0]


def test_offload_is_the_last_remedy() -> None:
    keys = {"precision__mode": "fp16", "train__micro_rows": 1}
    (warning,) = plan.plan_run(make("xl", **keys), 30522, 1, 1, "l4").warnings
    assert "zero.offload_optimizer=true with zero.stage=" in warning
    run = plan.plan_run(make("small", zero__offload_optimizer="true", **keys), 30522, 1, 1, "l4")
    assert run.stages[0].problem == "stage 0 needs precision.mode=fp32, found fp16"
    run = plan.plan_run(
        make("small", precision__mode="fp32", zero__offload_optimizer="true"), 30522, 1, 1, "l4"
    )
    assert run.stages[0].problem == "stage 0 needs zero.offload_optimizer=false"


def test_groups_that_leave_a_node_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"zero\.hpz_partition_size = 16: with 6 ranks a node"):
        plan.plan_run(
            make(
                zero__stage=3,
                zero__hpz_partition_size=16,
                train__global_rows=384,
                train__micro_rows=1,
            ),
            VOCABULARY,
            8,
            6,
            "h100",
        )


def test_the_command_shows_host_memory_and_what_crosses_nodes(
    config_file: str, capsys: Any
) -> None:
    words = ("zero.offload_optimizer=true", "--nodes", "2", "--gpus-per-node", "4", "--gpu", "h100")
    assert run_command(config_file, *words, "--host-memory", "500", "--json") == 0
    content = json.loads(capsys.readouterr().out)
    assert content["configured"]["host_bytes"] > content["configured"]["between_bytes"] > 0
    assert run_command(config_file, *words) == 0
    out = capsys.readouterr().out
    assert "host/node" in out
    assert "to nodes" in out
