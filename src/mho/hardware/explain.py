"""pydantic's verdicts in the words of somebody who edits a TOML file."""

import math
from typing import Any, NamedTuple

from mho.errors import nearest


class Problem(NamedTuple):
    """One item of ``ValidationError.errors()``."""

    kind: str
    message: str
    loc: tuple[str | int, ...]
    context: dict[str, Any]


_WANTED = {
    "float_type": "a number",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "bool_type": "true or false",
    "string_type": "a text in quotes",
    "tuple_type": "a list in [ ]",
    "dataclass_type": "a table",
    "finite_number": "a finite number",
}
_BOUNDS = {
    "greater_than_equal": ("must be at least", "ge", "raise it"),
    "greater_than": ("must be above", "gt", "raise it"),
    "less_than_equal": ("must be at most", "le", "lower it"),
    "less_than": ("must be below", "lt", "lower it"),
}


def explain(problem: Problem, table: dict[str, Any], prefix: tuple[str, ...]) -> str:
    """``'key' = value: cause. Fix: what to write.``"""
    key = ".".join(map(str, (*prefix, *problem.loc)))
    if problem.kind == "missing":
        if isinstance(problem.loc[-1], int):
            parent = ".".join(map(str, (*prefix, *problem.loc[:-1])))
            return f"{parent!r}: the list is too short. Fix: give item number {problem.loc[-1] + 1}."
        return f"{key!r}: missing. Fix: add {problem.loc[-1]} = ... there."
    value = _value(table, problem.loc)
    start = f"{key!r} = {value!r}:"
    if isinstance(value, float) and not math.isfinite(value):
        return f"{start} not a finite number. Fix: give a finite value."
    if problem.kind in _BOUNDS:
        words, name, fix = _BOUNDS[problem.kind]
        return f"{start} {words} {problem.context[name]}. Fix: {fix}."
    if problem.kind == "literal_error":
        options = problem.context["expected"].replace("'", "").replace(" or ", ", ").split(", ")
        return f"{start} must be {problem.context['expected']}. Fix: {nearest(str(value), options)}"
    if problem.kind == "too_long":
        return f"{start} the list is too long. Fix: give {problem.context['max_length']} items."
    if problem.kind in _WANTED:
        return f"{start} is {_name(value)}, must be {_WANTED[problem.kind]}. Fix: {_fix(problem, value, key)}."
    return f"{start} {problem.message}. Fix: see the README of mho.hardware for this key."


def _value(table: Any, loc: tuple[str | int, ...]) -> Any:
    for step in loc:
        table = table[step]
    return table


def _name(value: Any) -> str:
    names = {
        bool: "true/false",
        str: "a text",
        int: "a whole number",
        float: "a number",
        list: "a list",
        dict: "a table",
    }
    return names.get(type(value), type(value).__name__)


def _fix(problem: Problem, value: Any, key: str) -> str:
    if problem.kind == "dataclass_type":
        return f"write a table, [{key}]"
    if isinstance(value, str) and problem.kind in ("float_type", "int_type"):
        return f"write {value} without quotes" if _is_number(value) else f"write {_WANTED[problem.kind]}"
    return f"write {_WANTED[problem.kind]}"


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
