# mypy: ignore-errors
# Device code: Triton compiles it, and its types are not Python's.
"""The fused product: tiles of the crossbar one after the other, each with its noise and its ADC, summed in registers.

Rows m of the output are input vectors (a batch item, or an output position of a convolution), columns n are columns
of the array. Part p holds the items ``edge(p) ... edge(p + 1)``: inputs, or input channels with all their taps.
"""

import triton
import triton.language as tl

from mho.crossbar.gpu.elementwise import peak_of, rounded
from mho.crossbar.gpu.numbers import fresh


@triton.jit
def edge(i, items, parts, ALIGN: tl.constexpr):
    """round(i items / parts), halves to even: where part i begins, as in ``ops.balanced_blocks``.

    All edges are multiples of ALIGN: the division and the product tell the compiler, so that loads can be wide.
    """
    twice = 2 * i * items + parts
    whole = twice // (2 * parts)
    whole -= tl.cast((twice % (2 * parts) == 0) & (whole % 2 == 1), tl.int32)
    return whole // ALIGN * ALIGN


@triton.jit
def contract(a, b, acc, PRECISION: tl.constexpr):
    """acc + a b. "wide": in float32 whatever the inputs are (Triton's interpreter takes bfloat16 for integers)."""
    if PRECISION == "wide":
        return tl.dot(a.to(tl.float32), b.to(tl.float32), acc, input_precision="ieee")
    else:  # noqa: RET505 (Triton compiles what follows a return)
        return tl.dot(a, b, acc, input_precision=PRECISION)


@triton.jit
def tile_of(pid, M, N, BM: tl.constexpr, BN: tl.constexpr):
    """(row, column) at which a program's tile begins; eight rows of tiles go together, so that the cache holds them."""
    down, across = tl.cdiv(M, BM), tl.cdiv(N, BN)
    first = pid // (8 * across) * 8
    height = tl.minimum(down - first, 8)
    within = pid % (8 * across)
    return (first + within % height) * BM, within // height * BN


