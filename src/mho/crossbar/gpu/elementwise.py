# mypy: ignore-errors
# Device code: Triton compiles it, and its types are not Python's.
"""One pass over memory each: ranges, the DAC, its backward pass, noise on a weight, normals alone."""

import triton
import triton.language as tl

from mho.crossbar.gpu.numbers import advance, box_muller, fresh, key_of, lanes, word_of


@triton.jit
def rounded(v, r, LEVELS: tl.constexpr):
    """(r / L) rint(clamp(v L / r, -L, L)), halves to even; float32, L < 2**22. NaN stays NaN; r = 0 gives 0."""
    top = tl.full((), LEVELS, tl.float32)
    usable = r >= 1.1754943508222875e-38 * LEVELS
    t = v * tl.where(usable, tl.div_rn(top, tl.where(usable, r, 1.0)), top)
    t = tl.where(t < -top, -top, tl.where(t > top, top, t))
    # Adding 1.5 * 2**23 leaves no bits for a fraction: the sum is the nearest integer.
    t = (t + 12582912.0) - 12582912.0
    return t * tl.div_rn(r, top)


@triton.jit
def peak_of(v):
    """|v| as ordered integers: NaN > infinity > every number, so that a maximum keeps NaN."""
    return v.to(tl.int32, bitcast=True) & 0x7FFFFFFF


@triton.jit
def range_of(peak, power, count, sigmas):
    """The range that statistics ask for: the largest |v| (sigmas < 0), or so many root mean squares."""
    return tl.where(sigmas < 0, peak.to(tl.float32, bitcast=True), sigmas * tl.sqrt(power / count))


@triton.jit
def seek(v, ranges, used, n, count, sigmas, WHICH: tl.constexpr, BLOCK: tl.constexpr):
    """used [2] = ranges, but used[WHICH] from v where it is not known: one program, which returns at once where it is.

    v: flat, n elements; count: n as a float. A range is unknown once in a training, so this need not be fast.
    """
    tl.store(used + 1 - WHICH, tl.load(ranges + 1 - WHICH).to(tl.float32))
    r = tl.load(ranges + WHICH).to(tl.float32)
    if r > 0:
        tl.store(used + WHICH, r)
        return
    peak, power = tl.zeros((BLOCK,), tl.int32), tl.zeros((BLOCK,), tl.float32)
    for start in range(0, n, BLOCK):
        at = start + tl.arange(0, BLOCK)
        value = tl.load(v + at, mask=at < n, other=0.0).to(tl.float32)
        peak = tl.maximum(peak, peak_of(value))
        power += value * value
    tl.store(used + WHICH, range_of(tl.max(peak, 0), tl.sum(power, 0), count, sigmas))


