"""A served device is the device: the same bits, the same errors, one client at a time, each operation once."""

import subprocess
import threading
import time

import grpc
import pytest
import torch
from grpc_health.v1 import health_pb2

from mho.errors import BudgetError, DataError, DeviceBusyError, DeviceFault, RangeError, TransportError
from mho.lab import Device, NotProgrammed
from mho.lab.remote import DeviceServer, Limits, RemoteDevice, TlsFiles, requests
from mho.lab.remote import serve as serve_for_ever

ROWS, COLS = 8, 6


def programmed(client, pattern, operation="p"):
    client.program(0, pattern[0], operation=operation)
    return client


def ask(client, pattern, operation, n=40, **options):
    return client.mvm(0, pattern[1][:n], operation=operation, full_scale_uA=pattern[2], **options)


def until(condition, limit_s=10.0):
    """Wait until a condition holds; the test fails if it never does."""
    end = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < end, "it never came to hold"
        time.sleep(0.01)


def test_every_answer_has_the_bits_of_the_same_call_in_process(driver, serve, connect, pattern):
    near = type(driver)()
    far = connect(serve(driver))
    assert isinstance(far, Device)
    assert far.capabilities() == near.capabilities()
    for device in (near, far):
        programmed(device, pattern)
    mask = torch.zeros(ROWS, COLS, dtype=torch.bool)
    mask[2] = True
    again = [d.program(0, -pattern[0], operation="q", mask=mask) for d in (near, far)]
    reads = [d.read(0) for d in (near, far)]
    products = [ask(d, pattern, "m", repeats=3) for d in (near, far)]
    for ours, theirs in (again, reads, products):
        for name, value in vars(ours).items():
            other = getattr(theirs, name)
            assert torch.equal(value, other) if isinstance(value, torch.Tensor) else value == other, name
    assert products[0].currents_uA.shape == (3, 40, COLS)
    assert near.health() == far.health()
    assert near.calibrate() == far.calibrate()


def test_a_large_batch_is_streamed_as_calls_of_their_own(driver, serve, connect, pattern):
    far = programmed(connect(serve(driver), chunk_bytes=16 * 4 * ROWS), pattern)
    found = ask(far, pattern, "m")
    near = programmed(type(driver)(), pattern)
    parts = [
        near.mvm(0, part, operation=f"m/{k}", full_scale_uA=pattern[2]) for k, part in enumerate(pattern[1].split(16))
    ]
    assert driver.counts["mvm"] == 3
    assert torch.equal(found.currents_uA, torch.cat([p.currents_uA for p in parts], 1))
    assert (found.operation, found.time_s) == ("m", parts[-1].time_s)


def test_reading_ahead_overlaps_with_the_device(driver, serve, connect, pattern, monkeypatch):
    """While the device is in the first chunk, the next are read: as many as the pipeline allows, and no more."""
    read = []
    true_read = requests.read_mvm
    monkeypatch.setattr(requests, "read_mvm", lambda raw, can: read.append(len(raw)) or true_read(raw, can))
    far = programmed(connect(serve(driver, limits=Limits(pipeline=2)), chunk_bytes=4 * 4 * ROWS), pattern)
    gate = threading.Event()
    driver.before = lambda: gate.wait(10)
    answers = []
    thread = threading.Thread(target=lambda: answers.append(ask(far, pattern, "m")))
    thread.start()
    until(lambda: len(read) == 4)  # one in the device, two in the queue, one that waits for room in it
    time.sleep(0.1)
    assert len(read) == 4
    gate.set()
    thread.join(10)
    assert answers[0].currents_uA.shape == (1, 40, COLS)
    assert driver.counts["mvm"] == len(read) == 10
    assert len(driver.threads) == 1


def test_the_messages_of_a_stream_stay_below_the_servers_limit(driver, serve, connect, pattern):
    """Many repeats make answers large: fewer vectors go into a message."""
    driver.changes = {"max_repeats": 4096}
    limits = Limits(message_bytes=1 << 17)
    far = programmed(connect(serve(driver, limits=limits)), pattern)
    assert ask(far, pattern, "m", repeats=1000).currents_uA.shape == (1000, 40, COLS)
    assert driver.counts["mvm"] == 10  # (2^17 - 4096) / (5 x 1000 x 6) = 4 vectors a message


