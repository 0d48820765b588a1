"""A tile as text for ngspice. Pure functions: numbers in, deck out.

The circuit is that of :mod:`mho.physics.wires`: row i is driven at its left end, column j is held at 0 V at its bottom
by a source that also measures its current; every segment between neighbouring cells, the one from the driver to
the first cell and the one from the last cell to the ground have ``wire_ohm``. Cells are resistors. With
``wire_ohm`` = 0 there are no segments: row and column are one node each.

Names: ``d3`` driver of row 3, ``a3_5`` row line at the cell (3, 5), ``m3_5`` between its access device and itself,
``b3_5`` column line, ``g5`` virtual ground of column 5, ``vm5`` the source that measures there.
"""

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from mho.errors import RangeError
from mho.lab.spice.access import Access, AccessMosfet, AccessResistor
from mho.units import BOLTZMANN_J_PER_K

KELVIN_AT_0_C = 273.15
RAW_FILE = "out.raw"
"""The file that a deck writes, in the folder where ngspice runs."""


def check_tile(g_uS: Tensor, wire_ohm: float) -> None:
    """Refuse what is not a tile of passive cells: :class:`~mho.errors.RangeError`."""
    if g_uS.dim() != 2 or 0 in g_uS.shape or not g_uS.dtype.is_floating_point:
        raise RangeError(f"spice: g_uS is {g_uS.dtype} {list(g_uS.shape)}. Fix: a real [rows, cols], not empty.")
    if not bool(torch.isfinite(g_uS).all()) or float(g_uS.min()) < 0.0:
        raise RangeError(
            "spice: g_uS has a negative, infinite or NaN conductance. Cause: a cell is a resistor. Fix: give the two "
            "halves of a pair as two columns, and subtract their currents."
        )
    check_wire(wire_ohm)


def check_wire(wire_ohm: float) -> None:
    """Refuse what is not a resistance: :class:`~mho.errors.RangeError`."""
    if not 0.0 <= wire_ohm < math.inf:
        raise RangeError(f"spice: wire_ohm = {wire_ohm!r} must be finite and at least 0. Fix: check its value.")


def _check_ohmic(access: Access | None) -> None:
    if isinstance(access, AccessMosfet):
        raise RangeError(
            "spice: noise with AccessMosfet. Cause: ngspice 39 takes 8/3 k T g_m for the channel, 0 at rest, where it "
            "has 4 k T g_ds. Fix: give AccessResistor(ohm=1 / g_ds)."
        )


def check_inputs(inputs_V: Tensor, rows: int) -> None:
    """Refuse inputs that are not finite vectors [n, rows]: :class:`~mho.errors.RangeError`."""
    if inputs_V.dim() != 2 or inputs_V.shape[1] != rows or len(inputs_V) == 0 or not inputs_V.dtype.is_floating_point:
        raise RangeError(f"spice: inputs_V is {inputs_V.dtype} {list(inputs_V.shape)}. Fix: a real [n, {rows}].")
    if not bool(torch.isfinite(inputs_V).all()):
        raise RangeError("spice: inputs_V has NaN or infinity. Fix: mend the inputs; nothing was run.")


def options(temperature_K: float, *more: str) -> str:
    """Temperature, tolerances far below those of a linear solve (bent elements are as exact as straight), ``more``.

    ngspice's own are 1e-3 relative, 1 pA and 1 uV: a Newton iteration would stop six digits too early.
    """
    if not 0.0 < temperature_K < math.inf:
        raise RangeError(f"spice: temperature_K = {temperature_K!r} must be above 0 and finite. Fix: give kelvins.")
    exact = f"temp={temperature_K - KELVIN_AT_0_C!r} reltol=1e-9 abstol=1e-18 vntol=1e-13 gmin=1e-18"
    return " ".join([".options noacct", exact, *more])


def script(*lines: str) -> list[str]:
    """The control section of a deck: what ngspice does, without a word more."""
    return [".control", *lines, "quit", ".endc", ".end", ""]


