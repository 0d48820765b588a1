"""What a few products tell of the lines of a tile: which are dead, and the gain and offset of each column."""

import torch

from mho.lab.columns import Columns, ColumnStream
from mho.lab.log import EventLog
from mho.lab.placement import Lines
from mho.lab.protocol import Device
from mho.rng import normals, uniforms


def find_dead_lines(
    device: Device, tiles: tuple[int, ...], *, threshold: float = 0.2, log: EventLog | None = None
) -> dict[int, tuple[Lines, Lines]]:
    """Rows and columns of ``tiles`` that do not answer: {tile: (rows, columns)}, for ``place(dead=...)``.

    Writes a pattern of large conductances of random sign and drives each row alone at v_max. A line is dead where its
    answers follow the pattern with a slope below ``threshold`` (1: as expected; a column that answers a constant has
    0). A column is judged over all rows first, then a row over the columns that live. The tile's content is lost; one
    writing and ``rows`` vectors a tile.
    """
    can = device.capabilities()
    found: dict[int, tuple[Lines, Lines]] = {}
    drive = torch.eye(can.rows) * can.v_max_V
    for tile in tiles:
        u = uniforms((can.rows, can.cols), "dead lines", tile)
        span = can.g_max_uS - can.lowest_uS
        pattern = can.lowest_uS + span * (u if not can.signed else (u > 0.5).float())
        device.program(tile, pattern, operation=f"dead lines/{tile}")
        full = min(max(1.5 * can.v_max_V * can.g_max_uS, can.i_min_uA), can.i_max_uA)
        chunks = [
            device.mvm(tile, part, operation=f"dead lines/{tile}/{k}", full_scale_uA=full).mean_uA()[0]
            for k, part in enumerate(drive.split(can.max_batch))
        ]
        measured = torch.nan_to_num(torch.cat(chunks), nan=0.0)  # a number that never came is no answer
        expected = drive @ pattern
        # A broken column may answer a constant: its mean is left out. A row is judged by few columns: it is kept.
        dead_cols = _slopes(measured - measured.mean(0), expected - expected.mean(0), 0) < threshold
        alive = ~dead_cols
        dead_rows = _slopes(measured[:, alive], expected[:, alive], 1) < threshold
        rows, cols = frozenset(_numbers(dead_rows)), frozenset(_numbers(dead_cols))
        if rows or cols:
            found[tile] = (rows, cols)
            if log is not None:
                log.write("dead line", f"tile {tile}", f"rows {sorted(rows)}, columns {sorted(cols)}")
    return found


def _slopes(measured: torch.Tensor, expected: torch.Tensor, dim: int) -> torch.Tensor:
    """Slope through the origin of measured on expected along ``dim``."""
    return (expected * measured).sum(dim) / expected.square().sum(dim).clamp_min(1e-30)


def _numbers(flags: torch.Tensor) -> list[int]:
    return [int(i) for i in flags.nonzero().flatten()]


def measure_columns(
    device: Device, tiles: tuple[int, ...], *, writings: int = 4, vectors: int = 64, repeats: int = 4, fill: float = 0.6
) -> dict[int, Columns]:
    """Gain and offset of every column of ``tiles``, by least squares on random patterns: {tile: Columns}.

    Each of ``writings`` patterns of its own is driven with ``vectors`` random inputs, ``repeats`` times; the full
    scale is placed so that the largest current fills ``fill`` of it. An error of writing s (a share of g_max) leaves
    about s / sqrt(writings * rows) on a gain. The content of the tiles is lost. For everything else that can be known
    of a device, with intervals: ``mho.lab.fit_twin``.
    """
    can = device.capabilities()
    stream = ColumnStream(forget=1.0)
    for tile in tiles:
        for k in range(writings):
            g = normals((can.rows, can.cols), "columns", tile, k).clamp(-2, 2) / 2
            low, span = can.lowest_uS, can.g_max_uS - can.lowest_uS
            pattern = low + span * (g + 1) / 2
            device.program(tile, pattern, operation=f"columns/{tile}/{k}")
            v = (uniforms((vectors, can.rows), "columns", "drive", tile, k) * 2 - 1) * can.v_max_V
            expected = v @ pattern
            full = min(max(float(expected.abs().max()) / fill, can.i_min_uA), can.i_max_uA)
            answer = device.mvm(
                tile, v, operation=f"columns/{tile}/{k}", full_scale_uA=full, repeats=repeats
            ).mean_uA()[0]
            stream.add(tile, expected / full, answer / full)
    return stream.columns()
