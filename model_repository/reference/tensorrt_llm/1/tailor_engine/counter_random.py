"""
Uniform numbers that depend on a request's seed and its step, and on nothing else.

Decides reproducibility: no state is shared, so whatever else is in the batch cannot change a draw. Does not know what
the number is used for. The mixer is SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number
generators", 2014).
"""

MASK = (1 << 64) - 1
GOLDEN = 0x9E3779B97F4A7C15


def mix(value: int) -> int:
    """SplitMix64's finaliser: 64 bits in, 64 bits out."""
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & MASK
    return value ^ (value >> 31)


def uniform(seed: int, step: int) -> float:
    """A number in (0, 1): the step-th draw of this seed. The seed is mixed first: n and n+1 share none."""
    bits = mix((mix(seed & MASK) + (step + 1) * GOLDEN) & MASK)
    return ((bits >> 11) + 0.5) / (1 << 53)
