"""ngspice's raw files, binary and ASCII: bytes in, plots out. A pure function.

A file is a row of plots; each is a header of ``Key: value`` lines, the list of its variables, and then float64
numbers point by point (pairs of them where ``Flags: complex``), binary in the machine's order, or as text.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mho.errors import TransportError

Numbers = npt.NDArray[np.float64] | npt.NDArray[np.complex128]
_BINARY, _ASCII = b"Binary:\n", b"Values:\n"


@dataclass(frozen=True, eq=False)
class Plot:
    """One analysis: ``values`` [points, variables], float64 or complex128, under ``names`` in lower case."""

    title: str
    names: tuple[str, ...]
    values: Numbers

    def __getitem__(self, name: str) -> Numbers:
        """The column of ``name``; :class:`~mho.errors.TransportError` if the file has none."""
        if name.lower() not in self.names:
            raise _broken(f"no variable {name!r}; it has {', '.join(self.names)}")
        return self.values[:, self.names.index(name.lower())]


def _broken(cause: str) -> TransportError:
    return TransportError(f"spice: the raw file is not whole: {cause}. Fix: run again; look at free disk space.")


def _count(header: dict[str, str], key: str) -> int:
    text = header.get(key, "missing")
    if not (text.isascii() and text.isdigit()) or len(text) > 12:
        raise _broken(f"{key!r} is {text!r}, not a count")
    return int(text)


def _header(text: bytes) -> tuple[dict[str, str], tuple[str, ...]]:
    """Keys in lower case, and the names of the variables."""
    lines = text.decode("utf-8", "replace").splitlines()
    header: dict[str, str] = {}
    names: list[str] = []
    listing = False
    for line in lines:
        if listing:
            parts = line.split()
            if len(parts) < 3 or parts[0] != str(len(names)):
                raise _broken(f"variable {len(names)} reads {line!r}")
            names.append(parts[1].lower())
            continue
        key, colon, value = line.partition(":")
        if not colon:
            raise _broken(f"header line {line[:60]!r}")
        listing = key.lower() == "variables"
        header[key.lower()] = value.strip()
    return header, tuple(names)


def _binary(data: bytes, start: int, count: int) -> tuple[npt.NDArray[np.float64], int]:
    end = start + 8 * count
    if end > len(data):
        raise _broken(f"{len(data) - start} bytes of numbers, {8 * count} expected")
    return np.frombuffer(data, np.float64, count, start).copy(), end


def _ascii(data: bytes, start: int, points: int, variables: int, numbers: int) -> tuple[npt.NDArray[np.float64], int]:
    """``numbers`` is 2 where values are complex, written ``re,im``; each point begins with its index."""
    found: list[float] = []
    end = start
    for point in range(points):
        for variable in range(variables):
            words, end = _next_line(data, end)
            if variable == 0:
                if not words or words[0] != str(point).encode():
                    raise _broken(f"point {point} does not begin with its index")
                words = words[1:]
            parts = b"".join(words).split(b",")
            try:
                found += [float(part) for part in parts]
            except ValueError:
                raise _broken(f"point {point}: {b' '.join(words)[:60]!r} is not a number") from None
            if len(parts) != numbers:
                raise _broken(f"point {point}: {len(parts)} numbers where {numbers} belong")
    # A blank line stands between plots.
    while data[end : end + 1] in (b"\n", b"\r"):
        end += 1
    return np.asarray(found, np.float64), end


def _next_line(data: bytes, start: int) -> tuple[list[bytes], int]:
    """Words of the next line that is not blank, and where the one after it begins."""
    while start < len(data):
        stop = data.find(b"\n", start)
        if stop < 0:
            break
        words = data[start:stop].split()
        start = stop + 1
        if words:
            return words, start
    raise _broken("it ends in the middle of its numbers")


def _plot(data: bytes, start: int) -> tuple[Plot, int]:
    marks = [(at, mark) for mark in (_BINARY, _ASCII) if (at := data.find(b"\n" + mark, start)) >= 0]
    if not marks:
        raise _broken("a header without numbers")
    at, mark = min(marks)
    header, names = _header(data[start:at])
    points, variables = _count(header, "no. points"), _count(header, "no. variables")
    if len(names) != variables or not names:
        raise _broken(f"{variables} variables announced, {len(names)} listed")
    complex_ = "complex" in header.get("flags", "").lower().split()
    numbers = 2 if complex_ else 1
    body = at + 1 + len(mark)
    if mark == _BINARY:
        flat, end = _binary(data, body, points * variables * numbers)
    else:
        flat, end = _ascii(data, body, points, variables, numbers)
    values: Numbers = flat.view(np.complex128) if complex_ else flat
    return Plot(header.get("plotname", ""), names, values.reshape(points, variables)), end


def parse_raw(data: bytes) -> tuple[Plot, ...]:
    """All plots of a raw file; :class:`~mho.errors.TransportError` where it is cut or malformed."""
    plots: list[Plot] = []
    at = 0
    while at < len(data):
        plot, at = _plot(data, at)
        plots.append(plot)
    if not plots:
        raise _broken("it is empty")
    return tuple(plots)
