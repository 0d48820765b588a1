"""The kernels as functions of tensors: grids, block sizes, buffers. Nothing here waits for the device.

Block sizes are a rule, not a search: the order of a sum depends on them, and a search by the clock would make results
depend on what else the machine did. No random number depends on them.
"""

import contextlib
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from mho.crossbar.gpu import elementwise, mends, tiles
from mho.crossbar.gpu.shapes import Kept, Noisy, Seen, Site, alignment, as_sigmas, cut, halves
from mho.crossbar.noise import Counter
from mho.crossbar.ops import ConvOp, LinearOp, Op

FLAT = 4096
WEIGHT_BLOCKS = 8
KEEP_ROWS, KEEP_STEPS = 16, 8
LIBRARY_DEPTH = 512
"""Rows of an array from which on the library's product gains more than another trip of its sums to memory costs (an
estimate from bytes and operations; ``benchmarks/gpu_operator.py`` measures every route)."""

MANY = 0.02
"""Share of clipped outputs from which on a block of a gradient is multiplied again, see ``mends``."""

Backward = Literal["mended", "masked"]
"""Gradients of several tiles of a linear layer. mended: the library's products, less what was clipped. masked: our
kernels, which mask the gradient as they load it."""
Route = Literal["fused", "library", "library-narrow"]
"""Who multiplies. fused: our kernel, noise and ADC while the sums are in registers. library: torch's product in
float32, then one pass over its sums. library-narrow: the same, sums rounded to the dtype of x in front of the ADC."""


class Blocks(NamedTuple):
    """Rows, columns and depth of a program's tile of a product; warps that compute it; loads in flight."""

    rows: int
    columns: int
    depth: int
    warps: int = 8
    stages: int = 3


def blocks_for(dtype: torch.dtype, parts: int) -> Blocks:
    """Block sizes of a product: large for one tile; smaller for several, where two accumulators live at once."""
    if dtype == torch.float32:
        return Blocks(64, 64, 32, warps=4)
    return Blocks(128, 256, 64) if parts == 1 else Blocks(128, 128, 64)


def route_for(op: Op, dtype: torch.dtype, parts: int) -> Route:
    """Who multiplies: the library where there is one tile and its sums can stay float32."""
    if parts > 1:
        return "fused"
    # A library's convolution in bfloat16 has no float32 output; in float32 it beats a gather of single elements.
    deep = op.rows >= LIBRARY_DEPTH if isinstance(op, LinearOp) else dtype == torch.float32
    return "library" if deep else "fused"


def precision(x: Tensor) -> str:
    """How a product of tensors like ``x`` rounds: float32 as torch.set_float32_matmul_precision says.

    A tensor on the CPU means Triton's interpreter, which cannot multiply bfloat16.
    """
    if not x.is_cuda:
        return "wide"
    return "ieee" if torch.get_float32_matmul_precision() == "highest" else "tf32"


def compiled(x: Tensor) -> bool:
    """Whether kernels run on ``x`` as compiled, and not in Triton's interpreter, which wants small blocks."""
    return x.is_cuda


def on(x: Tensor) -> contextlib.AbstractContextManager[object]:
    """Launch on the device of ``x``."""
    return torch.cuda.device(x.device) if x.is_cuda else contextlib.nullcontext()


def seek(v: Tensor, ranges: Tensor, which: int, sigmas: float | None) -> Tensor:
    """The ranges [input, ADC] in float32, of which number ``which`` is taken from ``v`` where it is 0."""
    used = torch.empty(2, device=v.device)
    with on(v):
        elementwise.seek[(1,)](
            v, ranges, used, v.numel(), float(v.numel()), as_sigmas(sigmas), WHICH=which,
            BLOCK=16384 if compiled(v) else 1024, num_warps=32 if compiled(v) else 4,
        )  # fmt: skip
    return used


def settle(seen: Seen, used: Tensor, *, probed: bool = False) -> Tensor:
    """The ranges that ``seen`` asks for, [2]; ``used`` where nobody looked.

    ``probed``: the ranges to use instead, after a probe of the output: ``used`` where it is known.
    """
    out = torch.empty_like(used)
    with on(used):
        elementwise.settle[(2,)](
            seen.buffer, used, out, 0 if probed else seen.programs[0], seen.start, seen.programs[1],
            float(seen.counts[0]), float(seen.counts[1]), as_sigmas(seen.sigmas[0]), as_sigmas(seen.sigmas[1]),
            KEEP=probed, BLOCK=2048, num_warps=8,
        )  # fmt: skip
    return out