def swept_source(name: str, node: str, values: Sequence[float], *, current: bool = False) -> str:
    """A source of ``values[k]`` volts (``current``: amperes into the node) while the node ``k`` is at k volts.

    Straight lines between the values; the sweep stops at whole numbers only, where they are met to the bit.
    """
    points = [*values, values[-1]]  # a line needs two ends
    table = ",".join(f"{k},{value!r}" for k, value in enumerate(points))
    return f"{name} {f'0 {node} I' if current else f'{node} 0 V'}=pwl(v(k),{table})"


def _row_segments(rows: int, cols: int, wire_ohm: float) -> Iterator[str]:
    for i in range(rows):
        before = f"d{i}"
        for j in range(cols):
            yield f"ra{i}_{j} {before} a{i}_{j} {wire_ohm!r}"
            before = f"a{i}_{j}"


def _column_segments(rows: int, cols: int, wire_ohm: float) -> Iterator[str]:
    for j in reversed(range(cols)):
        after = f"g{j}"
        for i in reversed(range(rows)):
            yield f"rb{i}_{j} b{i}_{j} {after} {wire_ohm!r}"
            after = f"b{i}_{j}"


def _access(i: int, j: int, above: str, access: Access) -> str:
    if isinstance(access, AccessResistor):
        return f"rs{i}_{j} {above} m{i}_{j} {float(access.ohm)!r}"
    return f"mt{i}_{j} {above} gate m{i}_{j} bulk access"


def _cells(conductances_uS: list[list[float]], wired: bool, access: Access | None) -> Iterator[str]:
    """Cells with what is in series. A cell of 0 uS is an open circuit: nothing at all."""
    for i, row in enumerate(conductances_uS):
        for j, g_uS in enumerate(row):
            if g_uS == 0.0:
                continue
            above, below = (f"a{i}_{j}", f"b{i}_{j}") if wired else (f"d{i}", f"g{j}")
            if access is not None:
                yield _access(i, j, above, access)
                above = f"m{i}_{j}"
            yield f"rc{i}_{j} {above} {below} {1e6 / g_uS!r}"


def _transistor(access: Access | None, temperature_K: float) -> list[str]:
    if not isinstance(access, AccessMosfet):
        return []
    a = access
    # tnom = temp: the values are those at this temperature, not moved there from 27 C.
    return [
        f"vgate gate 0 {float(a.gate_V)!r}",
        f"vbulk bulk 0 {float(a.bulk_V)!r}",
        f".model access nmos level=1 vto={float(a.threshold_V)!r} kp={a.kp_uA_per_V2 * a.width_over_length * 1e-6!r} "
        f"lambda={float(a.lambda_per_V)!r} gamma={float(a.gamma_rootV)!r} tnom={temperature_K - KELVIN_AT_0_C!r}",
    ]


def _array(g_uS: Tensor, wire_ohm: float, access: Access | None, temperature_K: float) -> list[str]:
    """All elements but the drivers.

    ngspice numbers nodes as it meets them, and breaks ties of its elimination by their numbers: columns first, from
    the ground upwards, filled its matrix least of the dozen orders tried (64 x 64: 17 % less than row lines first).
    """
    rows, cols = g_uS.shape
    wired = wire_ohm > 0.0
    return [
        *(_column_segments(rows, cols, float(wire_ohm)) if wired else ()),
        *_cells(g_uS.detach().double().tolist(), wired, access),
        *(_row_segments(rows, cols, float(wire_ohm)) if wired else ()),
        *_transistor(access, temperature_K),
        *(f"vm{j} g{j} 0 0" for j in range(cols)),
    ]


def crossbar_deck(
    g_uS: Tensor,
    inputs_V: Tensor,
    *,
    wire_ohm: float = 0.0,
    access: Access | None = None,
    temperature_K: float = 300.0,
) -> str:
    """The deck that solves the tile ``g_uS`` [rows, cols] for every vector of ``inputs_V`` [n, rows].

    One operating point a vector, as a sweep of the node ``k`` = 0 ... n - 1: the order of elimination, which costs
    most, is found once. It writes one plot of n points with the currents ``i(vm0)`` ... (A).
    """
    check_tile(g_uS, wire_ohm)
    check_inputs(inputs_V, g_uS.shape[0])
    columns = inputs_V.detach().double().t().tolist()
    return "\n".join(
        [
            "* tile",
            *_array(g_uS, wire_ohm, access, temperature_K),
            *(swept_source(f"bd{i}", f"d{i}", values) for i, values in enumerate(columns)),
            "vk k 0 0",
            options(temperature_K),
            *script(
                "save " + " ".join(f"i(vm{j})" for j in range(g_uS.shape[1])),
                f"dc vk 0 {len(inputs_V) - 1} 1",
                f"write {RAW_FILE}",
            ),
        ]
    )


