"""Admissible ranges of fields, written as annotations and checked at construction.

The markers are those of ``annotated_types``, which pydantic understands too: one spelling serves the
constructor and the TOML loader.
"""

import dataclasses
import functools
import math
from collections.abc import Iterator
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from annotated_types import Ge, Gt, Le

from mho.errors import HardwareError, nearest

NonNegative = Annotated[float, Ge(0.0)]
Positive = Annotated[float, Gt(0.0)]
Fraction = Annotated[float, Ge(0.0), Le(1.0)]
Share = Annotated[float, Gt(0.0), Le(1.0)]
Count = Annotated[int, Ge(1)]
Bits = Annotated[int, Ge(2), Le(24)]
"""Bits of a converter: one bit has no level beside zero in a symmetric code."""
CellBits = Annotated[int, Ge(1), Le(24)]
"""Bits that one cell or one slice holds."""


def contradiction(part: object, key: str, value: object, cause: str, fix: str) -> HardwareError:
    """The error for fields that exclude one another."""
    return HardwareError(f"{type(part).__name__}.{key} = {value!r}: {cause}. Fix: {fix}.")


@functools.cache
def _bounds(cls: Any) -> dict[str, tuple[Any, ...]]:
    """Field name -> its Ge/Gt/Le markers, found also inside ``X | None``."""
    found: dict[str, tuple[Any, ...]] = {}
    for name, hint in get_type_hints(cls, include_extras=True).items():
        parts = (hint, *get_args(hint))
        marks = tuple(m for part in parts for m in getattr(part, "__metadata__", ()) if isinstance(m, (Ge, Gt, Le)))
        if marks:
            found[name] = marks
    return found


def _numbers(value: object) -> Iterator[float]:
    """The numbers of a field, also inside tuples."""
    if isinstance(value, tuple):
        for item in value:
            yield from _numbers(item)
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        yield value


@functools.cache
def _choices(cls: Any) -> dict[str, tuple[tuple[type, ...], tuple[Any, ...]]]:
    """Field name -> (types, literals) that a plain value may have; tuples and parts are left out."""
    found: dict[str, tuple[tuple[type, ...], tuple[Any, ...]]] = {}
    for name, hint in get_type_hints(cls).items():
        members = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
        literals = tuple(v for m in members if get_origin(m) is Literal for v in get_args(m))
        types = tuple(m for m in members if m in (float, int, bool, str, NoneType))
        if literals or set(types) - {NoneType}:
            found[name] = types, literals
    return found


def _check_type(value: object, types: tuple[type, ...], literals: tuple[Any, ...], where: str) -> None:
    # A bool is an int and an int may stand for a float: to Python, but 1 bit is not True.
    if any(value == v and type(value) is type(v) for v in literals):
        return
    if isinstance(value, bool):
        accepted = bool in types
    else:
        accepted = isinstance(value, types) or (float in types and isinstance(value, int))
    if accepted:
        return
    if literals:
        names = ", ".join(repr(v) for v in literals)
        raise HardwareError(f"{where}: must be one of {names}. Fix: {nearest(str(value), map(str, literals))}")
    wanted = " or ".join(t.__name__ for t in types if t is not NoneType)
    raise HardwareError(f"{where}: is a {type(value).__name__}, must be {wanted}. Fix: convert it.")


def check_fields(part: Any) -> None:
    """Raise :class:`HardwareError` where a field of ``part`` has the wrong type, an unknown choice, or a
    number that is not finite or out of its range."""
    kind: Any = type(part)
    bounds, choices = _bounds(kind), _choices(kind)
    for spec in dataclasses.fields(part):
        value = getattr(part, spec.name)
        where = f"{type(part).__name__}.{spec.name} = {value!r}"
        if spec.name in choices:
            _check_type(value, *choices[spec.name], where)
        for number in _numbers(value):
            if not math.isfinite(number):
                raise HardwareError(f"{where}: not a finite number. Fix: give a finite value.")
            for mark in bounds.get(spec.name, ()):
                if isinstance(mark, Ge) and number < mark.ge:  # type: ignore[operator]
                    raise HardwareError(f"{where}: must be at least {mark.ge}. Fix: raise it.")
                if isinstance(mark, Gt) and number <= mark.gt:  # type: ignore[operator]
                    raise HardwareError(f"{where}: must be above {mark.gt}. Fix: raise it.")
                if isinstance(mark, Le) and number > mark.le:  # type: ignore[operator]
                    raise HardwareError(f"{where}: must be at most {mark.le}. Fix: lower it.")