def drive(x: Tensor, ranges: Tensor, levels: int, stats: Tensor, *, bits: bool) -> tuple[Tensor, Tensor | None]:
    """(input as the rows are driven, bits of what lay within the range); ``levels = 0``: input as it is."""
    n = x.numel()
    out = torch.empty_like(x) if levels else x
    inside = torch.empty(cut(n, 8), dtype=torch.uint8, device=x.device) if levels and bits else None
    with on(x):
        elementwise.drive[(cut(n, FLAT),)](
            x, out, inside, ranges, stats, n, LEVELS=levels, BITS=inside is not None, BLOCK=FLAT, num_warps=8
        )
    return out, inside


def pass_inside(g: Tensor, x_q: Tensor, inside: Tensor, *, of_range: bool) -> Tensor | None:
    """Make ``g``, in memory as ``x_q``, the gradient behind the DAC, in place; returns that of its range if wanted."""
    programs = cut(g.numel(), FLAT)
    partial = torch.empty(programs, device=g.device) if of_range else None
    with on(g):
        elementwise.pass_inside[(programs,)](g, x_q, inside, partial, g.numel(), SUMS=of_range, BLOCK=FLAT, num_warps=4)
    return None if partial is None else partial.sum()


def keep(g: Tensor, masks: Tensor, part: int, site: Site, *, sums: bool = False) -> tuple[Tensor, Tensor | None]:
    """(``g``, which lies in memory as y does, where the outputs of ``part`` were not clipped, else 0; and with ``sums``
    all of ``g`` summed over its rows, [columns])."""
    out = torch.empty_like(g)
    programs = cut(site.rows, KEEP_ROWS * KEEP_STEPS)
    partial = torch.empty(programs, site.columns, device=g.device) if sums else None
    with on(g):
        tiles.keep[(programs, cut(site.columns, 256))](
            g, masks, out, partial, site.rows, site.columns, part, *site.y,
            PLACES=site.places, SUMS=sums, STEPS=KEEP_STEPS, BM=KEEP_ROWS, BN=256, num_warps=4,
        )  # fmt: skip
    return out, None if partial is None else partial.sum(0)


def add_normal(x: Tensor, limit: Tensor | None, sigma: Tensor, draw: Counter) -> Tensor:
    """clamp(x, -limit, limit) + sigma scale z for a dense x; z: the numbers of ``crossbar.kernels.normal_``.

    ``limit``, ``sigma``: one number, or one for each index of the first dimension of ``x``, the outermost in memory.
    """
    out = torch.empty_like(x)
    columns = sigma.numel()
    low, high = halves(draw.seed)
    with on(x):
        elementwise.add_normal[(cut(x.numel(), 1024 * WEIGHT_BLOCKS),)](
            x, out, sigma if limit is None else limit, sigma, x.numel(), x.numel() // columns, draw.scale, low, high,
            CLIPS=limit is not None, COLUMNS=columns > 1, BLOCKS=WEIGHT_BLOCKS, num_warps=4,
        )  # fmt: skip
    return out


def fresh_normals(draw: Counter, parts: int, op: Op, y: Tensor) -> Tensor:
    """The normals that :func:`read` adds, as a tensor [parts, *y.shape]."""
    columns = op.out_features if isinstance(op, LinearOp) else op.out_channels
    rows = y.numel() // columns
    out = torch.empty(parts, rows, columns, device=y.device)
    low, high = halves(draw.seed)
    with on(y):
        elementwise.fill_fresh[(cut(rows, 32), cut(columns, 32), parts)](
            out, rows, columns, draw.scale, low, high, ROWS=32, COLUMNS=32
        )
    if isinstance(op, LinearOp):
        return out.view(parts, *y.shape)
    axis = y.dim() - op.ndim - 1
    return out.view(parts, *y.shape[:axis], *y.shape[axis + 1 :], columns).movedim(-1, axis + 1)


