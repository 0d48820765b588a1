"""How often each part of a chip works for one product, exactly, from the mapping that also sets the noise.

A weight matrix [out, R] of one group is cut into row blocks (``op.blocks``) and, side by side, into tiles of at most
``tile.cols`` columns. A bit slice of a weight is a column; the two cells of a differential weight share one, their
currents are subtracted before the converter; an offset mapping has one reference column a tile. Groups of a convolution
have tiles of their own. A repeated read drives and converts again; a column that is left out of a repeat is neither
charged nor converted. Its input is fetched once.
"""

from dataclasses import dataclass, fields
from typing import final

from mho.costs.phases import driven, groups_of_planes, input_bits, planes
from mho.crossbar.noise import cells_per_weight
from mho.crossbar.ops import ConvOp, Op
from mho.hardware.spec import Hardware
from mho.physics.averaging import column_repeats

FLOAT_BITS = 32
"""Width of data where no converter says one."""


@final
@dataclass(frozen=True)
class Layout:
    """Where one weight lies: what is there once, whatever is computed.

    ``rows``: of all groups; ``columns``: physical ones of one row block and group; ``blocks``: row tiles of one group;
    ``tiles``: physical tiles; ``cells``: of weights and references; ``utilisation``: share of the tiles' cells that
    weights use.
    """

    rows: int
    outputs: int
    groups: int
    blocks: int
    column_tiles: int
    columns: int
    references: int
    tiles: int
    cells: int
    utilisation: float


@final
@dataclass(frozen=True)
class Counts:
    """What was done for one example input (of ``calls`` products).

    ``vectors``: input vectors driven; ``macs``; ``drives``: rows driven, a phase each; ``line_charges``, ``samples``:
    columns, a phase each; ``integrations``: additions of charge; ``conversions``; ``additions``: of partial sums,
    biases and references; ``outputs``: results that are scaled, activated and written; ``bits_in``, ``bits_out``: read
    from and written to buffers, each number once (a convolution's patches are made on the way); ``bits_link``: patches
    to every tile that needs them, and one word of the input's width back from each for each output; ``tile_reads``;
    ``numbers_in``: those of ``bits_in``.
    """

    calls: int = 0
    vectors: int = 0
    macs: int = 0
    drives: int = 0
    line_charges: int = 0
    samples: int = 0
    integrations: int = 0
    conversions: int = 0
    additions: int = 0
    outputs: int = 0
    bits_in: int = 0
    bits_out: int = 0
    bits_link: int = 0
    tile_reads: int = 0
    numbers_in: int = 0

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))


def layout(op: Op, hw: Hardware) -> Layout:
    """The tiles of one weight on ``hw``."""
    groups = op.groups if isinstance(op, ConvOp) else 1
    outputs = op.out_channels if isinstance(op, ConvOp) else op.out_features
    blocks = len(op.blocks(hw.tile.rows))
    columns = outputs // groups * hw.mapping.slices
    column_tiles = 1 if hw.tile.cols is None else -(-columns // hw.tile.cols)
    references = column_tiles if hw.mapping.scheme == "offset" else 0
    tiles = groups * blocks * column_tiles
    used = groups * op.rows * columns
    capacity = tiles * (hw.tile.rows or -(-op.rows // blocks)) * (hw.tile.cols or columns)
    per_column = cells_per_weight(hw) // hw.mapping.slices
    return Layout(
        rows=groups * op.rows,
        outputs=outputs,
        groups=groups,
        blocks=blocks,
        column_tiles=column_tiles,
        columns=columns,
        references=references,
        tiles=tiles,
        cells=used * per_column + groups * op.rows * references,
        utilisation=used / capacity if capacity else 0.0,
    )


def count(op: Op, hw: Hardware, vectors: int, *, numbers_in: int, bias: bool) -> Counts:
    """One product of ``vectors`` input vectors (output positions of a convolution) made of ``numbers_in`` numbers."""
    place = layout(op, hw)
    phases, groups_of = planes(hw), groups_of_planes(hw)
    sign_reads, repeats = driven(hw).sign_reads, hw.readout.repeats
    bits = input_bits(hw) or FLOAT_BITS
    # Reads of all output channels together: a column that is left out of a repeat is not converted.
    reads = sum(column_repeats(hw.readout, place.outputs)) or place.outputs * repeats
    converted = place.blocks * (hw.mapping.slices * reads + place.groups * place.references * repeats)
    conversions = vectors * converted * len(groups_of) * sign_reads
    # One sum for each output out of all its conversions (the mean of repeats is in its scale); references are added up
    # once and subtracted from each output.
    partial = place.blocks * hw.mapping.slices * len(groups_of) * sign_reads * reads - place.outputs
    reference_sums = place.groups * place.references * (place.blocks * len(groups_of) * sign_reads * repeats - 1)
    per_vector = partial + place.outputs * (bias + (place.references > 0)) + reference_sums
    copied = place.rows * place.column_tiles
    return Counts(
        calls=1,
        vectors=vectors,
        macs=vectors * op.rows * place.outputs,
        drives=vectors * copied * phases * repeats * max(1, sign_reads // 2),
        line_charges=vectors * converted * phases * sign_reads,
        samples=vectors * converted * phases * sign_reads,
        integrations=vectors * converted * sign_reads * sum(2**k - 1 for k in groups_of),
        conversions=conversions,
        additions=vectors * per_vector,
        outputs=vectors * place.outputs,
        bits_in=numbers_in * bits,
        bits_out=vectors * place.outputs * bits,
        bits_link=vectors * (copied + place.outputs * place.blocks) * bits,
        tile_reads=vectors * place.tiles * phases * sign_reads * repeats,
        numbers_in=numbers_in,
    )