@triton.jit
def settle(
    stats, used, out, programs_in, start_out, programs_out, count_in, count_out, sigmas_in, sigmas_out,
    KEEP: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """out [2]: the ranges that statistics [.., 2] (max, sum of squares) of input and output ask for, a program each.

    Where there are none, and with KEEP where the range is known, out = used.
    """
    which = tl.program_id(0)
    start, programs = which * start_out, tl.where(which == 0, programs_in, programs_out)
    r = tl.load(used + which)
    if programs == 0 or (KEEP and r > 0):
        tl.store(out + which, r)
        return
    peak, power = tl.zeros((BLOCK,), tl.int32), tl.zeros((BLOCK,), tl.float32)
    for first in range(0, programs, BLOCK):
        i = first + tl.arange(0, BLOCK)
        peak = tl.maximum(peak, peak_of(tl.load(stats + 2 * (start + i), mask=i < programs, other=0.0)))
        power += tl.load(stats + 2 * (start + i) + 1, mask=i < programs, other=0.0)
    count, sigmas = tl.where(which == 0, count_in, count_out), tl.where(which == 0, sigmas_in, sigmas_out)
    tl.store(out + which, range_of(tl.max(peak, 0), tl.sum(power, 0), count, sigmas))


@triton.jit
def drive(x, out, inside, ranges, stats, n, LEVELS: tl.constexpr, BITS: tl.constexpr, BLOCK: tl.constexpr):
    """A DAC and the statistics of its input. x, out: flat; ranges[0]: full scale; stats [programs, 2]: max, sum x^2.

    inside [ceil(n / 8)]: where |x| <= full scale, eight elements a byte (BITS).
    """
    pid = tl.program_id(0)
    at = pid.to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    v = tl.load(x + at, mask=at < n, other=0.0).to(tl.float32)
    tl.store(stats + 2 * pid, tl.max(peak_of(v), 0).to(tl.float32, bitcast=True))
    tl.store(stats + 2 * pid + 1, tl.sum(v * v, 0))
    if LEVELS > 0:
        r = tl.load(ranges)
        tl.store(out + at, rounded(v, r, LEVELS), mask=at < n)
        if BITS:
            octet = tl.reshape((tl.abs(v) <= r).to(tl.int32), (BLOCK // 8, 8)) << tl.arange(0, 8)[None, :]
            byte = pid.to(tl.int64) * (BLOCK // 8) + tl.arange(0, BLOCK // 8)
            tl.store(inside + byte, tl.sum(octet, 1).to(tl.uint8), mask=byte * 8 < n)


@triton.jit
def pass_inside(g, x_q, inside, partial, n, SUMS: tl.constexpr, BLOCK: tl.constexpr):
    """g = 0 where the DAC clipped, in place: nothing else of g is read or written.

    partial [programs]: sum of g sign(x_q) over what was clipped, the gradient of the DAC's range (SUMS).
    """
    pid = tl.program_id(0)
    byte = pid.to(tl.int64) * (BLOCK // 8) + tl.arange(0, BLOCK // 8)
    octet = tl.load(inside + byte, mask=byte * 8 < n, other=255).to(tl.int32)
    at = byte[:, None] * 8 + tl.arange(0, 8)[None, :]
    lost = (((octet[:, None] >> tl.arange(0, 8)[None, :]) & 1) == 0) & (at < n)
    if SUMS:
        grad = tl.load(g + at, mask=lost, other=0.0).to(tl.float32)
        driven = tl.load(x_q + at, mask=lost, other=0.0).to(tl.float32)
        toward = tl.where(driven > 0, grad, tl.where(driven < 0, -grad, 0.0))
        tl.store(partial + pid, tl.sum(tl.sum(toward, 1), 0))
    tl.store(g + at, tl.zeros((BLOCK // 8, 8), tl.float32), mask=lost)


@triton.jit(do_not_specialize=["seed_low", "seed_high"])
def add_normal(
    x, out, limit, sigma, n, column, scale, seed_low, seed_high,
    CLIPS: tl.constexpr, COLUMNS: tl.constexpr, BLOCKS: tl.constexpr,
):  # fmt: skip
    """out = clamp(x, -limit, limit) + sigma scale z, z the numbers of ``crossbar.kernels`` for this seed.

    limit, sigma: one number each, or one for every ``column`` elements in memory (COLUMNS). A program makes BLOCKS
    blocks of 1024: radii in steps 0 ... 31 of 16 lanes, angles in steps 32 ... 63.
    """
    block = tl.program_id(0).to(tl.int64) * BLOCKS + tl.arange(0, BLOCKS)
    a, b, c, d = lanes(key_of(seed_low, seed_high), block.to(tl.uint64), 16)
    e, f, g, h = a, b, c, d
    for _ in range(32):
        e, f, g, h = advance(e, f, g, h)
    at = block[:, None] * 1024 + tl.arange(0, 16)[None, :]
    for _ in range(32):
        cosine, sine = box_muller(word_of(a, d), word_of(e, h))
        a, b, c, d = advance(a, b, c, d)
        e, f, g, h = advance(e, f, g, h)
        place(x, out, limit, sigma, at, n, column, scale, cosine, CLIPS, COLUMNS)
        place(x, out, limit, sigma, at + 512, n, column, scale, sine, CLIPS, COLUMNS)
        at += 16


@triton.jit
def place(x, out, limit, sigma, at, n, column, scale, z, CLIPS: tl.constexpr, COLUMNS: tl.constexpr):
    v = tl.load(x + at, mask=at < n, other=0.0).to(tl.float32)
    which = at // column if COLUMNS else at * 0
    size = tl.load(sigma + which, mask=at < n, other=0.0).to(tl.float32) * scale
    if CLIPS:
        bound = tl.load(limit + which, mask=at < n, other=0.0).to(tl.float32)
        v = tl.where(v < -bound, -bound, tl.where(v > bound, bound, v))
    tl.store(out + at, v + size * z, mask=at < n)


@triton.jit(do_not_specialize=["seed_low", "seed_high"])
def fill_fresh(out, M, N, scale, seed_low, seed_high, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """The fresh normals of a product as a tensor: out [parts, M, N]."""
    row, column, part = tl.program_id(0) * ROWS, tl.program_id(1) * COLUMNS, tl.program_id(2)
    z = fresh(seed_low, seed_high, part, row, column, ROWS, COLUMNS)
    m = (row + tl.arange(0, ROWS))[:, None]
    n = (column + tl.arange(0, COLUMNS))[None, :]
    at = (part.to(tl.int64) * M + m) * N + n
    tl.store(out + at, z * scale, mask=(m < M) & (n < N))
