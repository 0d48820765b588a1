"""The kernels as functions of tensors: grids, block sizes, buffers. Nothing here waits for the device.

Block sizes are a rule, not a search: the order of a sum depends on them, and a search by the clock would make results
depend on what else the machine did. No random number depends on them.
"""

import contextlib
import math
from typing import NamedTuple

import torch
from torch import Tensor

from mho.crossbar.gpu import elementwise, tiles
from mho.crossbar.noise import Counter
from mho.crossbar.ops import ConvOp, LinearOp, Op, output_shape

FLAT = 1024
WEIGHT_BLOCKS = 8


class Blocks(NamedTuple):
    """Rows, columns and depth of a program's tile of a product; warps that compute it; loads in flight."""

    rows: int
    columns: int
    depth: int
    warps: int = 8
    stages: int = 3


class Halves(NamedTuple):
    """A seed as two signed numbers of 32 bits."""

    low: int
    high: int


def halves(seed: int) -> Halves:
    """The seed as Triton takes it: one type for every value."""
    low, high = seed & 0xFFFF_FFFF, seed >> 32 & 0xFFFF_FFFF
    return Halves(low - (low >> 31 << 32), high - (high >> 31 << 32))


def blocks_for(dtype: torch.dtype, parts: int) -> Blocks:
    """Block sizes of a product: large for one tile; smaller for several, where two accumulators live at once."""
    if dtype == torch.float32:
        return Blocks(64, 64, 32, warps=4)
    return Blocks(128, 256, 64) if parts == 1 else Blocks(128, 128, 64)


def precision(x: Tensor) -> str:
    """How a product of tensors like ``x`` rounds: float32 as torch.set_float32_matmul_precision says.

    A tensor on the CPU means Triton's interpreter, which cannot multiply bfloat16.
    """
    if not x.is_cuda:
        return "wide"
    return "ieee" if torch.get_float32_matmul_precision() == "highest" else "tf32"


def on(x: Tensor) -> contextlib.AbstractContextManager[object]:
    """Launch on the device of ``x``."""
    return torch.cuda.device(x.device) if x.is_cuda else contextlib.nullcontext()


class Site(NamedTuple):
    """A product as the kernels see it: ``rows`` x ``columns`` outputs, ``items`` of ``taps`` rows of the array.

    ``y``: strides of a batch item, of a position, of a column; ``x``: of the input, ``shape``: the twelve
    sizes of a convolution (input, output, kernel, stride, padding, dilation; two each) or ().
    """

    rows: int
    columns: int
    items: int
    taps: int
    places: int
    x: tuple[int, int, int, int]
    y: tuple[int, int, int]
    shape: tuple[int, ...]


def empty_output(op: Op, x: Tensor) -> Tensor:
    """The output, in channels_last where the input is."""
    shape = output_shape(op, x)
    last = isinstance(op, ConvOp) and x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
    return torch.empty(
        shape, dtype=x.dtype, device=x.device, memory_format=torch.channels_last if last else torch.contiguous_format
    )


