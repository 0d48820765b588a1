"""The laws of a memory cell as functions of its description; each technology registers its own.

Random numbers always come in (standard normals), they are never drawn here: that keeps every law a
pure, differentiable function and a chip a function of its seed. Conductances are in uS, times in
seconds since programming. A new technology is a frozen dataclass plus one ``register`` a law.
"""

import functools
import math

from torch import Tensor

from mho.errors import HardwareError
from mho.hardware.cells import Cell

ROOM_TEMPERATURE_K = 300.0


def _no_law(law: str, cell: object) -> HardwareError:
    return HardwareError(
        f"mho.physics.cells.{law}: no law for {type(cell).__name__}. Fix: pass a cell of mho.hardware.cells, or "
        f"register one with {law}.register."
    )


def check_time(cell: object, t_s: float) -> None:
    """Raise :class:`HardwareError` unless 0 <= t_s < infinity."""
    if not 0 <= t_s < math.inf:
        raise HardwareError(
            f"{type(cell).__name__}: t_s = {t_s!r} s after programming is not a time. Fix: give a finite t_s >= 0."
        )


def check_unsigned(cell: object, signed: bool) -> None:
    """Raise :class:`HardwareError` where a cell that has no negative conductance is asked for one."""
    if signed:
        raise HardwareError(
            f"{type(cell).__name__}: a conductance has no sign. Fix: mapping.scheme = 'differential' or 'offset', or "
            "another cell.technology (generic, sram and photonic cells hold signed weights)."
        )


@functools.singledispatch
def program(cell: Cell, g_target_uS: Tensor, xi: Tensor | None, *, signed: bool = False) -> Tensor:
    """Conductances right after programming, uS.

    ``g_target_uS``: any shape; ``xi``: the cells' standard normals, same shape (``None``: no error).
    The result is never below 0, unless ``signed``: then targets of both signs are meant (an idealised
    cell, a charge, an optical amplitude) and nothing is clipped. Raises :class:`HardwareError` for
    ``signed`` where the technology cannot hold a sign.
    """
    raise _no_law("program", cell)


@functools.singledispatch
def age(cell: Cell, g_prog_uS: Tensor, g_target_uS: Tensor, t_s: float, xi: Tensor | None) -> Tensor:
    """Conductances ``t_s`` seconds after programming, uS.

    ``g_prog_uS``: from :func:`program`; ``xi``: the cells' own standard normals (drift exponent,
    relaxation), the same at every call for a chip (``None``: the typical cell). A function of
    (g_prog, xi, t_s) alone, so reading at t1 and then at t2 equals reading at t2; t_s = 0 gives
    g_prog exactly. Raises :class:`HardwareError` for t_s < 0.
    """
    raise _no_law("age", cell)


@functools.singledispatch
def read_sigma_uS(
    cell: Cell, g_uS: Tensor, g_target_uS: Tensor, t_s: float, *, temperature_K: float = ROOM_TEMPERATURE_K
) -> Tensor:
    """Standard deviation of one read, uS, with its 1/f part.

    ``g_uS``: what the cell holds now, from :func:`age`. A 0-d tensor where it is the same for all
    cells, else of the shape of ``g_uS``. ``temperature_K`` matters for kT/C noise only.
    """
    raise _no_law("read_sigma_uS", cell)


@functools.singledispatch
def static_draws(cell: Cell) -> frozenset[str]:
    """Which normals of a chip matter: a subset of {"programming", "aging"}."""
    raise _no_law("static_draws", cell)


@functools.singledispatch
def has_read_noise(cell: Cell) -> bool:
    """Whether :func:`read_sigma_uS` is ever above 0."""
    raise _no_law("has_read_noise", cell)


@functools.singledispatch
def scale_noise(cell: Cell, factor: float) -> Cell:
    """The same technology with the standard deviation of every random error times ``factor``.

    Programming, spread of aging and read noise are scaled; mean drift is not random and stays.
    Raises :class:`HardwareError` for a factor that is negative or not finite.
    """
    raise _no_law("scale_noise", cell)


@functools.singledispatch
def measured_until_s(cell: Cell) -> float:
    """The last age that the cell's constants were measured at, s; infinity for a formula in t.

    Beyond it the laws hold the spread of the last measurement: retention there is a guess.
    """
    return math.inf


@functools.singledispatch
def uniform_programming_sigma(cell: Cell) -> float | None:
    """Sigma of the programming error as a fraction of (g_max - g_min) where it is additive Gaussian and
    the same for all signed targets (no clip at 0); ``None`` for every other law."""
    return None


@functools.singledispatch
def uniform_read_sigma(cell: Cell, *, temperature_K: float = ROOM_TEMPERATURE_K) -> float | None:
    """Sigma of a read as a fraction of (g_max - g_min) where it is the same for all cells and ages."""
    return None


def check_factor(factor: float) -> None:
    """Raise :class:`HardwareError` unless 0 <= factor < infinity."""
    if not 0 <= factor < math.inf:
        raise HardwareError(
            f"scale_noise: factor = {factor!r} cannot multiply a sigma. Fix: give a finite factor >= 0."
        )
