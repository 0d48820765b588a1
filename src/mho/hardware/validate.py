"""A parsed TOML document -> :class:`Hardware`, or an error that says which key, why and what to do.

Unknown keys are found here; types and ranges are checked by pydantic from the same annotations that
the constructors use. The cell is checked against its own technology only, a pulse response against its own kind.
"""

import dataclasses
import functools
import json
import re
from collections.abc import Iterator
from typing import Any, get_args, get_type_hints

from pydantic import TypeAdapter, ValidationError

from mho.errors import HardwareError, nearest
from mho.hardware import cells, update
from mho.hardware.explain import Problem, explain
from mho.hardware.spec import Hardware

Document = dict[str, Any]

_CELLS: dict[str, type] = {kind.technology: kind for kind in get_args(cells.Cell)}
_RESPONSES: dict[str, type] = {kind.kind: kind for kind in get_args(update.Response)}
_CHOSEN = {"cell": ("technology", _CELLS), "response": ("kind", _RESPONSES)}
"""Tables whose class is chosen by one of their own keys."""
_UNITS = frozenset(
    ("S", "mS", "uS", "nS", "pS", "s", "ms", "us", "ns", "V", "mV", "uV", "A", "mA", "uA", "nA", "pA", "F", "pF", "fF")
) | {"aF", "ohm", "kohm", "Mohm", "K", "C", "rad", "deg", "lsb", "LSB", "sqrt", "Hz", "J", "uJ", "nJ", "pJ", "fJ"}


def hardware_from_document(document: Document, file: str) -> Hardware:
    """Build the description; raises :class:`HardwareError` for everything that is wrong in ``file``."""
    unknown = list(_unknown_keys(document, Hardware, ()))
    if unknown:
        raise _error(file, unknown)
    schema = document.get("schema", 1)
    if isinstance(schema, bool) or schema != 1:
        raise HardwareError(f"{file}: key 'schema' = {schema!r}: this version of mho reads schema 1. Fix: schema = 1.")
    kind = _cell_class(document, file)
    pulsed = isinstance(document.get("update"), dict)
    rest = {key: value for key, value in document.items() if key != "cell" and not (pulsed and key == "update")}
    hw: Hardware = _validated(Hardware, rest, file, ())
    cell = _validated(kind, document["cell"], file, ("cell",))
    device = _pulsed_device(document["update"], file) if pulsed else None
    try:
        hw = hw.replace(cell=cell, update=device)
    except HardwareError as error:
        raise HardwareError(f"{file}: key {_keyed(str(error), ())}") from error
    _check_sources(hw, file)
    return hw


def _cell_class(document: Document, file: str) -> type:
    known = ", ".join(_CELLS)
    cell = document.get("cell", {})
    if not isinstance(cell, dict):
        raise HardwareError(f"{file}: key 'cell' = {cell!r}: must be a table. Fix: write [cell] on a line of its own.")
    if "technology" not in cell:
        cause = "there is no [cell]" if "cell" not in document else "missing"
        raise HardwareError(
            f"{file}: key 'cell.technology': {cause}. Fix: add [cell] with technology = one of {known}."
        )
    technology = cell["technology"]
    if not isinstance(technology, str) or technology not in _CELLS:
        raise HardwareError(
            f"{file}: key 'cell.technology' = {technology!r}: unknown technology. "
            f"Fix: {nearest(str(technology), _CELLS)}"
        )
    return _CELLS[technology]


def _pulsed_device(table: Document, file: str) -> update.PulsedDevice:
    response = table.get("response")
    known = ", ".join(_RESPONSES)
    if not isinstance(response, dict) or "kind" not in response:
        cause = f" = {response!r}: must be a table with a kind" if response is not None else ": there is no response"
        raise HardwareError(
            f"{file}: key 'update.response'{cause}. Fix: add [update.response] with kind = one of {known}."
        )
    kind = response["kind"]
    if not isinstance(kind, str) or kind not in _RESPONSES:
        raise HardwareError(
            f"{file}: key 'update.response.kind' = {kind!r}: unknown response. Fix: {nearest(str(kind), _RESPONSES)}"
        )
    rest = {key: value for key, value in table.items() if key != "response"}
    device: update.PulsedDevice = _validated(update.PulsedDevice, rest, file, ("update",))
    answer = _validated(_RESPONSES[kind], response, file, ("update", "response"))
    try:
        return dataclasses.replace(device, response=answer)
    except HardwareError as error:
        raise HardwareError(f"{file}: key {_keyed(str(error), ('update',))}") from error


