"""Raw files: round trips of every kind, and no cut or wild file gets through. Needs no ngspice."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mho.errors import TransportError
from mho.lab.spice import parse_raw


def raw(values: np.ndarray, *, binary: bool, title: str = "DC transfer characteristic") -> bytes:
    """A file as ngspice 39 writes it; ``values`` [points, variables], real or complex."""
    complex_ = np.iscomplexobj(values)
    points, variables = values.shape
    head = (
        f"Title: * t\nDate: Wed Nov 25 03:54:05  2026\nPlotname: {title}\nFlags: {'complex' if complex_ else 'real'}\n"
        f"No. Variables: {variables}\nNo. Points: {points}\nVariables:\n"
        + "".join(f"\t{k}\tI(vm{k})\tcurrent\n" for k in range(variables))
    )
    if binary:
        return head.encode() + b"Binary:\n" + np.ascontiguousarray(values).tobytes()
    lines = []
    for p in range(points):
        words = [f"{v.real!r},{v.imag!r}" if complex_ else repr(float(v)) for v in values[p].tolist()]
        lines.append(f" {p}\t" + "\n\t".join(words) + "\n")
    return (head + "Values:\n" + "\n".join(lines) + "\n").encode()


REAL = np.random.default_rng(0).normal(size=(3, 2))
COMPLEX = REAL + 1j * REAL[::-1]


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("values", [REAL, COMPLEX], ids=["real", "complex"])
def test_round_trip_to_the_bit(values: np.ndarray, binary: bool) -> None:
    two = raw(values, binary=binary) + raw(values[:1], binary=not binary, title="Noise")
    first, second = parse_raw(two)
    assert np.array_equal(first.values, values)
    assert np.array_equal(second.values, values[:1])
    assert (first.title, second.title) == ("DC transfer characteristic", "Noise")
    assert first.names == ("i(vm0)", "i(vm1)")
    assert np.array_equal(first["I(VM1)"], values[:, 1])


@settings(max_examples=300, deadline=None)
@given(st.data(), st.booleans(), st.booleans())
def test_a_cut_file_is_never_taken_for_a_whole_one(data: st.DataObject, binary: bool, complex_: bool) -> None:
    whole = raw(COMPLEX if complex_ else REAL, binary=binary).rstrip(b"\n") + (b"" if binary else b"\n")
    cut = data.draw(st.integers(0, len(whole) - 1))
    with pytest.raises(TransportError, match="raw file is not whole"):
        parse_raw(whole[:cut])


@settings(max_examples=300, deadline=None)
@given(st.data(), st.booleans())
def test_a_wild_byte_gives_a_file_or_a_clear_error(data: st.DataObject, binary: bool) -> None:
    whole = bytearray(raw(REAL, binary=binary))
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    try:
        plots = parse_raw(bytes(whole))
    except TransportError:
        return
    assert all(plot.values.shape == (len(plot.values), len(plot.names)) for plot in plots)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200))
def test_noise_is_no_file(data: bytes) -> None:
    with pytest.raises(TransportError, match="raw file is not whole"):
        parse_raw(data)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (b"No. Points: 3", b"No. Points: 999999999999", "bytes of numbers, 15999999999984 expected"),
        (b"No. Points: 3", b"No. Points: -3", "'-3', not a count"),
        (b"No. Points: 3\n", b"", "'missing', not a count"),
        (b"No. Variables: 2", b"No. Variables: 3", "3 variables announced, 2 listed"),
        (b"\t1\tI(vm1)", b"\t7\tI(vm1)", "variable 1 reads"),
        (b"Flags: real", b"Flags  real", "header line 'Flags  real'"),
        (b"Binary:\n", b"Bits:\n", "a header without numbers"),
    ],
)
def test_the_error_says_what_is_wrong(old: bytes, new: bytes, words: str) -> None:
    with pytest.raises(TransportError, match=words):
        parse_raw(raw(REAL, binary=True).replace(old, new))


def test_ascii_errors_and_a_missing_variable() -> None:
    text = raw(REAL, binary=False)
    with pytest.raises(TransportError, match="point 1 does not begin with its index"):
        parse_raw(text.replace(b"\n 1\t", b"\n 5\t"))
    with pytest.raises(TransportError, match="is not a number"):
        parse_raw(text.replace(repr(float(REAL[2, 1])).encode(), b"1.0.0"))
    with pytest.raises(TransportError, match=r"no variable 'i\(vm7\)'; it has i\(vm0\), i\(vm1\)"):
        parse_raw(text)[0]["i(vm7)"]