def library(x: Tensor, w: Tensor, op: Op, y: Tensor, *, wide: bool) -> Tensor:
    """Sums of a tile by torch's own product, in memory as ``y``; ``wide``: in float32 whatever the inputs are."""
    if isinstance(op, ConvOp):
        a: Tensor = op.apply(x, w, None)
        return a if a.stride() == y.stride() else torch.empty_like(y).copy_(a)
    if not wide or x.dtype == torch.float32:
        return op.apply(x, w, None)
    if not x.is_cuda:
        return op.apply(x.float(), w.float(), None)
    sums: Tensor = torch.mm(x.view(-1, op.in_features), w.t(), out_dtype=torch.float32).view(y.shape)
    return sums


def row_norms(x: Tensor, op: Op, rows: int) -> Tensor:
    """|x|^2 of each row, [1, rows], in float32."""
    if isinstance(op, LinearOp):
        norms: Tensor = torch.linalg.vector_norm(x, dim=-1, dtype=torch.float32)
        return norms.square_().view(1, rows)
    return op.row_norm2(x.float()).reshape(1, rows)


def converts(site: Site, shape: tuple[int, int, int] | None = None) -> tuple[int, int, int, int]:
    """Rows, columns and warps of a program of :func:`convert` (``shape``, or the rule's), and how many there are."""
    rows, columns, warps = shape or ((32, 256, 8) if site.columns > 128 else (64, 64, 8))
    return rows, columns, warps, cut(site.rows, rows) * cut(site.columns, columns)


def convert(
    a: Tensor, y: Tensor, bias: Tensor | None, ranges: Tensor, site: Site, noise: Noisy, levels: int, kept: Kept,
    stats: Tensor, *, watch: bool, shape: tuple[int, int, int] | None = None,
) -> None:  # fmt: skip
    """Write what noise, ADC and bias make of the sums ``a`` of one tile into ``y``, and what is kept into ``kept``."""
    rows, columns, warps, programs = converts(site, shape)
    with on(a):
        tiles.convert[(programs,)](
            a, y, bias, ranges, noise.read_var, kept.norms, kept.masks, kept.signs, stats,
            site.rows, site.columns, noise.scale, noise.periphery, *noise.halves, *site.y,
            LEVELS=levels, FRESH=noise.draw is not None, READS=noise.reads, BIAS=bias is not None,
            MASKS=kept.masks is not None, SIGNS=kept.signs is not None, STATS=watch, PLACES=site.places,
            BM=rows, BN=columns, num_warps=warps,
        )  # fmt: skip


def reads(site: Site, blocks: Blocks) -> int:
    """Programs of :func:`read`."""
    return cut(site.rows, blocks.rows) * cut(site.columns, blocks.columns)


def read(
    x: Tensor, w: Tensor, y: Tensor, bias: Tensor | None, ranges: Tensor, site: Site, parts: int, noise: Noisy,
    levels: int, kept: Kept, blocks: Blocks, stats: Tensor, *, watch: bool, probe: bool = False,
) -> None:  # fmt: skip
    """Write the product into ``y``, what is kept into ``kept``, and with ``watch`` statistics [programs, 2]."""
    column, item = (w.stride(0), w.stride(1)) if not site.shape else (site.items * site.taps, 1)
    with on(x):
        tiles.read[(reads(site, blocks),)](
            x, w, y, bias, ranges, noise.read_var, kept.norms, kept.masks, kept.signs, stats,
            site.rows, site.columns, parts, site.items, noise.scale, noise.periphery, *noise.halves,
            *site.x, column, item, *site.y,
            CONV=bool(site.shape), SHAPE=site.shape, LEVELS=levels, FRESH=noise.draw is not None and not probe,
            READS=0 if probe else noise.reads, BIAS=bias is not None, MASKS=kept.masks is not None,
            SIGNS=kept.signs is not None, STATS=watch or probe, PROBE=probe, TAPS=site.taps,
            PLACES=site.places, ALIGN=alignment(site.items, parts), PRECISION=precision(x),
            BM=blocks.rows, BN=blocks.columns, BK=blocks.depth,
            num_warps=blocks.warps, num_stages=blocks.stages,
        )  # fmt: skip


