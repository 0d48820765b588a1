"""Where each weight matrix of a network lies on a device: blocks of rows and columns, one tile each.

A matrix [inputs, outputs] larger than a tile is cut into blocks of rows (their partial sums are added digitally) and of
columns. Where cells hold one sign only, an output takes two columns and their difference is digital. Dead lines are
left out: what lies on a tile uses its good lines, so that spares need no place of their own.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor, nn

from mho.crossbar.ops import LinearOp, balanced_blocks
from mho.errors import ConversionError, RangeError
from mho.lab.protocol import Capabilities
from mho.nn.site import Site, analog_layers

Lines = frozenset[int]
NO_LINES: tuple[Lines, Lines] = (frozenset(), frozenset())


@final
@dataclass(frozen=True, eq=False)
class Patch:
    """One block of one matrix on one tile.

    ``inputs`` and ``outputs``: (start, stop) in the matrix; ``rows`` [inputs], ``plus`` [outputs] and, for cells of one
    sign, ``minus`` [outputs]: the lines of the tile that hold it.
    """

    site: str
    tile: int
    inputs: tuple[int, int]
    outputs: tuple[int, int]
    rows: Tensor
    plus: Tensor
    minus: Tensor | None

    @property
    def used_rows(self) -> int:
        return self.inputs[1] - self.inputs[0]

    @property
    def used_cols(self) -> int:
        return (self.outputs[1] - self.outputs[0]) * (1 if self.minus is None else 2)


@final
@dataclass(frozen=True, eq=False)
class Placement:
    """All patches of a network by site, in the order of inputs, then outputs."""

    patches: Mapping[str, tuple[Patch, ...]]
    can: Capabilities
    block_rows: int
    """The most rows that a block may have: those of the worst tile."""

    @property
    def tiles(self) -> tuple[int, ...]:
        """The tiles in use."""
        return tuple(p.tile for patches in self.patches.values() for p in patches)

    def table(self) -> list[dict[str, object]]:
        """One line a patch: site, tile, block, utilisation of the tile."""
        area = self.can.rows * self.can.cols
        return [
            {
                "site": p.site,
                "tile": p.tile,
                "inputs": p.inputs,
                "outputs": p.outputs,
                "utilisation": p.used_rows * p.used_cols / area,
            }
            for patches in self.patches.values()
            for p in patches
        ]


def row_blocks(site: Site, rows: int) -> tuple[list[tuple[int, int]], int]:
    """(start, stop) of the rows of each block, as the operation is cut into tiles of ``rows``, and the outputs.

    Raises :class:`ConversionError` for what cannot be placed.
    """
    op = site.op
    if isinstance(op, LinearOp):
        outputs, per_unit = op.out_features, 1
    elif op.ndim == 2 and op.groups == 1:
        outputs, per_unit = op.out_channels, math.prod(op.kernel)
    else:
        raise ConversionError(
            f"{site.name}: a {op.ndim}-d convolution with {op.groups} groups cannot be driven on a device. Way out: "
            "keep the layer digital (convert(digital=[...])); linear layers and 2-d convolutions of one group can."
        )
    return [(b.start * per_unit, b.stop * per_unit) for b in op.blocks(rows)], outputs


def place(
    network: nn.Module,
    can: Capabilities,
    *,
    dead: Mapping[int, tuple[Lines, Lines]] | None = None,
    only: frozenset[str] | None = None,
) -> Placement:
    """Put every analog weight of ``network`` (or ``only`` those sites) on the tiles of a device.

    ``dead``: dead (rows, columns) by tile; a patch goes to the first free tile with enough good lines. Raises
    :class:`RangeError` where the tiles do not suffice, with the number that is needed.
    """
    broken = dead or {}
    free = list(range(can.tiles))
    per_output = 1 if can.signed else 2
    # Blocks are as large as the worst tile allows, so that any block fits any tile.
    rows = can.rows - max((len(r) for r, _ in broken.values()), default=0)
    cols = (can.cols - max((len(c) for _, c in broken.values()), default=0)) // per_output
    if rows < 1 or cols < 1:
        raise RangeError("placement: no good lines are left on a tile. Way out: repair the device, or use other tiles.")
    patches: dict[str, tuple[Patch, ...]] = {}
    needed = 0
    for site in sites_of(network, only):
        inputs, outputs = row_blocks(site, rows)
        found = []
        for block in inputs:
            for columns in balanced_blocks(outputs, cols):
                needed += 1
                if free:
                    tile, span = free.pop(0), (columns.start, columns.stop)
                    found.append(_patch(site.name, tile, block, span, can, broken.get(tile, NO_LINES)))
        patches[site.name] = tuple(found)
    if needed > can.tiles:
        raise RangeError(
            f"placement: the network needs {needed} tiles of {can.rows} x {can.cols}, the device has {can.tiles}. Way "
            "out: a device with more tiles, or keep layers digital (convert(digital=[...]))."
        )
    return Placement(patches, can, rows)


def sites_of(network: nn.Module, only: frozenset[str] | None = None) -> list[Site]:
    """The sites of a network, each tied weight once. Raises :class:`ConversionError` where there is none."""
    found = {site.name: site for _, layer in analog_layers(network) for site in layer.sites.values()}
    if not found:
        raise ConversionError(
            "placement: the network has no analog layer. Way out: mho.convert(model, hardware) first."
        )
    return [site for name, site in found.items() if only is None or name in only]


def _patch(
    site: str,
    tile: int,
    inputs: tuple[int, int],
    outputs: tuple[int, int],
    can: Capabilities,
    dead: tuple[Lines, Lines],
) -> Patch:
    good_rows = torch.tensor([r for r in range(can.rows) if r not in dead[0]])
    good_cols = torch.tensor([c for c in range(can.cols) if c not in dead[1]])
    count = outputs[1] - outputs[0]
    if can.signed:
        return Patch(site, tile, inputs, outputs, good_rows[: inputs[1] - inputs[0]], good_cols[:count], None)
    plus, minus = good_cols[0 : 2 * count : 2], good_cols[1 : 2 * count : 2]
    return Patch(site, tile, inputs, outputs, good_rows[: inputs[1] - inputs[0]], plus, minus)


def targets(patch: Patch, w_hat: Tensor, can: Capabilities) -> Tensor:
    """Conductances [rows, cols] in uS of the block ``w_hat`` [inputs, outputs] in [-1, 1]; unused cells at the lowest.

    Signed cells: g = w_hat g_max. Others: g+- = g_min + max(+-w_hat, 0) (g_max - g_min).
    """
    block = w_hat[patch.inputs[0] : patch.inputs[1], patch.outputs[0] : patch.outputs[1]].float()
    g = torch.full((can.rows, can.cols), 0.0 if can.signed else can.g_min_uS)
    if patch.minus is None:
        g[patch.rows.unsqueeze(1), patch.plus] = block * can.g_max_uS
        return g
    span = can.g_max_uS - can.g_min_uS
    g[patch.rows.unsqueeze(1), patch.plus] = can.g_min_uS + span * block.clamp_min(0)
    g[patch.rows.unsqueeze(1), patch.minus] = can.g_min_uS + span * (-block).clamp_min(0)
    return g


def unit_uA(can: Capabilities) -> float:
    """Current of one row at v_max through a weight of full scale: v_max times the span of conductances."""
    return can.v_max_V * (can.g_max_uS - can.g_min_uS)
