# mypy: ignore-errors
# Device code: Triton compiles it, and its types are not Python's.
"""Counter-based normals in registers: any element of any draw, in any order, for any block size.

Fresh noise of a product: Philox-4x32 (Salmon et al., SC'11) of (seed; column group, row, part), four normals a call.
It is not the CPU's generator: that one makes 1024 numbers in sequence, and a tile of a product wants them at random.
Noise on a tensor lies in memory in blocks, so there the CPU's own numbers are made: xoshiro128++, as in
``crossbar/kernels/normal.h``. Both share its Box-Muller.
"""

import triton
import triton.language as tl

ROUNDS = tl.constexpr(7)
"""The fewest rounds of Philox-4x32 that pass BigCrush (Salmon et al., table 2)."""


@triton.jit
def key_of(seed_low, seed_high):
    """The seed from its two halves (signed 32 bits each, as Triton passes small integers)."""
    return (seed_high.to(tl.uint32).to(tl.uint64) << 32) | seed_low.to(tl.uint32).to(tl.uint64)


@triton.jit
def philox(c0, c1, c2, c3, k0, k1, TIMES: tl.constexpr):
    """Four words of 32 bits from a counter of four and a key of two."""
    for _ in tl.static_range(TIMES):
        low0, high0 = c0 * 0xD2511F53, tl.umulhi(c0, tl.full(c0.shape, 0xD2511F53, tl.uint32))
        low1, high1 = c2 * 0xCD9E8D57, tl.umulhi(c2, tl.full(c2.shape, 0xCD9E8D57, tl.uint32))
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        k0 += tl.full((), 0x9E3779B9, tl.uint32)
        k1 += tl.full((), 0xBB67AE85, tl.uint32)
    return c0, c1, c2, c3


@triton.jit
def box_muller(radius, angle):
    """Two normals from two words: ``crossbar/kernels/normal.h``, operation by operation. |z| <= 6.66."""
    w = (radius >> 1).to(tl.int32).to(tl.float32) + 0.5
    shifted = w.to(tl.int32, bitcast=True) - 0x3F3504F3  # the bits of sqrt(1/2)
    octaves = (31 - (shifted >> 23)).to(tl.float32)
    x = ((shifted & 0x007FFFFF) + 0x3F3504F3).to(tl.float32, bitcast=True) - 1.0
    p = x * 0.2021377831697464 + -0.3244516849517822
    p = p * x + 0.3450166583061218
    p = p * x + -0.39800330996513367
    p = p * x + 0.4993981719017029
    p = p * x + -0.6667011976242065
    p = p * x + 1.0000072717666626
    p = p * x + -2.0
    # Exact arithmetic keeps the radicand at or above 0; a fused multiply-add may fall short of it by an ulp.
    r = tl.sqrt(tl.maximum(octaves * 1.3862943649291992 + p * x, 0.0))
    t = (angle << 2).to(tl.int32, bitcast=True).to(tl.float32) * 4.656612873077393e-10
    q = t * t
    s = q * -3.595450834836811e-05 + 0.002490007085725665
    s = s * q + -0.08074543625116348
    s = (s * q + 0.7853981852531433) * t
    c = q * -0.0003188805130776018 + 0.015849914401769638
    c = c * q + -0.3084242641925812
    c = c * q + 1.0
    sine = (r * s).to(tl.uint32, bitcast=True)
    cosine = (r * c).to(tl.uint32, bitcast=True) ^ (angle << 31)
    swap = (angle & 2) != 0
    first, second = tl.where(swap, sine, cosine), tl.where(swap, cosine, sine)
    return first.to(tl.float32, bitcast=True), second.to(tl.float32, bitcast=True)


@triton.jit
def pair_of(low, high):
    """Two floats in one word of 64 bits.

    Joined one by one, each pair would be a tensor of its own to the compiler, and it would move every one of them
    through shared memory instead of making it where it is needed.
    """
    bits = high.to(tl.uint32, bitcast=True).to(tl.uint64) << 32
    return bits | low.to(tl.uint32, bitcast=True).to(tl.uint64)


@triton.jit
def fresh(seed_low, seed_high, part, row, column, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """Normals [ROWS, COLUMNS] of ``part``: rows ``row`` ..., columns ``column`` ... (a multiple of 16, as is COLUMNS).

    Column 16 a + 8 b + 2 t + e is word 2 b + e of counter (4 a + t, row, part, 0). One thread of a tensor core's
    accumulator holds exactly these four columns, so no number crosses threads.
    """
    groups: tl.constexpr = COLUMNS // 4
    c0 = (column // 4 + tl.arange(0, groups)).to(tl.uint32)[None, :]
    c1 = (row + tl.arange(0, ROWS)).to(tl.uint32)[:, None]
    c0, c1 = tl.broadcast(c0, c1)
    c2 = tl.zeros_like(c0) + tl.cast(part, tl.uint32)
    w0, w1, w2, w3 = philox(c0, c1, c2, tl.zeros_like(c0), seed_low.to(tl.uint32), seed_high.to(tl.uint32), ROUNDS)
    z0, z1 = box_muller(w0, w1)
    z2, z3 = box_muller(w2, w3)
    both = tl.join(pair_of(z0, z2), pair_of(z1, z3))  # [ROWS, groups, e] of two floats each
    low, high = both.to(tl.uint32), (both >> 32).to(tl.uint32)
    words = tl.join(low.to(tl.float32, bitcast=True), high.to(tl.float32, bitcast=True))
    words = tl.reshape(words, (ROWS, groups // 4, 4, 2, 2))  # a, t, e, b
    return tl.reshape(tl.permute(words, (0, 1, 4, 2, 3)), (ROWS, COLUMNS))


@triton.jit
def mix64(x):
    """The finaliser of splitmix64."""
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB
    return x ^ (x >> 31)


@triton.jit
def lanes(seed, block, LANES: tl.constexpr):
    """The state of the xoshiro128++ lanes of each block: four words [blocks, LANES]."""
    golden = tl.full((), 0x9E3779B97F4A7C15, tl.uint64)
    low = mix64(mix64(seed + golden) + block * golden)[:, None]
    high = mix64(mix64(block + 0xD1B54A32D192ED03) + seed * golden)[:, None]
    steps = ((tl.arange(0, LANES) + 1).to(tl.uint64) * golden)[None, :]
    first, second = mix64(low + steps), mix64(high + steps)
    return first.to(tl.uint32), (first >> 32).to(tl.uint32), second.to(tl.uint32), (second >> 32).to(tl.uint32)


@triton.jit
def word_of(a, d):
    """The output of xoshiro128++ in this state."""
    total = a + d
    return ((total << 7) | (total >> 25)) + a


@triton.jit
def advance(a, b, c, d):
    """The next state of xoshiro128++."""
    shifted = b << 9
    c ^= a
    d ^= b
    b ^= c
    a ^= d
    c ^= shifted
    return a, b, c, (d << 11) | (d >> 21)
