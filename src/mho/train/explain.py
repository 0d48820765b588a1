"""What is wrong with a table of settings: file, key, value, cause and way out, all problems at once."""

from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from mho.errors import nearest


def problems(error: ValidationError, source: str, root: type[BaseModel]) -> str:
    """One line a problem of ``error``, which validating ``root`` raised; ``source``: what the reader calls the file."""
    return "\n".join(_explain(p, source, root) for p in error.errors())


def _table_at(place: tuple[int | str, ...], root: type[BaseModel]) -> type[BaseModel]:
    """The table that holds the last key of ``place``."""
    table = root
    for key in place[:-1]:
        inner = table.model_fields[str(key)].annotation if key in table.model_fields else None
        tables = [t for t in (inner, *get_args(inner)) if isinstance(t, type) and issubclass(t, BaseModel)]
        if not tables:
            break
        table = tables[0]
    return table


def _choices(place: tuple[int | str, ...], root: type[BaseModel]) -> list[str]:
    """The admissible words of a field that takes one of a few, else an empty list."""
    fields = _table_at(place, root).model_fields
    names = [str(key) for key in place if key in fields]
    found: list[str] = []
    waiting: list[Any] = [fields[names[-1]].annotation] if names else []
    while waiting:
        for part in get_args(waiting.pop()):
            if isinstance(part, str):
                found.append(part)
            else:
                waiting.append(part)
    return found


def _explain(problem: Any, source: str, root: type[BaseModel]) -> str:
    """One line for one problem: file, key, value, cause, way out."""
    place = problem["loc"]
    key = ".".join(str(part) for part in place) or "(top level)"
    if problem["type"] == "extra_forbidden":
        return f"{source}: {key} is not a known key. {nearest(str(place[-1]), _table_at(place, root).model_fields)}"
    if problem["type"] == "missing":
        return f'{source}: {key} is missing. Fix: add it, e.g. {place[-1]} = "my-run".'
    reason = problem["msg"].removeprefix("Value error, ")
    if isinstance(problem["input"], dict):  # a whole table: its text would bury the reason
        return f"{source}: {key}: {reason}."
    line = f"{source}: {key} = {problem['input']!r}: {reason}."
    known = _choices(place, root)
    if problem["type"] == "literal_error" and isinstance(problem["input"], str) and known:
        return f"{line} {nearest(problem['input'], known)}"
    return line
