"""Uniform numbers from seed and step alone."""

import statistics

from tailor_engine.counter_random import mix, uniform


def test_the_mixer_is_splitmix64s() -> None:
    # First outputs of SplitMix64 seeded with 0, as in the reference implementation.
    golden = 0x9E3779B97F4A7C15
    assert mix(golden) == 0xE220A8397B1DCDAF
    assert mix(2 * golden % (1 << 64)) == 0x6E789E6AA1B965F4


def test_draws_are_uniform_between_0_and_1() -> None:
    draws = [uniform(seed, step) for seed in range(100) for step in range(100)]
    assert 0.0 < min(draws) < 0.001
    assert 0.999 < max(draws) < 1.0
    assert abs(statistics.fmean(draws) - 0.5) < 0.01
    assert abs(statistics.pstdev(draws) - 12**-0.5) < 0.01


def test_no_draw_is_shared_between_neighbouring_seeds_and_steps() -> None:
    assert len({uniform(seed, step) for seed in range(200) for step in range(200)}) == 40_000


def test_any_64_bit_seed_works() -> None:
    assert uniform((1 << 64) - 1, 3) == uniform(-1, 3)
    assert uniform(1 << 63, 0) != uniform(0, 0)
