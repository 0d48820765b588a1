"""IEEE 488.2 blocks: what was encoded comes back, and nothing else is taken for a block."""

import struct

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mho.errors import RangeError, TransportError
from mho.lab.scpi.blocks import decode_floats, encode_block, encode_floats, read_block


def parse_block(message: bytes) -> tuple[bytes, bytes]:
    """Payload of the block at the beginning of ``message``, and what is behind it."""
    at = 0

    def read(count: int) -> bytes:
        nonlocal at
        piece = message[at : at + count]
        at += count
        return piece

    payload = read_block(read, len(message))
    return payload, message[at:]


def test_the_published_form() -> None:
    assert encode_block(b"abc") == b"#13abc"
    assert encode_block(bytes(100)) == b"#3100" + bytes(100)
    assert parse_block(b"#13abc\n") == (b"abc", b"\n")
    assert parse_block(b"#210" + b"0123456789" + b";*OPC?") == (b"0123456789", b";*OPC?")
    assert parse_block(b"#10") == (b"", b"")
    assert parse_block(b"#9000000002\n\n") == (b"\n\n", b"")


@given(payload=st.binary(max_size=3000), rest=st.binary(max_size=20))
def test_round_trip_of_any_bytes(payload: bytes, rest: bytes) -> None:
    assert parse_block(encode_block(payload) + rest) == (payload, rest)


@given(message=st.one_of(st.binary(max_size=40), st.binary(max_size=20).map(lambda b: b"#" + b)))
def test_any_bytes_are_a_block_or_an_error(message: bytes) -> None:
    try:
        payload, rest = parse_block(message)
    except TransportError:
        return
    digits = int(message[1:2])
    assert digits > 0
    assert int(message[2 : 2 + digits]) == len(payload)
    assert message == message[: 2 + digits] + payload + rest


@given(payload=st.binary(min_size=1, max_size=200), data=st.data())
def test_a_block_that_breaks_off_is_an_error_wherever_it_does(payload: bytes, data) -> None:
    whole = encode_block(payload)
    with pytest.raises(TransportError):
        parse_block(whole[: data.draw(st.integers(0, len(whole) - 1))])


@pytest.mark.parametrize(
    ("message", "words"),
    [
        (b"", "broke off: 0 of 2 bytes"),
        (b"1.5E-6\n", "starts with # and a digit"),
        (b"#x3abc", "starts with # and a digit"),
        (b"#0abc\n", "indefinite"),
        (b"#2a3abc", "2 digits of a length were announced"),
        (b"#1-abc", "1 digits of a length were announced"),
        (b"#9999999999abc", "at most 14 bytes were asked for"),
        (b"#14abc", "broke off: 3 of 4 bytes"),
    ],
)
def test_what_is_no_block(message: bytes, words: str) -> None:
    with pytest.raises(TransportError, match=words) as caught:
        parse_block(message)
    assert "Fix:" in str(caught.value)


def test_a_block_too_long_for_its_length() -> None:
    class Long(bytes):
        def __len__(self) -> int:
            return 10**9

    with pytest.raises(RangeError, match="more than 9 digits"):
        encode_block(Long())


@given(st.lists(st.floats(width=32, allow_nan=False), max_size=50), st.sampled_from(["big", "little"]))
def test_floats_in_both_orders(values: list[float], order) -> None:
    payload, rest = parse_block(encode_floats(torch.tensor(values), order))
    assert not rest
    assert payload == struct.pack(f"{'>' if order == 'big' else '<'}{len(values)}f", *values)
    assert decode_floats(payload, len(values), order).tolist() == values
    with pytest.raises(TransportError, match=f"expected {len(values) + 1} floats"):
        decode_floats(payload, len(values) + 1, order)
