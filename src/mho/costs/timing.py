"""Time and area from the same counts.

    one vector   P (t_read + n t_conv)  , overlapped  P max(t_read, n t_conv) + min(...)      n columns a converter,
                 P phases of all repeats; columns that are integrated for less, or left out of a repeat, save no time
    one layer    vectors x that: all tiles of a layer work at once, its vectors one after the other
    network      sum of its layers; a pipeline gives a result each time the slowest layer is done

The time of logic, buffers and links is in none of them: no price states one.

Area: cells (an offset mapping's reference column among them), converters, drivers and what a tile has beside them;
whole tiles, however full. Known where the tile has an
area (of all that no other part counts), or cells, converters and drivers have one each.
"""

from mho.costs.constants import spread
from mho.costs.counts import Counts, Layout
from mho.costs.phases import driven, groups_of_planes, planes
from mho.costs.spread import NOTHING, Spread, exactly
from mho.hardware.cost import Cost, Quantity
from mho.hardware.spec import Hardware

MM2_PER_UM2 = 1e-6


def layer_latency_s(counts: Counts, place: Layout, hw: Hardware, cost: Cost) -> Spread:
    """Seconds for the vectors of ``counts``, one after the other."""
    reads = planes(hw) * driven(hw).sign_reads * hw.readout.repeats
    converted = len(groups_of_planes(hw)) * driven(hw).sign_reads * hw.readout.repeats
    read = exactly(hw.readout.t_read_s)
    if cost.adc.conversion_s is None:
        return read * (reads * counts.vectors)
    width = min(cost.adc.columns, columns_a_tile(place, hw))
    convert = spread(cost.adc.conversion_s) * width
    if not cost.adc.overlapped:
        return (read * reads + convert * converted) * counts.vectors
    longer = Spread(*(max(getattr(read, k), getattr(convert, k)) for k in ("low", "typical", "high")))
    shorter = Spread(*(min(getattr(read, k), getattr(convert, k)) for k in ("low", "typical", "high")))
    return (longer * reads + shorter) * counts.vectors


def columns_a_tile(place: Layout, hw: Hardware) -> int:
    """Columns of one tile that wait for converters: those of the fullest, and its reference."""
    used = place.columns if hw.tile.cols is None else min(place.columns, hw.tile.cols)
    return used + (place.references > 0)


def without_area(cost: Cost) -> tuple[tuple[str, str], ...]:
    """Parts whose area is missing, each with its key; none where the area of the tile holds what no part counts."""
    if cost.tile.area_um2 is not None:
        return ()
    parts = (
        ("the cells", "cost.array.area_um2", cost.array.area_um2),
        ("the converters", "cost.adc.area_um2", cost.adc.area_um2),
        ("the row drivers", "cost.drive.area_um2", cost.drive.area_um2),
    )
    return tuple((what, key) for what, key, area in parts if area is None)


def area_mm2(place: Layout, hw: Hardware, cost: Cost) -> Spread | None:
    """Area of the tiles of one weight; ``None`` where that of a part is missing (:func:`without_area`)."""
    if without_area(cost):
        return None
    rows = hw.tile.rows or place.rows // max(1, place.groups * place.blocks)
    cols = (hw.tile.cols or place.columns) + (place.references > 0)
    per_crossing = 2 if hw.mapping.scheme == "differential" else 1
    converters = -(-cols // cost.adc.columns)
    return (
        _area(rows * cols * per_crossing, cost.array.area_um2)
        + _area(converters, cost.adc.area_um2)
        + _area(rows, cost.drive.area_um2)
        + _area(1, cost.tile.area_um2)
    ) * (place.tiles * MM2_PER_UM2)


def _area(amount: int, price: Quantity | None) -> Spread:
    return NOTHING if price is None else spread(price) * amount