@triton.jit
def place_of(m, n, y_batch, y_place, y_column, PLACES: tl.constexpr):
    """Where y[m, n] lies: strides of a batch item, of a position in it, of a column."""
    start = (m // PLACES).to(tl.int64) * y_batch + m % PLACES * y_place
    return start[:, None] + n[None, :] * y_column


@triton.jit
def inputs(x, m, k, first, width, M, s0, s1, s2, s3, CONV: tl.constexpr, SHAPE: tl.constexpr):
    """x of rows m and of items k of a part that begins at ``first`` and has ``width`` items (times taps)."""
    if CONV:
        tap, channel = k // width, first + k % width
        b, position = m // (SHAPE[2] * SHAPE[3]), m % (SHAPE[2] * SHAPE[3])
        i, j = position // SHAPE[3] * SHAPE[6] - SHAPE[8], position % SHAPE[3] * SHAPE[7] - SHAPE[9]
        down = i[:, None] + (tap // SHAPE[5] * SHAPE[10])[None, :]
        across = j[:, None] + (tap % SHAPE[5] * SHAPE[11])[None, :]
        on = (m < M)[:, None] & (k < width * SHAPE[4] * SHAPE[5])[None, :]
        on = on & (down >= 0) & (down < SHAPE[0]) & (across >= 0) & (across < SHAPE[1])
        at = b.to(tl.int64)[:, None] * s0 + channel[None, :] * s1 + down * s2 + across * s3
    else:
        on = (m < M)[:, None] & (k < width)[None, :]
        at = m.to(tl.int64)[:, None] * s0 + (first + k)[None, :] * s1
    return tl.load(x + at, mask=on, other=0.0)


@triton.jit
def variance(read_var, n2, n, N, floor, READS: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr):
    """Variance of the fresh noise of a tile before its scale: floor^2 + read variance (of a column) |x|^2."""
    square = tl.full((BM, BN), 0.0, tl.float32) + floor * floor
    if READS == 1:
        square += tl.load(read_var).to(tl.float32) * n2[:, None]
    if READS == 2:
        square += tl.load(read_var + n, mask=n < N, other=0.0).to(tl.float32)[None, :] * n2[:, None]
    return square


@triton.jit
def put_bits(bits, on, p, m, column, M, N, BM: tl.constexpr, BN: tl.constexpr):
    """Store the truth values ``on`` of part p, eight columns a byte: bits [parts, M, ceil(N / 8)]; beyond N true."""
    on = on | (column + tl.arange(0, BN) >= N)[None, :]
    octet = tl.reshape(on.to(tl.int32), (BM, BN // 8, 8)) << tl.arange(0, 8)[None, None, :]
    width = tl.cdiv(N, 8)
    n = column // 8 + tl.arange(0, BN // 8)
    at = (tl.cast(p, tl.int64) * M + m)[:, None] * width + n[None, :]
    tl.store(bits + at, tl.sum(octet, 2).to(tl.uint8), mask=(m < M)[:, None] & (n < width)[None, :])


@triton.jit
def get_octets(bits, p, m, column, M, N, BM: tl.constexpr, BN: tl.constexpr):
    """The truth values of part p at rows m and at BN columns from ``column``, a multiple of 8; beyond M and N true."""
    width = tl.cdiv(N, 8)
    n = column // 8 + tl.arange(0, BN // 8)
    at = (tl.cast(p, tl.int64) * M + m)[:, None] * width + n[None, :]
    octet = tl.load(bits + at, mask=(m < M)[:, None] & (n < width)[None, :], other=255).to(tl.int32)
    return tl.reshape((octet[:, :, None] >> tl.arange(0, 8)[None, None, :]) & 1, (BM, BN)) != 0


@triton.jit
def get_bits(bits, p, m, n, M, N):
    """The truth values of part p at rows m [.., 1] and columns n [1, ..] (either may be the other way round)."""
    at = (tl.cast(p, tl.int64) * M + m) * tl.cdiv(N, 8) + n // 8
    return ((tl.load(bits + at, mask=(m < M) & (n < N), other=0).to(tl.int32) >> (n % 8)) & 1) != 0


@triton.jit
def reading(
    a, real, r, masks, signs, p, m, column, M, N,
    LEVELS: tl.constexpr, MASKS: tl.constexpr, SIGNS: tl.constexpr, STATS: tl.constexpr, BM: tl.constexpr,
    BN: tl.constexpr,
):  # fmt: skip
    """(what the ADC makes of a, the peak of a as :func:`peak_of`, its sum of squares); bits are stored on the way."""
    peak, power = tl.full((), 0, tl.int32), tl.full((), 0.0, tl.float32)
    if STATS:
        seen = tl.where(real, a, 0.0)
        peak = tl.max(tl.max(peak_of(seen), 1), 0)
        power = tl.sum(tl.sum(seen * seen, 1), 0)
    if LEVELS > 0:
        if MASKS:
            put_bits(masks, tl.abs(a) <= r, p, m, column, M, N, BM, BN)
        if SIGNS:
            put_bits(signs, a > 0, p, m, column, M, N, BM, BN)
        a = rounded(a, r, LEVELS)
    return a, peak, power


@triton.jit(do_not_specialize=["seed_low", "seed_high"])
def convert(
    a, y, bias, ranges, read_var, norms, masks, signs, stats,
    M, N, scale, periphery, seed_low, seed_high, y_batch, y_place, y_column,
    LEVELS: tl.constexpr, FRESH: tl.constexpr, READS: tl.constexpr, BIAS: tl.constexpr, MASKS: tl.constexpr,
    SIGNS: tl.constexpr, STATS: tl.constexpr, PLACES: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr,
):  # fmt: skip
    """y = ADC(a + s z) + bias for the finished sums a of one tile; a lies in memory as y does, and may be y.

    The rest as in :func:`read`, but norms [1, M] are read.
    """
    pid, across = tl.program_id(0), tl.cdiv(N, BN)
    row, column = pid // across * BM, pid % across * BN
    m, n = row + tl.arange(0, BM), column + tl.arange(0, BN)
    real = (m < M)[:, None] & (n < N)[None, :]
    r = tl.load(ranges + 1)
    at = place_of(m, n, y_batch, y_place, y_column, PLACES)
    v = tl.load(a + at, mask=real, other=0.0).to(tl.float32)
    if FRESH:
        z = fresh(seed_low, seed_high, 0, row, column, BM, BN)
        if READS == 0:
            v += periphery * tl.maximum(r, 0.0) * scale * z
        else:
            n2 = tl.load(norms + m, mask=m < M, other=0.0)
            v += tl.sqrt(variance(read_var, n2, n, N, periphery * tl.maximum(r, 0.0), READS, BM, BN)) * scale * z
    v, peak, power = reading(v, real, r, masks, signs, 0, m, column, M, N, LEVELS, MASKS, SIGNS, STATS, BM, BN)
    if STATS:
        tl.store(stats + 2 * pid, peak.to(tl.float32, bitcast=True))
        tl.store(stats + 2 * pid + 1, power)
    if BIAS:
        v += tl.load(bias + n, mask=n < N, other=0.0).to(tl.float32)[None, :]
    tl.store(y + at, v, mask=real)


@triton.jit(do_not_specialize=["seed_low", "seed_high"])
def read(
    x, w, y, bias, ranges, read_var, norms, masks, signs, stats,
    M, N, parts, items, scale, periphery, seed_low, seed_high,
    s0, s1, s2, s3, w_column, w_item, y_batch, y_place, y_column,
    CONV: tl.constexpr, SHAPE: tl.constexpr, LEVELS: tl.constexpr, FRESH: tl.constexpr, READS: tl.constexpr,
    BIAS: tl.constexpr, MASKS: tl.constexpr, SIGNS: tl.constexpr, STATS: tl.constexpr, PROBE: tl.constexpr,
    TAPS: tl.constexpr, PLACES: tl.constexpr, ALIGN: tl.constexpr, PRECISION: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    """y = sum_p ADC(x_p w_p + s_p z_p) + bias; ranges[1]: full scale of the ADC.

    norms [parts, M]: |x_p|^2, written where there is read noise. masks, signs: which outputs of which part were not
    clipped, were positive (:func:`put_bits`). stats [programs, 2]: max and sum of squares in front of the
    ADC. PROBE: only these, without noise, and only where the range is not known yet.
    """
    pid = tl.program_id(0)
    r = tl.load(ranges + 1)
    if PROBE and r > 0:
        return
    row, column = tile_of(pid, M, N, BM, BN)
    m, n, item = row + tl.arange(0, BM), column + tl.arange(0, BN), tl.arange(0, BK)
    real = (m < M)[:, None] & (n < N)[None, :]
    total = tl.zeros((BM, BN), tl.float32)
    peak, power = tl.full((), 0, tl.int32), tl.full((), 0.0, tl.float32)
    for p in range(parts):
        first = edge(p, items, parts, ALIGN)
        width = edge(p + 1, items, parts, ALIGN) - first
        if FRESH and READS == 0:  # its size is known: the sum begins with it, while no other sum fills registers
            a = periphery * tl.maximum(r, 0.0) * scale * fresh(seed_low, seed_high, p, row, column, BM, BN)
        else:
            a = tl.zeros((BM, BN), tl.float32)
        squares = tl.zeros((BM, BK), tl.float32)
        for start in range(0, width * TAPS, BK):
            k = start + item
            x_tile = inputs(x, m, k, first, width, M, s0, s1, s2, s3, CONV, SHAPE)
            w_at = (first + k % width) * TAPS + k // width if CONV else first + k
            w_on = (k < width * TAPS)[:, None] & (n < N)[None, :]
            w_tile = tl.load(w + n.to(tl.int64)[None, :] * w_column + w_at[:, None] * w_item, mask=w_on, other=0.0)
            a = contract(x_tile, w_tile, a, PRECISION)
            if READS > 0:
                wide = x_tile.to(tl.float32)
                squares += wide * wide
        if FRESH and READS > 0:
            n2 = tl.sum(squares, 1)
            if column == 0:
                tl.store(norms + tl.cast(p, tl.int64) * M + m, n2, mask=m < M)
            square = variance(read_var, n2, n, N, periphery * tl.maximum(r, 0.0), READS, BM, BN)
            a += tl.sqrt(square) * scale * fresh(seed_low, seed_high, p, row, column, BM, BN)
        a, top, squares_sum = reading(a, real, r, masks, signs, p, m, column, M, N, LEVELS, MASKS, SIGNS, STATS, BM, BN)
        peak, power = tl.maximum(peak, top), power + squares_sum
        total += a
    if STATS:
        tl.store(stats + 2 * pid, peak.to(tl.float32, bitcast=True))
        tl.store(stats + 2 * pid + 1, power)
    if not PROBE:
        if BIAS:
            total += tl.load(bias + n, mask=n < N, other=0.0).to(tl.float32)[None, :]
        tl.store(y + place_of(m, n, y_batch, y_place, y_column, PLACES), total, mask=real)


@triton.jit
def let_through(g, bits, p, at, m, n, M, N, MASKS: tl.constexpr):
    """The gradient in front of the ADC of part p, at rows m and columns n of either orientation."""
    grad = tl.load(g + at, mask=(m < M) & (n < N), other=0.0)
    if MASKS:
        grad = tl.where(get_bits(bits, p, m, n, M, N), grad, 0.0)
    return grad


@triton.jit
def keep(
    g, bits, out, sums, M, N, p, y_batch, y_place, y_column,
    PLACES: tl.constexpr, SUMS: tl.constexpr, STEPS: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr,
):  # fmt: skip
    """out = the gradient in front of the ADC of part p; g and out lie in memory as y does.

    sums [programs, N]: all of g summed over the program's BM STEPS rows, on the way to a bias's gradient (SUMS).
    """
    column, n = tl.program_id(1) * BN, tl.program_id(1) * BN + tl.arange(0, BN)
    total = tl.zeros((BM, BN), tl.float32)
    for step in range(STEPS):
        m = (tl.program_id(0) * STEPS + step) * BM + tl.arange(0, BM)
        real = (m < M)[:, None] & (n < N)[None, :]
        at = place_of(m, n, y_batch, y_place, y_column, PLACES)
        grad = tl.load(g + at, mask=real, other=0.0)
        inside = get_octets(bits, p, m, column, M, N, BM, BN)
        tl.store(out + at, tl.where(inside, grad, 0.0), mask=real)
        if SUMS:
            total += grad.to(tl.float32)
    if SUMS:
        tl.store(sums + tl.program_id(0) * N + n, tl.sum(total, 0), mask=n < N)


@triton.jit(do_not_specialize=["seed_low", "seed_high"])
def slopes(
    g, masks, signs, ranges, read_var, norms, of_norm, of_range,
    M, N, scale, periphery, seed_low, seed_high, y_batch, y_place, y_column,
    FRESH: tl.constexpr, READS: tl.constexpr, MASKS: tl.constexpr, SIGNS: tl.constexpr, PLACES: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr,
):  # fmt: skip
    """What the loss says of |x_p|^2 and of the ADC's range: of_norm, of_range [parts, M], sums over the columns.

    v = a + scale s z with s^2 = (periphery r)^2 + read_var |x|^2: dL/d(s^2) = dL/dv scale z / (2 s). The normals are
    made again from their seed. Clipped outputs move with the range itself (SIGNS: which way).
    """
    row, p = tl.program_id(0) * BM, tl.program_id(1)
    m = row + tl.arange(0, BM)
    r = tl.maximum(tl.load(ranges + 1), 0.0)
    n2 = tl.zeros((BM,), tl.float32)
    if READS > 0:
        n2 = tl.load(norms + tl.cast(p, tl.int64) * M + m, mask=m < M, other=0.0)
    by_norm, by_range = tl.zeros((BM,), tl.float32), tl.zeros((BM,), tl.float32)
    for column in range(0, N, BN):
        n = column + tl.arange(0, BN)
        at = place_of(m, n, y_batch, y_place, y_column, PLACES)
        grad = let_through(g, masks, p, at, m[:, None], n[None, :], M, N, MASKS).to(tl.float32)
        if FRESH:
            square = variance(read_var, n2, n, N, periphery * r, READS, BM, BN)
            z = fresh(seed_low, seed_high, p, row, column, BM, BN)
            slope = tl.where(square > 0, grad * z * scale / tl.sqrt(tl.where(square > 0, square, 1.0)), 0.0)
            by_range += tl.sum(slope, 1) * periphery * periphery * r
            if READS == 1:
                by_norm += tl.sum(slope, 1) * tl.load(read_var).to(tl.float32) * 0.5
            if READS == 2:
                factor = tl.load(read_var + n, mask=n < N, other=0.0).to(tl.float32)
                by_norm += tl.sum(slope * factor[None, :], 1) * 0.5
        if SIGNS:
            whole = let_through(g, masks, p, at, m[:, None], n[None, :], M, N, False).to(tl.float32)
            up = get_bits(signs, p, m[:, None], n[None, :], M, N)
            by_range += tl.sum(tl.where(up, whole - grad, grad - whole), 1)
    tl.store(of_norm + tl.cast(p, tl.int64) * M + m, by_norm, mask=m < M)
    tl.store(of_range + tl.cast(p, tl.int64) * M + m, by_range, mask=m < M)


@triton.jit
def pull(
    g, w, masks, out, M, N, parts, items, g_row, g_column, w_column, w_item, out_row,
    MASKS: tl.constexpr, ALIGN: tl.constexpr, PRECISION: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    """Gradient of the driven input of a linear layer, out [M, items]: the part's gradient times its weights."""
    p = tl.program_id(2)
    first = edge(p, items, parts, ALIGN)
    last = edge(p + 1, items, parts, ALIGN)
    start = first + tl.program_id(1) * BN
    if start >= last:
        return
    m, k = tl.program_id(0) * BM + tl.arange(0, BM), start + tl.arange(0, BN)
    acc = tl.zeros((BM, BN), tl.float32)
    for column in range(0, N, BK):
        n = column + tl.arange(0, BK)
        at = m.to(tl.int64)[:, None] * g_row + n[None, :] * g_column
        grad = let_through(g, masks, p, at, m[:, None], n[None, :], M, N, MASKS)
        w_on = (n < N)[:, None] & (k < last)[None, :]
        w_tile = tl.load(w + n.to(tl.int64)[:, None] * w_column + k[None, :] * w_item, mask=w_on, other=0.0)
        acc = contract(grad, w_tile, acc, PRECISION)
    tl.store(out + m.to(tl.int64)[:, None] * out_row + k[None, :], acc, mask=(m < M)[:, None] & (k < last)[None, :])


@triton.jit
def outer(
    g, x, masks, out, M, N, parts, items, g_row, g_column, x_row, out_row,
    MASKS: tl.constexpr, ALIGN: tl.constexpr, PRECISION: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    """Gradient of the weight of a linear layer, out [N, items]: the part's gradient times its driven input."""
    p = tl.program_id(2)
    first = edge(p, items, parts, ALIGN)
    last = edge(p + 1, items, parts, ALIGN)
    start = first + tl.program_id(1) * BN
    if start >= last:
        return
    n, k = tl.program_id(0) * BM + tl.arange(0, BM), start + tl.arange(0, BN)
    acc = tl.zeros((BM, BN), tl.float32)
    for row in range(0, M, BK):
        m = row + tl.arange(0, BK)
        at = m.to(tl.int64)[None, :] * g_row + n[:, None] * g_column
        grad = let_through(g, masks, p, at, m[None, :], n[:, None], M, N, MASKS)
        x_on = (m < M)[:, None] & (k < last)[None, :]
        x_tile = tl.load(x + m.to(tl.int64)[:, None] * x_row + k[None, :], mask=x_on, other=0.0)
        acc = contract(grad, x_tile, acc, PRECISION)
    tl.store(out + n.to(tl.int64)[:, None] * out_row + k[None, :], acc, mask=(n < N)[:, None] & (k < last)[None, :])
