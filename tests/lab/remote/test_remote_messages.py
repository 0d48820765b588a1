"""Messages: what goes in comes out to the bit, and bytes of anybody are read or refused, never worse."""

import math
import time
import tracemalloc
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mho.errors import RangeError
from mho.lab import Calibration, Capabilities, Conductances, Health, ProgramReport, Readout
from mho.lab.remote import device_pb2 as pb
from mho.lab.remote import messages, replies, requests
from mho.lab.remote.tensors import decode, encode

CAN = Capabilities(
    vendor="v", model="m", serial="s", tiles=3, rows=4, cols=5, g_max_uS=10.0, v_max_V=0.2, i_min_uA=1.0, i_max_uA=9.0
)
FUZZ_S = 5.0
MVM = requests.MvmCall(0, "m", torch.zeros(2, 4), 2.0, 3)
READERS = {
    "ask": messages.read_ask,
    "description": replies.read_description,
    "program": lambda raw: requests.read_program(raw, CAN),
    "read": requests.read_read,
    "wait": requests.read_wait,
    "mvm": lambda raw: requests.read_mvm(raw, CAN),
    "program reply": lambda raw: replies.read_program(raw, CAN),
    "read reply": lambda raw: replies.read_conductances(raw, CAN),
    "mvm reply": lambda raw: replies.read_mvm(raw, MVM, CAN),
    "calibration": replies.read_calibration,
    "health": replies.read_health,
}


def same(a, b):
    """Equal to the bit, NaN and minus zero included."""
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and a.shape == b.shape and encode(a).data == encode(b).data
    return a == b


def all_same(a, b):
    return vars(a).keys() == vars(b).keys() and all(same(v, vars(b)[k]) for k, v in vars(a).items())


numbers = st.floats(width=32, allow_nan=True, allow_infinity=True)
doubles = st.floats(allow_nan=False)
maybe = st.none() | doubles


def floats(*shape):
    n = math.prod(shape)
    return st.lists(numbers, min_size=n, max_size=n).map(lambda v: torch.tensor(v, dtype=torch.float32).reshape(shape))


def bools(*shape):
    n = math.prod(shape)
    return st.lists(st.booleans(), min_size=n, max_size=n).map(lambda v: torch.tensor(v).reshape(shape))


@given(floats(4, 5), bools(4, 5), st.booleans(), st.text(min_size=1, max_size=9), st.integers(-3, 9))
@settings(max_examples=50, deadline=None)
def test_requests_come_out_as_they_went_in(values, mask, masked, name, tile):
    call = requests.ProgramCall(tile, name, values, mask if masked else None, "x")
    assert all_same(requests.read_program(requests.program_message(call), CAN), call)
    product = requests.MvmCall(tile, name, values[:, :4].contiguous(), 2.5, 7, name)
    assert all_same(requests.read_mvm(requests.mvm_message(product), CAN), product)
    assert all_same(
        requests.read_read(requests.read_message(requests.ReadCall(tile, name))), requests.ReadCall(tile, name)
    )
    assert requests.read_wait(requests.wait_message(0.1 + tile)) == 0.1 + tile


@given(floats(3, 2, 5), bools(3, 2, 5), floats(4, 5), bools(4, 5), maybe, maybe, doubles, st.booleans())
@settings(max_examples=50, deadline=None)
def test_answers_come_out_as_they_went_in(currents, valid, g_uS, cells, one, other, time_s, flag):
    readout = Readout("m", currents, valid, time_s, one, ("warm",) if flag else ())
    assert all_same(replies.read_mvm(replies.mvm_reply(readout), MVM, CAN), readout)
    report = ProgramReport("p", g_uS if flag else None, cells.to(torch.uint8), 7 if flag else None, one, time_s, flag)
    assert all_same(replies.read_program(replies.program_reply(report), CAN), report)
    assert replies.read_program(replies.as_repeated(replies.program_reply(report)), CAN).repeated
    found = Conductances(g_uS, cells, time_s)
    assert all_same(replies.read_conductances(replies.conductances_reply(found), CAN), found)
    done = Calibration(identity="c", time_s=time_s, temperature_K=one, residual=other, values={"gain": time_s})
    assert replies.read_calibration(replies.calibration_reply(done)) == done
    health = Health(ok=flag, boot="b", time_s=time_s, programmed_tiles=(1, 2), dead_rows=((0, 3),), message="hot")
    assert replies.read_health(replies.health_reply(health)) == health


@pytest.mark.parametrize(
    "changed",
    [{}, {"signed": True}, {"input_bits": 8, "output_bits": 6}, {"coding": "bit-serial"}, {"max_wait_s": 3.5}],
)
def test_capabilities_come_out_as_they_went_in(changed):
    can = replace(CAN, **changed)
    assert replies.read_description(replies.description_reply(can, 77)) == (can, 77)


def test_bytes_are_little_endian_with_the_last_index_fastest():
    assert encode(torch.tensor([[1.0, -2.0]])).data == bytes.fromhex("0000803f000000c0")
    assert (
        encode(torch.tensor([[1.0, 2.0], [3.0, 4.0]]).t()).data == encode(torch.tensor([[1.0, 3.0], [2.0, 4.0]])).data
    )
    assert encode(torch.tensor([True, False])).data == b"\1\0"