@functools.cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def _validated(kind: type, table: Document, file: str, prefix: tuple[str, ...]) -> Any:
    try:
        # JSON is the mode of pydantic in which lists may fill tuples and nothing else is coerced.
        text = json.dumps(table)
    except TypeError as error:
        dated = ", ".join(repr(".".join((*prefix, *path))) for path in _dates(table, ()))
        raise HardwareError(f"{file}: key {dated}: a date or a time of day. Fix: write a plain number.") from error
    try:
        return _adapter(kind).validate_json(text, strict=True)
    except ValidationError as error:
        problems = []
        for item in error.errors(include_url=False):
            own = item.get("ctx", {}).get("error")
            if isinstance(own, HardwareError):
                problems.append(_keyed(str(own), (*prefix, *item["loc"])))
            else:
                problems.append(
                    explain(Problem(item["type"], item["msg"], item["loc"], item.get("ctx", {})), table, prefix)
                )
        raise _error(file, problems) from error


def _error(file: str, problems: list[str]) -> HardwareError:
    if len(problems) == 1:
        return HardwareError(f"{file}: key {problems[0]}")
    return HardwareError(f"{file}: {len(problems)} problems:" + "".join(f"\n  key {p}" for p in problems))


def _keyed(message: str, place: tuple[str | int, ...]) -> str:
    """The error of a constructor, "Adc.bits = ...", with the key in place of the class: "'adc.bits' = ..."."""
    found = re.match(r"(\w+)\.([\w.]+)", message)
    if found is None:
        return f"{'.'.join(map(str, place))!r}: {message}"
    kind, key = found.groups()
    if not place and kind != "Hardware":
        # A contradiction between two parts is raised by the whole and blamed on one of them.
        place = ("cell",) if kind.endswith("Cell") else (kind.lower(),)
    return f"{'.'.join(map(str, (*place, key)))!r}{message[found.end() :]}"


def _dates(table: Any, path: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    if isinstance(table, dict):
        for key, value in table.items():
            yield from _dates(value, (*path, key))
    elif isinstance(table, list):
        for index, value in enumerate(table):
            yield from _dates(value, (*path, str(index)))
    elif not isinstance(table, (str, int, float, bool)):
        yield path


def _parts(hint: Any) -> list[type]:
    """Dataclasses inside a hint: ``Adc | None`` and ``tuple[Source, ...]`` hold one."""
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return [hint]
    return [kind for part in get_args(hint) for kind in _parts(part)]


def _unknown_keys(table: Any, kind: type, path: tuple[str, ...]) -> Iterator[str]:
    """One sentence a key that ``kind`` does not have, all levels deep."""
    hints = get_type_hints(kind)
    for key, value in table.items():
        here = (*path, key)
        if key not in hints:
            yield f"{'.'.join(here)!r} = {value!r}: unknown key. Fix: {_suggest(key, hints)}"
            continue
        inner = _parts(hints[key])
        if key in _CHOSEN and isinstance(value, dict):
            word, kinds = _CHOSEN[key]
            chosen = value.get(word)
            inner = [kinds[chosen]] if isinstance(chosen, str) and chosen in kinds else []
        for index, item in enumerate(value if isinstance(value, list) else [value]):
            if inner and isinstance(item, dict):
                where = (*here, str(index)) if isinstance(value, list) else here
                yield from _unknown_keys(item, inner[0], where)


def _stem(key: str) -> str:
    """``g_max_uS`` -> ``g_max``: the quantity without its unit."""
    words = key.split("_")
    while len(words) > 1 and words[-1] in _UNITS:
        words.pop()
    return "_".join(words)


def _unit(key: str) -> str:
    return key[len(_stem(key)) + 1 :].replace("_", " ")


def _suggest(key: str, known: dict[str, Any]) -> str:
    for candidate in known:
        same = _stem(key).lower() == _stem(candidate).lower() or key.lower() == candidate.lower()
        if same and _unit(candidate):
            return f"Did you mean {candidate!r}? Write the value in {_unit(candidate)}."
    return nearest(key, known)


def _check_sources(hw: Hardware, file: str) -> None:
    """Refuse a citation of a key that does not exist."""
    for index, source in enumerate(hw.sources):
        part: Any = hw
        for word in source.key.split("."):
            names = [f.name for f in dataclasses.fields(part)] if dataclasses.is_dataclass(part) else []
            if word not in names or getattr(part, word) is None:
                raise HardwareError(
                    f"{file}: key 'sources.{index}.key' = {source.key!r}: this description has no such key. "
                    f"Fix: {nearest(word, names) if names else 'name a key that is given above.'}"
                )
            part = getattr(part, word)