def slopes(g: Tensor, ranges: Tensor, site: Site, parts: int, noise: Noisy, kept: Kept) -> tuple[Tensor, Tensor]:
    """(gradient of |x_p|^2 [parts, rows], gradient of the ADC's range, 0-d); ``g`` lies in memory as y does."""
    of_norm, of_range = torch.empty(2, parts, site.rows, device=g.device)
    with on(g):
        tiles.slopes[(cut(site.rows, 32), parts)](
            g, kept.masks, kept.signs, ranges, noise.read_var, kept.norms, of_norm, of_range,
            site.rows, site.columns, noise.scale, noise.periphery, *noise.halves, *site.y,
            FRESH=noise.draw is not None, READS=noise.reads, MASKS=kept.masks is not None,
            SIGNS=kept.signs is not None, PLACES=site.places, BM=32, BN=64, num_warps=4,
        )  # fmt: skip
    return of_norm, of_range.sum()


def pull(g: Tensor, w: Tensor, masks: Tensor | None, site: Site, parts: int, blocks: Blocks) -> Tensor:
    """Gradient of the driven input of a linear layer, [rows, items]; ``g`` contiguous [rows, columns]."""
    out = torch.empty(site.rows, site.items, dtype=g.dtype, device=g.device)
    grid = (cut(site.rows, blocks.rows), cut(cut(site.items, parts), blocks.columns), parts)
    with on(g):
        tiles.pull[grid](
            g, w, masks, out, site.rows, site.columns, parts, site.items, site.columns, 1,
            w.stride(0), w.stride(1), site.items, MASKS=masks is not None,
            ALIGN=alignment(site.items, parts), PRECISION=precision(g),
            BM=blocks.rows, BN=blocks.columns, BK=blocks.depth, num_warps=blocks.warps, num_stages=blocks.stages,
        )  # fmt: skip
    return out


def outer(g: Tensor, x: Tensor, masks: Tensor | None, site: Site, parts: int, blocks: Blocks) -> Tensor:
    """Gradient of the weight of a linear layer, [columns, items]; ``g``, ``x`` contiguous, a row each."""
    out = torch.empty(site.columns, site.items, dtype=g.dtype, device=g.device)
    grid = (cut(site.columns, blocks.rows), cut(cut(site.items, parts), blocks.columns), parts)
    with on(g):
        tiles.outer[grid](
            g, x, masks, out, site.rows, site.columns, parts, site.items, site.columns, 1,
            site.items, site.items, MASKS=masks is not None,
            ALIGN=alignment(site.items, parts), PRECISION=precision(g),
            BM=blocks.rows, BN=blocks.columns, BK=blocks.depth, num_warps=blocks.warps, num_stages=blocks.stages,
        )  # fmt: skip
    return out


def mend_inputs(out: Tensor, g: Tensor, w: Tensor, masks: Tensor, site: Site, parts: int) -> None:
    """Make ``out``, the library's g w [rows, items], the gradient of the driven input, in place."""
    wide, rows, columns, depth = (512, 64, 128, 64) if compiled(out) else (64, 16, 16, 16)
    with on(g):
        mends.mend_inputs[(cut(site.rows, rows), parts)](
            g, w, masks, out, site.rows, site.columns, parts, site.items, MANY, w.stride(0), w.stride(1),
            ALIGN=alignment(site.items, parts), PRECISION=precision(g), WIDE=wide, BM=rows, BN=columns, BK=depth,
            num_warps=4, num_stages=2,
        )  # fmt: skip


def mend_weights(out: Tensor, g: Tensor, x: Tensor, masks: Tensor, site: Site, parts: int) -> None:
    """Make ``out``, the library's g^T x [columns, items], the gradient of the weight, in place."""
    wide, rows, columns, depth = (256, 128, 128, 64) if compiled(out) else (16, 16, 16, 16)
    with on(g):
        mends.mend_weights[(cut(site.columns, rows), parts)](
            g, x, masks, out, site.rows, site.columns, parts, site.items, MANY,
            ALIGN=alignment(site.items, parts), PRECISION=precision(g), WIDE=wide, BM=rows, BN=columns, BK=depth,
            num_warps=8, num_stages=2,
        )  # fmt: skip