@pytest.mark.parametrize(
    "error", [RangeError, TransportError, DeviceBusyError, DeviceFault, NotProgrammed, BudgetError, ZeroDivisionError]
)
def test_what_the_driver_raises_comes_back(driver, serve, connect, pattern, error):
    far = programmed(connect(serve(driver)), pattern)

    def refuse():
        raise error("lamp 3 is out. Fix: a new lamp.")

    driver.before = refuse
    for call in (lambda: ask(far, pattern, "m"), lambda: far.read(0), lambda: programmed(far, pattern, "q")):
        with pytest.raises(DeviceFault if error is ZeroDivisionError else error, match=r"grpc://.*lamp 3 is out") as e:
            call()
        assert error is ZeroDivisionError or type(e.value) is error


def test_what_was_not_programmed(driver, serve, connect, pattern):
    far = connect(serve(driver))
    with pytest.raises(NotProgrammed, match="nothing was written to it"):
        far.read(0)


def test_limits_are_checked_before_anything_is_sent(serve, driver, connect, pattern):
    far = programmed(connect(serve(driver)), pattern)
    bad = pattern[1].clone()
    bad[0, 0] = torch.nan
    with pytest.raises(RangeError, match="NaN"):
        far.mvm(0, bad, operation="m", full_scale_uA=pattern[2])
    with pytest.raises(RangeError, match="tile = 2"):
        far.read(2)
    assert driver.counts == {"program": 1, "mvm": 0, "read": 0, "wait": 0}


# One client at a time


def test_a_second_client_is_refused_and_may_look(driver, serve, connect, pattern):
    server = serve(driver)
    first = programmed(connect(server, client="first"), pattern)
    second = connect(server)
    assert second.capabilities() == first.capabilities()
    assert second.health().ok
    before = dict(driver.counts)
    for call in (
        lambda: ask(second, pattern, "m"),
        lambda: second.read(0),
        lambda: second.calibrate(),
        lambda: programmed(second, pattern),
    ):
        with pytest.raises(DeviceBusyError, match=r"another client \(first\) holds the device"):
            call()
    assert driver.counts == before
    first.close()
    second.read(0)


def test_an_idle_lease_ends(driver, serve, connect, pattern):
    server = serve(driver, limits=Limits(idle_s=0.3))
    programmed(connect(server), pattern)
    second = connect(server)
    with pytest.raises(DeviceBusyError):
        second.read(0)
    time.sleep(0.35)
    second.read(0)


def test_a_client_that_vanishes_frees_the_device_at_once(driver, serve, connect, pattern):
    """A connection that is cut without a word: no Release is sent."""
    server = serve(driver)
    first = programmed(RemoteDevice(server.address), pattern)
    first._channel.close()
    second = connect(server)

    def free():
        try:
            second.read(0)
        except DeviceBusyError:
            return False
        return True

    until(free, 5.0)


def test_foreign_weights_are_not_taken_for_ones_own(driver, serve, connect, pattern):
    """A, idle for too long, comes back after B wrote the tile: it is told, writes again, and goes on."""
    server = serve(driver, limits=Limits(idle_s=0.2))
    a = programmed(connect(server), pattern, "of a")
    time.sleep(0.25)
    b = connect(server)
    b.program(0, -pattern[0], operation="of b")
    b.close()
    before = driver.counts["mvm"]
    for call in (lambda: ask(a, pattern, "m"), lambda: a.read(0)):
        with pytest.raises(NotProgrammed, match="it holds operation 'of b', and not 'of a'"):
            call()
    mask = torch.ones(ROWS, COLS, dtype=torch.bool)
    with pytest.raises(NotProgrammed):
        a.program(0, pattern[0], operation="part", mask=mask)
    assert driver.counts["mvm"] == before
    # Under its old name too: the other's writing has undone it.
    assert not a.program(0, pattern[0], operation="of a").repeated
    expected = ask(programmed(type(driver)(), pattern, "of a"), pattern, "m")
    assert torch.equal(ask(a, pattern, "m").currents_uA, expected.currents_uA)


def test_a_refused_writing_changes_nothing_in_what_is_believed(driver, serve, connect, pattern):
    far = programmed(connect(serve(driver)), pattern)

    def refuse():
        raise RangeError("too hot")

    driver.before = refuse
    with pytest.raises(RangeError):
        programmed(far, pattern, "q")
    driver.before = lambda: None
    ask(far, pattern, "m")


