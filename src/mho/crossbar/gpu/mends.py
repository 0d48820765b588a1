# mypy: ignore-errors
# Device code: Triton compiles it, and its types are not Python's.
"""Backward products of several tiles, mended: the library's products of the whole gradient, less what was clipped.

An ADC clips few outputs, so the library multiplies as if it had clipped none, and a program for each block of the
result looks through the bits of its tile. Nothing clipped: nothing to do. Few: the products of those gradients are
subtracted. Many (a share above ``limit``, where a difference would lose digits): the block is multiplied again from
what passed.
"""

import triton
import triton.language as tl

from mho.crossbar.gpu.tiles import contract, edge, get_octets


@triton.jit
def clipped_bytes(bits, p, m, column, M, N, COLUMNS: tl.constexpr):
    """The zeros of part p at rows m and COLUMNS columns, eight a byte, as ones; int32 [.., COLUMNS / 8]."""
    width = tl.cdiv(N, 8)
    n = column // 8 + tl.arange(0, COLUMNS // 8)
    at = (tl.cast(p, tl.int64) * M + m)[:, None] * width + n[None, :]
    return 255 - tl.load(bits + at, mask=(m < M)[:, None] & (n < width)[None, :], other=255).to(tl.int32)


@triton.jit
def count_bits(v):
    """Ones in each of the bytes v."""
    v = v - ((v >> 1) & 0x55)
    v = (v & 0x33) + ((v >> 2) & 0x33)
    return (v + (v >> 4)) & 0x0F


@triton.jit
def settle_block(out, acc, many, on):
    """Store a block: what was multiplied again, or the library's less ``acc``."""
    before = tl.load(out, mask=on & (many == 0), other=0.0).to(tl.float32)
    tl.store(out, tl.where(many != 0, acc, before - acc), mask=on)


@triton.jit
def mend_inputs(
    g, w, masks, out, M, N, parts, items, limit, w_column, w_item,
    ALIGN: tl.constexpr, PRECISION: tl.constexpr, WIDE: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr,
    BK: tl.constexpr,
):  # fmt: skip
    """Gradient of the driven input, out [M, items], of which the library's g w is there already; g [M, N]."""
    p = tl.program_id(1)
    m = tl.program_id(0) * BM + tl.arange(0, BM)
    ones = tl.zeros((BM, WIDE // 8), tl.int32)
    for wide in range(0, N, WIDE):
        ones += count_bits(clipped_bytes(masks, p, m, wide, M, N, WIDE))
    count = tl.sum(tl.sum(ones, 1), 0)
    if count == 0:
        return
    many = (count > limit * BM * N).to(tl.int32)
    first, last = edge(p, items, parts, ALIGN), edge(p + 1, items, parts, ALIGN)
    for start in range(first, last, BN):
        k = start + tl.arange(0, BN)
        acc = tl.zeros((BM, BN), tl.float32)
        for wide in range(0, N, WIDE):
            some = tl.max(tl.max(clipped_bytes(masks, p, m, wide, M, N, WIDE), 1), 0)
            if some + many > 0:
                for column in range(wide, tl.minimum(wide + WIDE, N), BK):
                    n = column + tl.arange(0, BK)
                    at = m.to(tl.int64)[:, None] * N + n[None, :]
                    grad = tl.load(g + at, mask=(m < M)[:, None] & (n < N)[None, :], other=0.0)
                    chosen = get_octets(masks, p, m, column, M, N, BM, BK).to(tl.int32) == many
                    w_on = (n < N)[:, None] & (k < last)[None, :]
                    w_at = n.to(tl.int64)[:, None] * w_column + k[None, :] * w_item
                    w_tile = tl.load(w + w_at, mask=w_on, other=0.0)
                    acc = contract(tl.where(chosen, grad, 0.0), w_tile, acc, PRECISION)
        place = m.to(tl.int64)[:, None] * items + k[None, :]
        settle_block(out + place, acc, many, (m < M)[:, None] & (k < last)[None, :])


@triton.jit
def mend_weights(
    g, x, masks, out, M, N, parts, items, limit,
    ALIGN: tl.constexpr, PRECISION: tl.constexpr, WIDE: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr,
    BK: tl.constexpr,
):  # fmt: skip
    """Gradient of the weight, out [N, items], of which the library's g^T x is there already; g [M, N], x [M, items]."""
    p, column = tl.program_id(1), tl.program_id(0) * BM
    n = column + tl.arange(0, BM)
    ones = tl.zeros((WIDE, BM // 8), tl.int32)
    for wide in range(0, M, WIDE):
        ones += count_bits(clipped_bytes(masks, p, wide + tl.arange(0, WIDE), column, M, N, BM))
    count = tl.sum(tl.sum(ones, 1), 0)
    if count == 0:
        return
    many = (count > limit * BM * M).to(tl.int32)
    first, last = edge(p, items, parts, ALIGN), edge(p + 1, items, parts, ALIGN)
    for start in range(first, last, BN):
        k = start + tl.arange(0, BN)
        acc = tl.zeros((BM, BN), tl.float32)
        for wide in range(0, M, WIDE):
            clipped = clipped_bytes(masks, p, wide + tl.arange(0, WIDE), column, M, N, BM)
            if tl.max(tl.max(clipped, 1), 0) + many > 0:
                for row in range(wide, tl.minimum(wide + WIDE, M), BK):
                    m = row + tl.arange(0, BK)
                    at = m.to(tl.int64)[:, None] * N + n[None, :]
                    grad = tl.load(g + at, mask=(m < M)[:, None] & (n < N)[None, :], other=0.0)
                    chosen = get_octets(masks, p, m, column, M, N, BK, BM).to(tl.int32) == many
                    x_on = (m < M)[:, None] & (k < last)[None, :]
                    x_tile = tl.load(x + m.to(tl.int64)[:, None] * items + k[None, :], mask=x_on, other=0.0)
                    acc = contract(tl.trans(tl.where(chosen, grad, 0.0)), x_tile, acc, PRECISION)
        place = n.to(tl.int64)[:, None] * items + k[None, :]
        settle_block(out + place, acc, many, (n < N)[:, None] & (k < last)[None, :])