def noise_deck(
    g_uS: Tensor,
    columns: Sequence[int],
    *,
    wire_ohm: float = 0.0,
    access: Access | None = None,
    temperature_K: float = 300.0,
) -> str:
    """The deck of ``.noise`` for each of ``columns``: current into the ground, all drivers at rest.

    It writes one plot a column with ``onoise_spectrum`` (A^2/Hz: a source of 1 ohm makes the current a voltage). The
    tile has no reactance, so one frequency says all.
    """
    check_tile(g_uS, wire_ohm)
    rows, cols = g_uS.shape
    wrong = [j for j in columns if not 0 <= j < cols]
    if wrong or not columns:
        raise RangeError(f"spice: columns {wrong or 'none'} asked for, the tile has 0 to {cols - 1}. Fix: name those.")
    _check_ohmic(access)
    runs = (
        line for j in columns for line in (f"noise v(h{j}) vd0 lin 1 1000 1000", f"write {RAW_FILE}", "destroy all")
    )
    return "\n".join(
        [
            "* noise of a tile",
            *_array(g_uS, wire_ohm, access, temperature_K),
            *(f"vd{i} d{i} 0 0{' ac 1' if i == 0 else ''}" for i in range(rows)),
            *(f"hc{j} h{j} 0 vm{j} 1" for j in columns),
            options(temperature_K),
            *script("set sqrnoise", "set appendwrite", *runs),
        ]
    )


def _johnson_sources(elements: Sequence[str], step_s: float, temperature_K: float) -> Iterator[str]:
    """A current source beside every resistor of ``elements``, a new normal number each ``step_s``.

    Numbers of sigma s each dt have the density 2 s^2 dt at low frequencies; that of a resistor is 4 k T / R.
    """
    for line in elements:
        name, a, b, ohm = (*line.split(), "", "", "")[:4]
        if name.startswith("r"):
            sigma_A = math.sqrt(2.0 * BOLTZMANN_J_PER_K * temperature_K / (float(ohm) * step_s))
            yield f"i{name} {a} {b} dc 0 trnoise({sigma_A!r} {step_s!r} 0 0)"


def transient_deck(
    g_uS: Tensor,
    samples: int,
    step_s: float,
    *,
    wire_ohm: float = 0.0,
    access: Access | None = None,
    temperature_K: float = 300.0,
) -> str:
    """The deck of a transient of ``samples`` steps of ``step_s``, all drivers at rest, thermal noise in every resistor.

    It writes one plot of ``samples`` + 1 points with ``i(vm0)`` ... (A); the first is the operating point, without
    noise. The tile has no memory, so that each later point is a draw of its own. ngspice solves more points than it
    writes (some four a step, for each step is a corner of the sources).
    """
    check_tile(g_uS, wire_ohm)
    _check_ohmic(access)
    if samples < 1 or not 0.0 < step_s < math.inf:
        raise RangeError(f"spice: {samples} samples of {step_s!r} s. Fix: 1 or more, of a time above 0.")
    rows, cols = g_uS.shape
    elements = _array(g_uS, wire_ohm, access, temperature_K)
    return "\n".join(
        [
            "* thermal noise of a tile in time",
            *elements,
            *_johnson_sources(elements, step_s, temperature_K),
            *(f"vd{i} d{i} 0 0" for i in range(rows)),
            options(temperature_K, "interp"),
            *script(
                "save " + " ".join(f"i(vm{j})" for j in range(cols)),
                f"tran {step_s!r} {samples * step_s!r}",
                f"write {RAW_FILE}",
            ),
        ]
    )
