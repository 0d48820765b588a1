"""Bad clients: each gets a clear error, the chip keeps its bits, the memory of the server stays flat."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import grpc
import pytest
import torch
from small_networks import NOISY

import mho
from mho.errors import DeviceBusyError
from mho.lab import VirtualDevice
from mho.lab.remote import Limits, RemoteDevice, messages, requests
from mho.lab.remote import device_pb2 as pb
from mho.lab.remote.requests import MvmCall, ProgramCall, ReadCall
from mho.lab.remote.tensors import encode

ROWS, COLS = 8, 6
TOKEN = "s3cret-s3cret"
Code = grpc.StatusCode
SERVER = """
import sys
from small_networks import NOISY
from mho.lab import VirtualDevice
from mho.lab.remote import Limits, serve
device = VirtualDevice(NOISY, 3, tiles=2, rows=64, cols=64)
limits = Limits(connections=200, message_bytes=1 << 20, answers_bytes=1 << 20, patience_s=1.0, calls_per_s=1e5)
serve(device, "127.0.0.1:0", token="s3cret-s3cret", limits=limits, ready=lambda a: print(a, flush=True))
"""


@pytest.fixture
def calls(pattern):
    """Good calls, to be spoilt."""
    mvm = MvmCall(0, "m", pattern[1], pattern[2], 1)
    return {"mvm": mvm, "program": ProgramCall(0, "q", pattern[0], None), "read": ReadCall(0)}


@pytest.fixture
def chip(driver, serve, pattern):
    """A served chip with a written tile; at the end nothing may have reached it, and the same bits are read."""
    driver.chip.program(0, pattern[0], operation="p")
    before = driver.chip.read(0)
    yield serve(driver, token=TOKEN, limits=Limits(message_bytes=1 << 17, patience_s=0.5, calls_per_s=40.0, batch=100))
    after = driver.chip.read(0)
    assert driver.counts == {"program": 0, "mvm": 0, "read": 0, "wait": 0}
    assert torch.equal(after.g_uS, before.g_uS) and after.time_s == before.time_s


def spoilt_tensor(t, **changed):
    message = encode(t)
    for name, value in changed.items():
        if name == "shape":
            del message.shape[:]
            message.shape.extend(value)
        else:
            setattr(message, name, value)
    return message


def with_inputs(message, **changed):
    inner = pb.MvmRequest.FromString(message)
    inner.inputs_V.CopyFrom(spoilt_tensor(torch.zeros(40, ROWS), **changed))
    return inner.SerializeToString()


def nan(t):
    t = t.clone()
    t[0, 0] = torch.nan
    return t


MVM, PROGRAM, READ = (
    lambda **c: lambda calls: ("Mvm", requests.mvm_message(replace(calls["mvm"], **c))),
    lambda **c: lambda calls: ("Program", requests.program_message(replace(calls["program"], **c))),
    lambda **c: lambda calls: ("Read", requests.read_message(replace(calls["read"], **c))),
)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda c: ("Mvm", b"\xff" * 50), "50 bytes are no MvmRequest"),
        (lambda c: ("Program", requests.program_message(c["program"])[:-7]), "bytes are no ProgramRequest"),
        (lambda c: ("Program", b""), "version 0 of the protocol"),
        (lambda c: ("Read", messages.ask_message()[:1] + b"\x09"), "version 9 of the protocol"),
        (lambda c: ("Calibrate", b"\x00\x00"), "no Ask"),
        (MVM(inputs_V=torch.zeros(3, ROWS + 1)), r"inputs_V: shape \[3, 9\], expected \[n, 8\]"),
        (MVM(inputs_V=torch.zeros(0, ROWS)), "0 vectors"),
        (MVM(inputs_V=torch.zeros(101, ROWS)), "101 vectors, allowed 1 to 100"),
        (lambda c: MVM(inputs_V=nan(c["mvm"].inputs_V))(c), "inputs_V: 1 of 320 numbers are NaN"),
        (MVM(inputs_V=torch.full((3, ROWS), 1e3)), "inputs_V: 1000 to 1000, allowed"),
        (MVM(full_scale_uA=float("nan")), "full_scale_uA = nan"),
        (MVM(full_scale_uA=-1.0), "full_scale_uA = -1"),
        (MVM(repeats=0), "repeats = 0"),
        (MVM(repeats=10**9), "repeats = 1000000000"),
        (MVM(tile=2), "tile = 2: the device has tiles 0 to 1"),
        (MVM(tile=-1), "tile = -1"),
        (MVM(operation=""), "operation: 0 characters"),
        (MVM(operation="n" * 2000), "operation: 2000 characters"),
        (lambda c: ("Mvm", with_inputs(MVM()(c)[1], shape=(2**50, ROWS))), f"needs {2**55}"),
        (lambda c: ("Mvm", with_inputs(MVM()(c)[1], data=b"123")), "3 bytes"),
        (lambda c: ("Mvm", with_inputs(MVM()(c)[1], dtype=9)), "dtype number 9"),
        (lambda c: PROGRAM(targets_uS=nan(c["program"].targets_uS))(c), "targets_uS: 1 of 48 numbers are NaN"),
        (PROGRAM(targets_uS=torch.full((ROWS, COLS), -1e4)), "targets_uS: -10000 to -10000, allowed"),
        (PROGRAM(targets_uS=torch.zeros(COLS, ROWS)), r"targets_uS: shape \[6, 8\]"),
        (PROGRAM(mask=torch.ones(1, 1, dtype=torch.bool)), r"mask: shape \[1, 1\]"),
        (READ(tile=2**40), "tile = 1099511627776"),
        (lambda c: ("Wait", requests.wait_message(1e12)), "allowed 3.2e.08 in one call"),
        (lambda c: ("Wait", requests.wait_message(float("nan"))), "nan s is no time"),
        (lambda c: ("Wait", requests.wait_message(1.0)[:-3]), "no WaitRequest"),
    ],
)
def test_what_a_client_may_not_send(chip, raw, calls, spoil, words):
    method, message = spoil(calls)
    code, details, kind = raw(chip, token=TOKEN).send(method, message)
    assert (code, kind) == (Code.INVALID_ARGUMENT, "RangeError")
    assert re.search(words, details), details
    assert "Fix: " in details


def test_an_oversized_message(chip, raw):
    code, details, _ = raw(chip, token=TOKEN).send("Program", bytes(1 << 18))
    assert code is Code.RESOURCE_EXHAUSTED
    assert "Received message larger than max (262144 vs. 131072)" in details


def test_a_call_without_a_message(chip, raw):
    code, details, _ = raw(chip, token=TOKEN).send("Read")
    assert (code, details) == (Code.INVALID_ARGUMENT, "a call without a message. Fix: send one.")


def test_a_method_that_does_not_exist(chip, raw):
    assert raw(chip, token=TOKEN).send("Explode", b"")[0] is Code.UNIMPLEMENTED


@pytest.mark.parametrize("token", [None, "", "wrong", TOKEN + "x"])
@pytest.mark.parametrize(
    "method", ["Describe", "Hold", "Program", "Read", "Mvm", "Calibrate", "Health", "Wait", "Release"]
)
def test_a_wrong_token_opens_nothing(chip, raw, method, token):
    code, details, kind = raw(chip, token=token).send(method, messages.ask_message())
    assert (code, kind) == (Code.UNAUTHENTICATED, "RangeError")
    assert "wrong or no token" in details and TOKEN not in details


def test_a_wrong_token_is_refused_before_the_message_is_read(chip, raw):
    """The refusal comes while the message still has not: nobody spends memory on strangers."""

    def never():
        time.sleep(2.0)
        yield b""

    client = raw(chip, token="wrong")
    began = time.monotonic()
    call = client.channel.stream_stream("/mho.lab.v1.Device/Program")(never(), metadata=client.metadata)
    with pytest.raises(grpc.RpcError) as refused:
        next(call)
    assert refused.value.code() is Code.UNAUTHENTICATED
    assert time.monotonic() - began < 1.5


@pytest.mark.parametrize("name", [None, "", "c" * 129])
def test_a_client_without_a_name(chip, raw, name):
    code, details, _ = raw(chip, name, token=TOKEN).send("Describe", messages.ask_message())
    assert code is Code.INVALID_ARGUMENT and "metadata mho-client" in details


def test_a_slow_client_is_cut_off(chip, raw):
    """A stream that is opened and then says nothing."""

    def slow():
        time.sleep(2.0)
        yield b""

    client = raw(chip, token=TOKEN)
    call = client.channel.stream_stream("/mho.lab.v1.Device/Mvm")(slow(), metadata=client.metadata)
    with pytest.raises(grpc.RpcError, match=r"no message for 0.5 s") as cut:
        next(call)
    assert cut.value.code() is Code.DEADLINE_EXCEEDED


def test_too_many_calls_a_second(chip, raw):
    client = raw(chip, token=TOKEN)
    found = [client.send("Describe", messages.ask_message()) for _ in range(100)]
    refused = [words for code, words, kind in found if code is Code.RESOURCE_EXHAUSTED and kind == "TransportError"]
    served = sum(code is None for code, _, _ in found)
    assert served + len(refused) == 100
    assert served >= 40
    assert refused and "more than 40 calls a second. Way out: wait 0." in refused[0]


def test_others_do_not_use_up_the_rate_of_the_holder(chip, raw):
    holder, other = raw(chip, "holder", token=TOKEN), raw(chip, "other", token=TOKEN)
    assert holder.send("Calibrate", messages.ask_message())[0] is None
    codes = {other.send("Describe", messages.ask_message())[0] for _ in range(100)}
    assert Code.RESOURCE_EXHAUSTED in codes
    assert holder.send("Describe", messages.ask_message())[0] is None
    code, words, kind = other.send("Calibrate", messages.ask_message())
    assert (code, kind) == (Code.ABORTED, "DeviceBusyError")
    assert "another client (holder)" in words


def test_a_client_without_a_line_holds_the_device_until_it_lets_go(chip, raw):
    ask = messages.ask_message()
    one, other = raw(chip, "one", token=TOKEN), raw(chip, "other", token=TOKEN)
    assert one.send("Calibrate", ask)[0] is None
    assert other.send("Release", ask)[0] is None  # nothing to let go of
    assert other.send("Calibrate", ask)[2] == "DeviceBusyError"
    assert one.send("Release", ask)[0] is None
    assert other.send("Calibrate", ask)[0] is None


def test_more_streams_than_allowed(driver, serve, raw):
    server = serve(driver, limits=Limits(streams=4))
    client = raw(server)
    lines = [
        client.channel.stream_stream("/mho.lab.v1.Device/Hold")(
            iter([messages.ask_message()]), metadata=client.metadata
        )
        for _ in range(4)
    ]
    for line in lines:
        next(line)
    others = raw(server, "other")
    code, words, _ = others.send("Describe", messages.ask_message())
    assert code is Code.RESOURCE_EXHAUSTED and "oncurrent RPC" in words
    lines[0].cancel()
    end = time.monotonic() + 5
    while others.send("Describe", messages.ask_message())[0] is not None:
        assert time.monotonic() < end
        time.sleep(0.05)


def test_an_answer_that_nobody_takes(driver, serve, raw, pattern):
    """A client that asks and does not read: the server gives up after its patience, and serves the next one."""
    driver.chip.program(0, pattern[0], operation="p")
    driver.changes = {"max_repeats": 2000}
    server = serve(driver, limits=Limits(patience_s=0.5, idle_s=0.5))
    ask = [
        requests.mvm_message(MvmCall(0, f"m{k}", pattern[1], pattern[2], 1000)) for k in range(20)
    ]  # 1.2 MB each to be taken
    client = raw(server, options=[("grpc.http2.lookahead_bytes", 65535), ("grpc.http2.bdp_probe", 0)])
    call = client.channel.stream_stream("/mho.lab.v1.Device/Mvm")(iter(ask), metadata=client.metadata)
    time.sleep(2.0)
    # The others need not wait for it: its lease ages, and the device is free.
    assert driver.counts["mvm"] < 20
    with RemoteDevice(server.address) as next_one:
        next_one.read(0)
    got = []
    with pytest.raises(grpc.RpcError, match=r"the answer was not taken for 0.5 s"):
        got.extend(call)
    assert len(got) < 20


# A server in a process of its own


@pytest.fixture
def process():
    """(address, process) of a server of its own, with small limits."""
    paths = [str(Path(mho.__file__).parents[1]), str(Path(__file__).parents[2] / "helpers")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
    server = subprocess.Popen([sys.executable, "-c", SERVER], stdout=subprocess.PIPE, text=True, env=environment)
    try:
        yield server.stdout.readline().strip(), server
    finally:
        server.kill()
        server.wait()
        server.stdout.close()


def resident_MB(process):
    pages = int(Path(f"/proc/{process.pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def written(address):
    """A client that holds the device and has written tile 0."""
    client = RemoteDevice(address, token=TOKEN, timeout_s=30.0)
    can = client.capabilities()
    client.program(0, torch.full((can.rows, can.cols), can.g_max_uS / 2), operation="p")
    return client, can


def assert_unharmed(client, can):
    """The tile gives the bits of a chip that nobody has bothered, and was written once."""
    untouched = VirtualDevice(NOISY, 3, tiles=2, rows=64, cols=64)
    targets = torch.full((can.rows, can.cols), can.g_max_uS / 2)
    untouched.program(0, targets, operation="p")
    x = torch.full((4, can.rows), can.v_max_V / 2)
    here, there = (d.mvm(0, x, operation="probe", full_scale_uA=can.i_max_uA, repeats=2) for d in (untouched, client))
    assert torch.equal(here.currents_uA, there.currents_uA)
    assert client.program(0, targets, operation="p").repeated
    assert client.health().programmed_tiles == (0,)


def test_a_client_that_is_killed_frees_the_device(process):
    address, _ = process
    code = (
        f"import sys; sys.argv = []\nfrom mho.lab.remote import RemoteDevice\nd = RemoteDevice({address!r}, "
        f"token={TOKEN!r})\nd.calibrate()\nprint('holding', flush=True)\nimport time\ntime.sleep(60)"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(mho.__file__).parents[1])}
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=environment) as holder:
        assert holder.stdout.readline() == "holding\n"
        with RemoteDevice(address, token=TOKEN) as heir:
            with pytest.raises(DeviceBusyError):
                heir.calibrate()
            holder.send_signal(signal.SIGKILL)
            end = time.monotonic() + 5
            while True:
                try:
                    heir.calibrate()
                    break
                except DeviceBusyError:
                    assert time.monotonic() < end
                    time.sleep(0.05)


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="resident memory is read from /proc")
def test_a_thousand_connections(process):
    """Bounded: those beyond the limit are closed, the holder works on, and the memory stays flat."""
    address, server = process
    host, port = address.removeprefix("grpc://").split(":")
    client, can = written(address)
    x = torch.full((4, can.rows), can.v_max_V / 2)
    base_MB = resident_MB(server)
    lines = []
    try:
        for k in range(1000):
            line = socket.create_connection((host, int(port)), timeout=10)
            line.settimeout(0.01)
            if k % 2:
                line.sendall(b"GET / HTTP/1.1\r\n\r\n" if k % 4 == 1 else bytes(range(256)))
            lines.append(line)
            if k % 100 == 0:
                client.mvm(0, x, operation=f"m{k}", full_scale_uA=can.i_max_uA)
    except OSError:  # closed while we write to it: just what is asked for
        assert len(lines) >= 1
    peak_MB = resident_MB(server)
    assert_unharmed(client, can)
    time.sleep(1.5)  # beyond the patience: lines that do not speak the protocol are closed
    still_open = sum(_open(line) for line in lines)
    for line in lines:
        line.close()
    assert still_open == 0
    with RemoteDevice(address, token=TOKEN) as late:  # there is room again
        assert late.health().ok
    print(f"resident memory: {base_MB:.1f} MB, {peak_MB:.1f} MB with {len(lines)} connections tried")
    assert peak_MB - base_MB < 30
    client.close()


def _open(line):
    try:
        while line.recv(4096):
            pass
    except TimeoutError:
        return True
    except OSError:
        return False
    return False


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="resident memory is read from /proc")
def test_memory_stays_flat_and_the_chip_unharmed_under_bad_messages(process):
    """Oversized, malformed, claimed sizes, NaN, strangers, clients that vanish: again and again."""
    address, server = process
    client, can = written(address)
    own = client._metadata
    zeros = torch.zeros(200, can.rows)
    claims = requests.mvm_message(MvmCall(0, "m", zeros, can.i_max_uA, 1))
    huge = pb.MvmRequest.FromString(claims)
    huge.inputs_V.shape[0] = 2**40
    bad = [
        bytes(3 << 20),
        b"\xff" * 900_000,
        claims[:-1],
        huge.SerializeToString(),
        requests.mvm_message(MvmCall(0, "m", torch.full((200, can.rows), torch.nan), can.i_max_uA, 1)),
        requests.program_message(ProgramCall(0, "q", torch.full((can.rows, can.cols), 1e9), None)),
    ]
    strangers = [("mho-client", "stranger"), ("authorization", "Bearer no")]

    def storm(rounds):
        for k in range(rounds):
            with grpc.insecure_channel(address.removeprefix("grpc://"), [("grpc.use_local_subchannel_pool", 1)]) as c:
                for message in bad:
                    for who in (own, strangers):
                        for method in ("Mvm", "Program"):
                            call = c.stream_stream(f"/mho.lab.v1.Device/{method}")
                            with pytest.raises(grpc.RpcError):
                                list(call(iter([message]), metadata=who, timeout=20))
                # One that vanishes within its call.
                c.stream_stream("/mho.lab.v1.Device/Mvm")(iter([claims] * (1 + k % 3)), metadata=own)

    storm(3)
    warm_MB = resident_MB(server)
    storm(6)
    grown_MB = resident_MB(server) - warm_MB
    print(f"resident memory: {warm_MB:.1f} MB after 72 bad calls, {grown_MB:+.1f} MB after 144 more")
    assert grown_MB < 15
    assert_unharmed(client, can)
    client.close()