def test_a_writing_that_did_not_come_through_is_noticed(driver, serve, connect, pattern):
    """Called off while it waited behind a slow call: the tile holds the weights of before."""
    far = programmed(connect(serve(driver), timeout_s=0.5), pattern)
    gate = threading.Event()
    driver.before = lambda: gate.wait(10)
    with pytest.raises(TransportError):
        ask(far, pattern, "m")
    with pytest.raises(TransportError):
        far.program(0, -pattern[0], operation="q")
    time.sleep(0.3)  # until the server too has seen that the time is over
    gate.set()
    until(lambda: far.health().ok)
    with pytest.raises(NotProgrammed, match="it holds operation 'p', and not 'q'"):
        ask(far, pattern, "n")
    assert not far.program(0, -pattern[0], operation="q").repeated
    ask(far, pattern, "n")


def _answers(client):
    try:
        return client.health().ok
    except TransportError:
        return False


# Each operation once


def test_an_operation_that_comes_again_is_not_carried_out_again(driver, serve, connect, pattern):
    far = programmed(connect(serve(driver)), pattern)
    first, second = ask(far, pattern, "m"), ask(far, pattern, "m")
    assert torch.equal(first.currents_uA, second.currents_uA)
    assert driver.counts["mvm"] == 1
    report = far.program(0, pattern[0], operation="p")
    assert report.repeated and report.achieved_uS is not None
    assert driver.counts["program"] == 1
    with pytest.raises(RangeError, match="operation 'm': mvm was called under this name with other content"):
        ask(far, pattern, "m", n=5)


def test_answers_are_kept_within_their_bytes(driver, serve, connect, pattern):
    far = programmed(connect(serve(driver, limits=Limits(answers_bytes=3000))), pattern)
    for name in ("a", "b", "c", "a"):
        ask(far, pattern, name)  # 1.2 kB each
    assert driver.counts["mvm"] == 4


def test_what_the_device_has_lost_is_written_again_under_its_old_name(driver, serve, connect, pattern):
    far = programmed(connect(serve(driver)), pattern)
    driver.chip = type(driver)().chip  # its controller was switched off and on
    with pytest.raises(NotProgrammed):
        ask(far, pattern, "m")
    assert not far.program(0, pattern[0], operation="p").repeated
    ask(far, pattern, "m")


def test_a_slow_call_ends_at_the_clients_time_and_its_answer_is_kept(driver, serve, connect, pattern):
    far = programmed(connect(serve(driver), timeout_s=0.5), pattern)
    gate = threading.Event()
    driver.before = lambda: gate.wait(10)
    began = time.monotonic()
    with pytest.raises(TransportError, match="DEADLINE_EXCEEDED"):
        ask(far, pattern, "m")
    assert time.monotonic() - began < 3.0
    gate.set()
    until(lambda: ask(far, pattern, "m").currents_uA.shape == (1, 40, COLS))
    assert driver.counts["mvm"] == 1


def test_calls_that_wait_longer_than_their_client_are_not_carried_out(driver, serve, connect, pattern):
    far = programmed(connect(serve(driver), timeout_s=0.5), pattern)
    gate = threading.Event()
    driver.before = lambda: gate.wait(10)
    for name in ("m", "n", "o"):  # the device is in the first; the others wait behind it
        with pytest.raises(TransportError):
            ask(far, pattern, name)
    time.sleep(0.3)  # until the server too has seen that the time is over
    gate.set()
    until(lambda: far.read(0) is not None)
    assert driver.counts["mvm"] == 1


def test_the_server_may_be_started_again(driver, serve, connect, pattern):
    server = serve(driver)
    far = programmed(connect(server), pattern)
    server.stop()
    with pytest.raises(TransportError, match=r"UNAVAILABLE\). Way out: call again"):
        ask(far, pattern, "m")
    serve(driver, f"127.0.0.1:{server.port}")
    until(lambda: _answers(far))
    ask(far, pattern, "m")


def test_another_device_at_the_same_address_is_noticed(driver, serve, connect, pattern):
    server = serve(driver)
    far = programmed(connect(server), pattern)
    server.stop()
    serve(type(driver)(seed=4), f"127.0.0.1:{server.port}")
    until(lambda: _answers(far))
    with pytest.raises(DeviceFault, match=r"another device answers now .*Fix: connect again"):
        far.read(0)


