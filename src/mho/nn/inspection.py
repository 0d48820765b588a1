"""Say of every module and every bare parameter what will become of it, and why."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal

from torch import nn

from mho.errors import ConversionError, nearest
from mho.hardware.spec import Hardware
from mho.nn.policy import Policy
from mho.nn.registry import DIGITAL, analog_builder, mapped_parent, refusal
from mho.nn.site import AnalogLayer

Where = Callable[[str, nn.Module], bool] | Mapping[str, Hardware | str | None] | Iterable[str] | None
Decision = Literal["analog", "digital", "refused"]


@dataclass(frozen=True)
class Row:
    """The decision on one module, or on one bare parameter (``kind`` "Parameter")."""

    name: str
    kind: str
    decision: Decision
    reason: str
    way_out: str = ""
    hardware: str = ""
    parameters: int = 0


@dataclass(frozen=True)
class Inspection:
    """All decisions, in the order of ``named_modules``; prints as a table."""

    rows: tuple[Row, ...]

    @property
    def refused(self) -> tuple[Row, ...]:
        return tuple(r for r in self.rows if r.decision == "refused")

    def __str__(self) -> str:
        header = ("module", "type", "decision", "parameters", "reason")
        body = [
            (
                r.name or "(root)",
                r.kind,
                r.decision,
                f"{r.parameters:,}" if r.parameters else "",
                r.reason + (f". Way out: {r.way_out}" if r.way_out else ""),
            )
            for r in self.rows
        ]
        widths = [max(len(line[i]) for line in (header, *body)) for i in range(4)]
        lines = [
            "  ".join((*(cell.ljust(w) for cell, w in zip(line, widths, strict=False)), line[4])).rstrip()
            for line in (header, *body)
        ]
        analog = sum(r.parameters for r in self.rows if r.decision == "analog")
        total = sum(r.parameters for r in self.rows)
        lines.append(f"{analog:,} of {total:,} parameters on analog hardware, {len(self.refused)} refused")
        return "\n".join(lines)


def choose_hardware(
    where: Where, hw: Hardware, load: Callable[[str], Hardware]
) -> Callable[[str, nn.Module], Hardware | None]:
    """The hardware of a module by name: ``None`` keeps it digital.

    ``where``: ``None`` (everything), a predicate (name, module), patterns of names (``"layer1.*"``), or a
    mapping pattern -> hardware (or its name, or ``None`` for digital); the first match counts, and
    what matches no pattern of a mapping gets ``hw``.
    """
    if where is None:
        return lambda name, module: hw
    if callable(where):
        return lambda name, module: hw if where(name, module) else None
    if isinstance(where, Mapping):
        chosen = {k: load(v) if isinstance(v, str) else v for k, v in where.items()}

        def by_map(name: str, module: nn.Module) -> Hardware | None:
            return next((h for pattern, h in chosen.items() if fnmatchcase(name, pattern)), hw)

        return by_map
    selected = patterns(where)
    return lambda name, module: hw if any(fnmatchcase(name, p) for p in selected) else None


def patterns(where: Where) -> tuple[str, ...]:
    """The name patterns of a selection; none of a predicate."""
    if where is None or callable(where):
        return ()
    return (where,) if isinstance(where, str) else tuple(where)


def refuse_unmatched(model: nn.Module, given: Iterable[str]) -> None:
    """Raise for a pattern that names no module: it is a typo."""
    names = [n for n, _ in model.named_modules()]
    for pattern in given:
        if not any(fnmatchcase(n, pattern) for n in names):
            raise ConversionError(
                f"pattern {pattern!r} matches no module of the network. {nearest(pattern, filter(None, names))}"
            )


def inspect_modules(
    model: nn.Module,
    hardware_of: Callable[[str, nn.Module], Hardware | None],
    digital: Iterable[str] = (),
) -> Inspection:
    """Decide on each module of ``model``; ``digital``: patterns of modules that are digital on request."""
    keep = tuple(digital)
    rows: list[Row] = []
    covered: list[str] = []
    seen: dict[int, str] = {}
    for name, module in model.named_modules(remove_duplicate=False):
        if any(name.startswith(prefix + ".") or prefix == "" for prefix in covered):
            continue
        if any(fnmatchcase(name, p) for p in keep):
            count = _count(module)
            rows.append(Row(name, type(module).__name__, "digital", "on request", parameters=count))
            covered.append(name)
            continue
        if id(module) in seen and next(module.parameters(), None) is not None:
            rows.append(Row(name, type(module).__name__, "analog", f"the same module as {seen[id(module)]!r}"))
            covered.append(name)
            continue
        seen[id(module)] = name
        row, whole = _decide(name, module, hardware_of)
        rows.append(row)
        if whole:
            covered.append(name)
            continue
        rows.extend(_bare_parameters(name, module, row))
    return Inspection(tuple(rows))


def _count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters() if not nn.parameter.is_lazy(p))


def _decide(name: str, module: nn.Module, hardware_of: Callable[[str, nn.Module], Hardware | None]) -> tuple[Row, bool]:
    """The row of one module, and whether it covers the module's children and parameters too."""
    kind = type(module).__name__
    count = _count(module)
    if isinstance(module, AnalogLayer):
        return Row(name, kind, "refused", "already converted", "convert the digital network", parameters=count), True
    why_not = refusal(module)
    builder = analog_builder(module)
    if why_not is not None or builder is not None:
        hw = hardware_of(name, module)
        if hw is None:
            return Row(name, kind, "digital", "not selected by where=", parameters=count), True
        if why_not is not None:
            reason, way_out = why_not
            return Row(name, kind, "refused", reason, f"{way_out}, or digital=[{name!r}]", parameters=count), True
        problem = _misfit(module, name, hw)
        if problem:
            return Row(name, kind, "refused", problem, f"digital=[{name!r}]", hw.name, count), True
        parent = mapped_parent(module)
        note = "" if parent is None else f" (a subclass of nn.{parent.__name__} that keeps its forward)"
        return Row(name, kind, "analog", f"on {hw.name}{note}", hardware=hw.name, parameters=count), True
    parent = mapped_parent(module)
    if parent is not None:
        reason = f"a subclass of nn.{parent.__name__} with a forward of its own, which mho cannot see through"
        return Row(name, kind, "refused", reason, f"use nn.{parent.__name__} inside it, or digital=[{name!r}]",
                   parameters=count), True  # fmt: skip
    if type(module) in DIGITAL:
        return Row(name, kind, "digital", DIGITAL[type(module)], parameters=count), True
    if next(module.children(), None) is not None:
        return Row(name, kind, "digital", "container: its own code runs digitally"), False
    if next(module.parameters(recurse=False), None) is None:
        return Row(name, kind, "digital", "no parameters"), True
    return Row(name, kind, "digital", "its own code runs digitally"), False


def _misfit(module: nn.Module, name: str, hw: Hardware) -> str:
    """Why a module of a mapped type does not fit its hardware, or nothing."""
    builder = analog_builder(module)
    assert builder is not None
    from mho.nn.surrogate import Surrogate

    try:
        builder(module, name, Policy(hw), Surrogate())
    except ConversionError as error:
        return str(error)
    return ""


def _bare_parameters(name: str, module: nn.Module, row: Row) -> Iterable[Row]:
    """Parameters that a module of unknown type owns itself and uses in code of its own."""
    for key, parameter in module.named_parameters(recurse=False):
        full = f"{name}.{key}" if name else key
        if parameter.dim() == 2 and min(parameter.shape) > 1:
            yield Row(
                full,
                "Parameter",
                "refused",
                f"a bare matrix {tuple(parameter.shape)} that {type(module).__name__}.forward uses by itself",
                f"put it into an nn.Linear, or keep it digital: digital=[{name!r}]",
                parameters=parameter.numel(),
            )
        else:
            yield Row(
                full,
                "Parameter",
                "digital",
                f"a bare parameter {tuple(parameter.shape)}; a matrix product with it is refused at the first forward",
                parameters=parameter.numel(),
            )
