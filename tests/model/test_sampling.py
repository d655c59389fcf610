"""Tile-Gumbel sampling: its noise against an integer reference in Python,
its draws against the softmax.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from electra_dist.model import sampling

DRAWS = 40_000


def keys(count: int, seed: int = 0) -> torch.Tensor:
    numbers = np.random.default_rng(seed).integers(0, 2**64, count, dtype=np.uint64)
    return torch.from_numpy(numbers.view(np.int64))


def chi_square_z(samples: torch.Tensor, probabilities: torch.Tensor) -> float:
    """The chi-square statistic as a normal deviate (Wilson-Hilferty);
    cells below 5 expected are pooled.
    """
    expected = probabilities.double() * samples.numel()
    observed = torch.bincount(samples, minlength=expected.numel()).double()
    rare = expected < 5
    cells_e, cells_o = expected[~rare], observed[~rare]
    if rare.any() and expected[rare].sum() >= 5:
        cells_e = torch.cat([cells_e, expected[rare].sum()[None]])
        cells_o = torch.cat([cells_o, observed[rare].sum()[None]])
    statistic = float(((cells_o - cells_e) ** 2 / cells_e).sum())
    degrees = max(cells_e.numel() - 1, 1)
    return ((statistic / degrees) ** (1 / 3) - (1 - 2 / (9 * degrees))) / math.sqrt(
        2 / (9 * degrees)
    )


def distributions() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    zipf = -torch.log(torch.arange(1, 1001).float())[torch.randperm(1000, generator=generator)]
    peaked = torch.randn(700, generator=generator)
    peaked[300] = 8.0
    return {
        "one entry": torch.zeros(1),
        "under one tile": torch.randn(50, generator=generator),
        "flat": torch.zeros(256),
        "zipf": zipf,
        "peaked": peaked,
        "two peaks in one tile": torch.cat(
            [torch.full((130,), -9.0), torch.tensor([3.0, 3.5]), torch.zeros(70)]
        ),
        "spread": 3 * torch.randn(1337, generator=generator),
    }


@pytest.mark.parametrize("name", distributions())
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_samples_follow_the_softmax(name: str, temperature: float) -> None:
    logits = distributions()[name]
    samples = sampling.sample_tokens(logits.expand(DRAWS, -1), keys(DRAWS), temperature)
    assert samples.min() >= 0
    assert samples.max() < logits.numel()
    assert chi_square_z(samples, torch.softmax(logits.double() / temperature, 0)) < 4


def test_samples_of_consecutive_keys_follow_the_softmax() -> None:
    logits = distributions()["spread"]
    samples = sampling.sample_tokens(logits.expand(DRAWS, -1), torch.arange(DRAWS) - DRAWS // 2)
    assert chi_square_z(samples, torch.softmax(logits.double(), 0)) < 4


def test_rare_tokens_are_neither_lost_nor_inflated() -> None:
    logits = torch.zeros(512)
    logits[100] = 16.0  # the other tiles together: 384 * exp(-16) = 4.3e-5
    count = 400_000
    probability = 1 - float(torch.softmax(logits.double(), 0)[:128].sum())
    hits = 0
    for part in keys(count, 3).split(50_000):
        hits += int((sampling.sample_tokens(logits.expand(part.numel(), -1), part) >= 128).sum())
    assert abs(hits - count * probability) < 4 * math.sqrt(count * probability)


def test_entries_of_probability_zero_are_never_drawn() -> None:
    logits = torch.full((300,), float("-inf"))
    logits[[0, 127, 128, 299]] = 0.0
    samples = sampling.sample_tokens(logits.expand(4000, -1), keys(4000))
    assert sorted(set(samples.tolist())) == [0, 127, 128, 299]


def mix(x: int) -> int:
    x ^= x >> 16
    x = x * 0x21F0AAAD % 2**32
    x ^= x >> 15
    x = x * 0x735A2D97 % 2**32
    return x ^ (x >> 15)


def reference_bits(key: int, counter: int) -> int:
    low, high = key % 2**32, key >> 32
    state_1 = mix(mix((low + 0x1E3779B9) % 2**32) ^ high)
    state_2 = mix(mix((high + 0x6A09E667) % 2**32) ^ low)
    return mix(mix((state_1 + counter) % 2**32) ^ state_2)


def test_hash_equals_arbitrary_precision_integers() -> None:
    numbers = [0, 1, 2**31, 2**32 - 1, 2**63, 2**64 - 1, 0x0123456789ABCDEF]
    counters = [0, 1, 238, 2**31 + 5, 2**32 - 1]
    signed = torch.tensor([n - 2**64 if n >= 2**63 else n for n in numbers])
    got = sampling.hash_bits(signed[:, None], torch.tensor(counters)[None, :])
    assert got.tolist() == [[reference_bits(n, c) for c in counters] for n in numbers]


@pytest.mark.parametrize("bit", [0, 17, 31, 32, 50, 63])
def test_one_key_bit_changes_half_of_the_hash_bits(bit: int) -> None:
    some = keys(2000)
    flipped = some ^ (1 << bit if bit < 63 else -(2**63))
    counters = torch.arange(4)[None, :]
    changed = sampling.hash_bits(some[:, None], counters) ^ sampling.hash_bits(
        flipped[:, None], counters
    )
    for output in range(32):
        assert abs(((changed >> output) & 1).double().mean().item() - 0.5) < 0.03


def test_noise_is_uncorrelated_across_keys_and_tiles() -> None:
    noise = sampling.gumbel_noise(torch.arange(400), 0, 200).double()
    centred = (noise - noise.mean()) / noise.std()
    assert abs(noise.mean().item() - 0.5772) < 0.02
    assert abs(noise.var().item() - math.pi**2 / 6) < 0.04
    for other in (
        centred.roll(1, 0),
        centred.roll(1, 1),
        centred.roll((1, 1), (0, 1)),
        centred.roll((1, -1), (0, 1)),
    ):
        assert abs((centred * other).mean().item()) < 4 / math.sqrt(noise.numel())


def test_uniform_number_is_independent_of_the_gumbel_race() -> None:
    uniform = sampling.uniform_noise(torch.arange(20_000)).double()
    gumbel = sampling.gumbel_noise(torch.arange(20_000), 0, 1).squeeze(1).double()
    assert uniform.min() >= 0
    assert uniform.max() < 1
    assert abs(uniform.mean().item() - 0.5) < 0.01
    assert abs(torch.corrcoef(torch.stack([uniform, gumbel]))[0, 1].item()) < 0.03


def test_sample_depends_on_its_own_key_and_logits_only() -> None:
    logits, some = torch.randn(64, 500), keys(64)
    whole = sampling.sample_tokens(logits, some)
    order = torch.randperm(64)
    assert torch.equal(sampling.sample_tokens(logits[order], some[order]), whole[order])
    assert torch.equal(
        torch.cat([sampling.sample_tokens(logits[i : i + 1], some[i : i + 1]) for i in range(64)]),
        whole,
    )
    assert not torch.equal(sampling.sample_tokens(logits, keys(64, seed=9)), whole)


@pytest.mark.parametrize("chunk", [128, 384])
def test_chunks_of_the_vocabulary_draw_the_same_tokens(chunk: int) -> None:
    logits, some = 2 * torch.randn(300, 1000), keys(300)
    parts = [
        sampling.sample_chunk(logits[:, s : s + chunk], some, 0.9, s) for s in range(0, 1000, chunk)
    ]
    best = parts[0]
    for part in parts[1:]:
        best = sampling.better(best, part)
    assert torch.equal(best.token_m, sampling.sample_tokens(logits, some, 0.9))


@pytest.mark.parametrize(("noise", "allowed"), [(1e-5, 0.001), (1e-2, 0.08)])
def test_small_noise_on_the_logits_rarely_changes_a_sample(noise: float, allowed: float) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(1500, 8000, generator=generator)
    disturbed = logits + noise * torch.randn(1500, 8000, generator=generator)
    changed = sampling.sample_tokens(logits, keys(1500)) != sampling.sample_tokens(
        disturbed, keys(1500)
    )
    assert changed.float().mean().item() <= allowed


def test_half_precision_logits_are_sampled_in_fp32() -> None:
    logits, some = torch.randn(200, 700).bfloat16(), keys(200)
    assert torch.equal(
        sampling.sample_tokens(logits, some), sampling.sample_tokens(logits.float(), some)
    )


def test_extreme_logits_give_valid_tokens() -> None:
    logits = torch.full((100, 300), -60000.0)
    logits[:, 7] = 60000.0
    assert (sampling.sample_tokens(logits, keys(100)) == 7).all()


def test_logits_stay_unchanged_and_get_no_gradient() -> None:
    logits = torch.randn(4, 256, requires_grad=True)
    before = logits.detach().clone()
    assert not sampling.sample_tokens(logits, keys(4)).requires_grad
    assert torch.equal(logits.detach(), before)


def test_no_rows_give_no_samples() -> None:
    assert sampling.sample_tokens(torch.zeros(0, 300), keys(0)).shape == (0,)


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan")])
def test_temperature_must_be_positive(temperature: float) -> None:
    with pytest.raises(ValueError, match="temperature"):
        sampling.sample_tokens(torch.zeros(1, 4), keys(1), temperature)