def test_a_closed_client_says_so(driver, serve, connect):
    far = connect(serve(driver))
    far.capabilities()
    far.close()
    far.close()
    for call in (far.capabilities, far.health, far.calibrate, lambda: far.read(0)):
        with pytest.raises(DeviceFault, match=r"it was closed. Fix: connect again"):
            call()


# Token, TLS, addresses


def test_a_token(driver, serve, connect, pattern):
    server = serve(driver, token="s3cret-s3cret")
    programmed(connect(server, token="s3cret-s3cret"), pattern).close()
    for token in (None, "", "s3cret-s3cre", "S3CRET-S3CRET", "s3cret-s3cret-s3cret"):
        with pytest.raises(RangeError, match=r"wrong or no token. Fix: give token"):
            connect(server, token=token).capabilities()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """A certificate of 127.0.0.1 that signs itself."""
    folder = tmp_path_factory.mktemp("tls")
    files = TlsFiles(folder / "cert.pem", folder / "key.pem")
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=here"
    where = ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(files.key), "-out", str(files.cert)]
    try:
        subprocess.run([*command.split(), *where], check=True, capture_output=True, timeout=60)
    except FileNotFoundError:
        pytest.skip("no openssl on this machine")
    return files


def test_tls(driver, serve, connect, pattern, certificate):
    server = serve(driver, tls=certificate, token="s3cret-s3cret")
    assert server.address.startswith("grpcs://")
    far = programmed(connect(server, tls_ca=certificate.cert, token="s3cret-s3cret"), pattern)
    ask(far, pattern, "m")
    with pytest.raises(TransportError, match="UNAVAILABLE"):  # a stranger's certificate
        connect(server, token="s3cret-s3cret").capabilities()
    with pytest.raises(TransportError, match="UNAVAILABLE"):  # clear text
        connect(server.address.replace("grpcs", "grpc"), token="s3cret-s3cret").capabilities()


def test_files_that_cannot_be_read(driver, connect, certificate, tmp_path):
    with pytest.raises(DataError, match=r"tls.key = .*none: No such file"):
        DeviceServer(driver, "127.0.0.1:0", tls=TlsFiles(certificate.cert, tmp_path / "none")).start()
    with pytest.raises(DataError, match=r"tls_ca = .*none"):
        connect("grpc://127.0.0.1:1", tls_ca=tmp_path / "none")


def test_a_port_in_use(driver, serve):
    port = serve(driver).port
    with pytest.raises(RangeError, match=rf"listen = 127.0.0.1:{port}: it cannot be listened on.*choose another port"):
        DeviceServer(driver, f"127.0.0.1:{port}").start()


def test_nobody_there(connect, serve, driver):
    server = serve(driver)
    server.stop()
    with pytest.raises(TransportError, match=r"grpc://127.0.0.1:.*Describe"):
        connect(server).capabilities()


def test_a_tile_that_fits_no_message_is_said_at_the_start(driver):
    with pytest.raises(RangeError, match=r"limits.message_bytes = 9999: a tile of 8 x 6"):
        DeviceServer(driver, limits=Limits(message_bytes=9999)).start()


@pytest.mark.parametrize("token", ["", "tök", "a\nb"])
def test_a_token_that_cannot_be_sent(driver, token):
    with pytest.raises(RangeError, match="token: empty, or not printable ASCII"):
        DeviceServer(driver, token=token)


def test_a_server_starts_once(driver, serve):
    server = serve(driver)
    with pytest.raises(RangeError, match="started before"):
        server.start()


def test_the_health_service_of_gRPC(driver, serve, raw):
    client = raw(serve(driver, token="s3cret-s3cret"), None)
    serving = health_pb2.HealthCheckResponse(status=health_pb2.HealthCheckResponse.SERVING).SerializeToString()
    for name in ("", "mho.lab.v1.Device"):
        asked = health_pb2.HealthCheckRequest(service=name).SerializeToString()
        assert client.send("/grpc.health.v1.Health/Check", asked) == (None, [serving], None)
    other = health_pb2.HealthCheckRequest(service="other").SerializeToString()
    assert client.send("/grpc.health.v1.Health/Check", other)[0] is grpc.StatusCode.NOT_FOUND


def test_serve_tells_the_address_and_ends_with_its_server(driver, connect):
    found = []

    def ready(address):
        found.append(connect(address).capabilities())
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        serve_for_ever(driver, "127.0.0.1:0", ready=ready)
    assert found == [driver.capabilities()]
    assert driver.health().ok  # the device is its owner's, and still open