def test_a_tensor_that_came_can_be_written_to_and_shares_nothing():
    message = encode(torch.zeros(2, 2))
    first = decode(message, torch.float32, (2, 2), "t")
    first += 1.0
    assert torch.equal(decode(message, torch.float32, (2, 2), "t"), torch.zeros(2, 2))


def tensor(dtype=pb.Tensor.FLOAT32, shape=(2, 4), size=32, data=None):
    return pb.Tensor(dtype=dtype, shape=shape, data=bytes(size) if data is None else data)


@pytest.mark.parametrize(
    ("message", "words"),
    [
        (tensor(size=31), r"31 bytes, shape \[2, 4\] of torch.float32 needs 32"),
        (tensor(size=33), "33 bytes"),
        (tensor(shape=(2, 5), size=40), r"shape \[2, 5\], expected \[n, 4\]"),
        (tensor(shape=(8,)), r"shape \[8\], expected"),
        (tensor(shape=(1,) * 9, size=4), "shape of 9 dimensions"),
        (tensor(dtype=pb.Tensor.UINT8), "dtype number 2, expected torch.float32"),
        (tensor(dtype=17), "dtype number 17"),
        (tensor(shape=(2**62, 4)), f"needs {2**66}"),
        (pb.Tensor(), "dtype number 0"),
    ],
)
def test_a_tensor_that_does_not_fit_is_refused(message, words):
    with pytest.raises(RangeError, match=words):
        decode(message, torch.float32, (None, 4), "inputs_V")


def test_a_bool_is_0_or_1():
    with pytest.raises(RangeError, match="a bool of 2"):
        decode(tensor(dtype=pb.Tensor.BOOL, shape=(2,), data=b"\1\2"), torch.bool, (2,), "mask")


def test_a_size_that_is_claimed_is_not_allocated():
    claims = tensor(shape=(2**40, 4), size=16)
    tracemalloc.start()
    with pytest.raises(RangeError, match="16 bytes"):
        decode(claims, torch.float32, (None, 4), "inputs_V")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100_000


@pytest.mark.parametrize("name", ["", "n" * 1025])
def test_a_name_of_no_size_is_refused(name):
    with pytest.raises(RangeError, match=f"operation: {len(name)} characters"):
        requests.read_mvm(requests.mvm_message(replace(MVM, operation=name)), CAN)


def test_another_version_is_refused_in_words():
    with pytest.raises(RangeError, match=r"Ask: version 2 of the protocol, this side speaks 1. Fix: install"):
        messages.read_ask(pb.Ask(version=2).SerializeToString())
    with pytest.raises(RangeError, match="version 0"):
        requests.read_mvm(b"", CAN)


def test_an_answer_to_another_question_is_refused():
    answer = Readout("other", torch.zeros(3, 2, 5), torch.ones(3, 2, 5, dtype=torch.bool))
    with pytest.raises(RangeError, match="an answer to operation 'other', asked was 'm'"):
        replies.read_mvm(replies.mvm_reply(answer), MVM, CAN)


def read_or_refuse(reader, raw):
    """Whether the bytes were read. Anything but an answer or a RangeError ends the test."""
    try:
        reader(raw)
    except RangeError:
        return False
    return True


@given(st.sampled_from(sorted(READERS)), st.binary(max_size=400))
@settings(max_examples=1000, deadline=None)
def test_random_bytes_are_read_or_refused(which, raw):
    read_or_refuse(READERS[which], raw)


def test_whole_messages_with_broken_bytes_are_read_or_refused():
    """For a bounded time: bytes of true messages changed, cut, doubled, and given to every reader."""
    readout = Readout("m", torch.ones(3, 2, 5), torch.ones(3, 2, 5, dtype=torch.bool), flags=("warm",))
    report = ProgramReport("p", torch.ones(4, 5), torch.zeros(4, 5, dtype=torch.uint8), 3, 1.0)
    seeds = [
        messages.ask_message(),
        replies.description_reply(CAN, 100),
        requests.program_message(requests.ProgramCall(1, "p", torch.ones(4, 5), torch.ones(4, 5, dtype=torch.bool))),
        requests.mvm_message(MVM),
        requests.read_message(requests.ReadCall(1, "p")),
        replies.mvm_reply(readout),
        replies.program_reply(report),
        replies.conductances_reply(Conductances(torch.ones(4, 5), torch.ones(4, 5, dtype=torch.bool))),
        replies.calibration_reply(Calibration(identity="c", time_s=1.0, values={"a": 1.0})),
        replies.health_reply(Health(ok=True, boot="b", dead_rows=((1, 2),))),
    ]
    make = torch.Generator().manual_seed(0)
    readers = list(READERS.values())
    read = refused = 0
    until = time.monotonic() + FUZZ_S
    while time.monotonic() < until or read + refused < 2000:
        draws = torch.randint(0, 2**31, (8,), generator=make).tolist()
        seed = seeds[draws[0] % len(seeds)]
        raw = bytearray(seed)
        for k in range(draws[1] % 4):
            raw[draws[2 + k] % len(raw)] = draws[5] >> 8 * k & 255
        if draws[6] % 3 == 0:
            raw = raw[: draws[7] % len(raw)]
        elif draws[6] % 3 == 1:
            at = draws[7] % len(raw)
            raw = raw[:at] + raw[at // 2 :]
        if read_or_refuse(readers[draws[3] % len(readers)], bytes(raw)):
            read += 1
        else:
            refused += 1
    assert read > 100
    assert refused > 1000