def site_of(op: Op, x: Tensor, y: Tensor) -> Site:
    """``x``: contiguous [..., items] or dense [B, C, H, W]; ``y``: from :func:`empty_output`."""
    if isinstance(op, LinearOp):
        n, k = op.out_features, op.in_features
        return Site(y.numel() // n, n, k, 1, 1, (k, 1, 0, 0), (n, 0, 1), ())
    height, width = y.shape[-2:]
    last = y.stride(1) == 1 and not y.is_contiguous()
    sizes = (*x.shape[-2:], height, width, *op.kernel, *op.stride, *op.padding, *op.dilation)
    return Site(
        rows=y.shape[0] * height * width, columns=op.out_channels, items=op.in_channels, taps=math.prod(op.kernel),
        places=height * width, x=(x.stride(0), x.stride(1), x.stride(2), x.stride(3)),
        y=(y.stride(0), op.out_channels if last else 1, y.stride(1)), shape=tuple(int(s) for s in sizes),
    )  # fmt: skip


def cut(count: int, block: int) -> int:
    """How many blocks cover ``count``."""
    return -(-count // block)


def alignment(items: int, parts: int) -> int:
    """The largest power of two up to 16 that divides where every part begins: what a load may rely on."""
    return math.gcd(16, *(round(i * items / parts) for i in range(1, parts + 1)))


def drive(x: Tensor, ranges: Tensor, levels: int, *, probe: bool = False) -> tuple[Tensor, Tensor]:
    """(input as the rows are driven, statistics [programs, 2]); ``levels = 0`` or ``probe``: the input as it is."""
    n = x.numel()
    programs = cut(n, FLAT)
    stats = torch.empty(programs, 2, device=x.device)
    rounds = levels > 0 and not probe
    out = torch.empty_like(x) if rounds else x
    with on(x):
        elementwise.drive[(programs,)](x, out, ranges, stats, n, LEVELS=levels, BLOCK=FLAT, PROBE=probe)
    return out, stats


def pass_inside(g: Tensor, x: Tensor, ranges: Tensor) -> tuple[Tensor, Tensor]:
    """(gradient behind the DAC, gradient of its range); ``g``, ``x`` of one order in memory."""
    n = x.numel()
    programs = cut(n, FLAT)
    out, partial = torch.empty_like(g), torch.empty(programs, device=g.device)
    with on(x):
        elementwise.pass_inside[(programs,)](g, x, out, ranges, partial, n, BLOCK=FLAT)
    return out, partial.sum()


def keep(g: Tensor, masks: Tensor, part: int, site: Site) -> Tensor:
    """``g``, which lies in memory as y does, where the outputs of ``part`` were not clipped, else 0."""
    out = torch.empty_like(g)
    with on(g):
        tiles.keep[(cut(site.rows, 32), cut(site.columns, 64))](
            g, masks, out, site.rows, site.columns, part, *site.y, PLACES=site.places, BM=32, BN=64
        )
    return out


def add_normal(x: Tensor, limit: Tensor | None, sigma: Tensor, draw: Counter) -> Tensor:
    """clamp(x, -limit, limit) + sigma scale z for a dense x; z: the numbers of ``crossbar.kernels.normal_``."""
    out = torch.empty_like(x)
    low, high = halves(draw.seed)
    with on(x):
        elementwise.add_normal[(cut(x.numel(), 1024 * WEIGHT_BLOCKS),)](
            x, out, sigma if limit is None else limit, sigma, x.numel(), draw.scale, low, high,
            CLIPS=limit is not None, BLOCKS=WEIGHT_BLOCKS, num_warps=4,
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


class Noisy(NamedTuple):
    """The fresh noise of a product: sigma of the periphery in ranges, variance of a read (0-d, [columns], or none)."""

    periphery: float
    read_var: Tensor | None
    draw: Counter | None

    @property
    def reads(self) -> int:
        """0: no read noise; 1: one variance; 2: one a column."""
        return 0 if self.read_var is None or self.draw is None else 2 if self.read_var.dim() else 1

    @property
    def halves(self) -> Halves:
        return halves(0 if self.draw is None else self.draw.seed)

    @property
    def scale(self) -> float:
        return 1.0 if self.draw is None else self.draw.scale


class Kept(NamedTuple):
    """What a forward pass keeps: bits of what was not clipped, of signs
    [parts, rows, ceil(columns / 8)]; |x_p|^2 [parts, rows]."""

    masks: Tensor | None = None
    signs: Tensor | None = None
    norms: Tensor | None = None


def read(
    x: Tensor, w: Tensor, y: Tensor, bias: Tensor | None, ranges: Tensor, site: Site, parts: int, noise: Noisy,
    levels: int, kept: Kept, blocks: Blocks, *, stats: bool, probe: bool = False,
) -> Tensor:  # fmt: skip
    """Write the product into ``y`` and what is kept into ``kept``; returns statistics [programs, 2]."""
    programs = cut(site.rows, blocks.rows) * cut(site.columns, blocks.columns)
    seen = torch.empty(programs, 2, device=x.device)
    column, item = (w.stride(0), w.stride(1)) if not site.shape else (site.items * site.taps, 1)
    with on(x):
        tiles.read[(programs,)](
            x, w, y, bias, ranges, noise.read_var, kept.norms, kept.masks, kept.signs, seen,
            site.rows, site.columns, parts, site.items, noise.scale, noise.periphery, *noise.halves,
            *site.x, column, item, *site.y,
            CONV=bool(site.shape), SHAPE=site.shape, LEVELS=levels, FRESH=noise.draw is not None and not probe,
            READS=0 if probe else noise.reads, BIAS=bias is not None, MASKS=kept.masks is not None,
            SIGNS=kept.signs is not None, STATS=stats or probe, PROBE=probe, TAPS=site.taps,
            PLACES=site.places, ALIGN=alignment(site.items, parts), PRECISION=precision(x),
            BM=blocks.rows, BN=blocks.columns, BK=blocks.depth,
            num_warps=blocks.warps, num_stages=blocks.stages,
        )  # fmt: skip
    return seen


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
