# mypy: ignore-errors
# Device code: Triton compiles it, and its types are not Python's.
"""One pass over memory each: the DAC, its backward pass, masks, noise on a weight, normals alone."""

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
def drive(x, out, ranges, stats, n, LEVELS: tl.constexpr, BLOCK: tl.constexpr, PROBE: tl.constexpr):
    """A DAC and the statistics of its input. x, out: flat; ranges[0]: full scale; stats [programs, 2]: max, sum x^2.

    PROBE: only the statistics, and only where the range is not known yet.
    """
    pid = tl.program_id(0)
    r = tl.load(ranges)
    if PROBE and r > 0:
        return
    at = pid.to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    v = tl.load(x + at, mask=at < n, other=0.0).to(tl.float32)
    tl.store(stats + 2 * pid, tl.max(peak_of(v), 0).to(tl.float32, bitcast=True))
    tl.store(stats + 2 * pid + 1, tl.sum(v * v, 0))
    if not PROBE and LEVELS > 0:
        tl.store(out + at, rounded(v, r, LEVELS), mask=at < n)


@triton.jit
def pass_inside(g, x, out, ranges, partial, n, BLOCK: tl.constexpr):
    """out = g where |x| <= r, else 0; partial [programs]: sum of g sign(x) over |x| > r, the gradient of r."""
    pid = tl.program_id(0)
    at = pid.to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    r = tl.load(ranges)
    v = tl.load(x + at, mask=at < n, other=0.0).to(tl.float32)
    grad = tl.load(g + at, mask=at < n, other=0.0).to(tl.float32)
    tl.store(out + at, tl.where(tl.abs(v) <= r, grad, 0.0), mask=at < n)
    lost = tl.where(v > r, grad, tl.where(v < -r, -grad, 0.0))
    tl.store(partial + pid, tl.sum(lost, 0))


@triton.jit(do_not_specialize=["seed_low", "seed_high"])
def add_normal(x, out, limit, sigma, n, scale, seed_low, seed_high, CLIPS: tl.constexpr, BLOCKS: tl.constexpr):
    """out = clamp(x, -limit, limit) + sigma scale z, z the numbers of ``crossbar.kernels`` for this seed.

    A program makes BLOCKS blocks of 1024: radii in steps 0 ... 31 of 16 lanes, angles in steps 32 ... 63.
    """
    block = tl.program_id(0).to(tl.int64) * BLOCKS + tl.arange(0, BLOCKS)
    bound = tl.load(limit) if CLIPS else 0.0
    size = tl.load(sigma).to(tl.float32) * scale
    a, b, c, d = lanes(key_of(seed_low, seed_high), block.to(tl.uint64), 16)
    e, f, g, h = a, b, c, d
    for _ in range(32):
        e, f, g, h = advance(e, f, g, h)
    at = block[:, None] * 1024 + tl.arange(0, 16)[None, :]
    for _ in range(32):
        cosine, sine = box_muller(word_of(a, d), word_of(e, h))
        a, b, c, d = advance(a, b, c, d)
        e, f, g, h = advance(e, f, g, h)
        place(x, out, at, n, bound, size, cosine, CLIPS)
        place(x, out, at + 512, n, bound, size, sine, CLIPS)
        at += 16


@triton.jit
def place(x, out, at, n, bound, size, z, CLIPS: tl.constexpr):
    v = tl.load(x + at, mask=at < n, other=0.0).to(tl.float32)
    if CLIPS:
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
