"""A small served chip, a driver that can be told to misbehave, and a client without manners."""

import threading
from dataclasses import replace

import grpc
import pytest
import torch
from small_networks import NOISY

from mho.lab import VirtualDevice
from mho.lab.remote import DeviceServer, RemoteDevice
from mho.lab.remote.messages import SERVICE

ROWS, COLS = 8, 6


class Driver:
    """A virtual chip that counts its calls, and before each of them does what ``before`` says."""

    def __init__(self, seed=3, **options):
        self.chip = VirtualDevice(NOISY, seed, tiles=2, rows=ROWS, cols=COLS, **options)
        self.counts = {"program": 0, "mvm": 0, "read": 0, "wait": 0}
        self.threads = set()
        self.before = lambda: None
        self.changes = {}

    def _count(self, name):
        self.counts[name] += 1
        self.threads.add(threading.get_ident())
        self.before()

    def capabilities(self):
        return replace(self.chip.capabilities(), **self.changes)

    def program(self, tile, targets_uS, *, operation, mask=None):
        self._count("program")
        return self.chip.program(tile, targets_uS, operation=operation, mask=mask)

    def read(self, tile):
        self._count("read")
        return self.chip.read(tile)

    def mvm(self, tile, inputs_V, *, operation, full_scale_uA, repeats=1):
        self._count("mvm")
        return self.chip.mvm(tile, inputs_V, operation=operation, full_scale_uA=full_scale_uA, repeats=repeats)

    def calibrate(self):
        return self.chip.calibrate()

    def health(self):
        return self.chip.health()

    def wait_until(self, time_s):
        self._count("wait")
        return self.chip.wait_until(time_s)

    def close(self):
        self.chip.close()


class Raw:
    """Sends bytes as they are, and gives back the status that came."""

    def __init__(self, port, client="raw", token=None, options=()):
        self.channel = grpc.insecure_channel(
            f"127.0.0.1:{port}", [("grpc.use_local_subchannel_pool", 1), ("grpc.max_send_message_length", -1), *options]
        )
        self.metadata = [("mho-client", client)] if client is not None else []
        if token is not None:
            self.metadata.append(("authorization", f"Bearer {token}"))

    def send(self, method, *messages, timeout=10.0):
        """(code, words, kind of error) of a call of these messages, or (None, answers, None)."""
        path = method if method.startswith("/") else f"/{SERVICE}/{method}"
        call = self.channel.stream_stream(path)(iter(messages), timeout=timeout, metadata=self.metadata)
        try:
            return None, list(call), None
        except grpc.RpcError as error:
            return error.code(), error.details(), dict(error.trailing_metadata() or ()).get("mho-error")


@pytest.fixture
def driver():
    return Driver()


@pytest.fixture
def serve():
    """Starts servers on free ports, and stops them at the end."""
    started = []

    def start(device, listen="127.0.0.1:0", **options):
        server = DeviceServer(device, listen, **options).start()
        started.append(server)
        return server

    yield start
    for server in started:
        server.stop()


@pytest.fixture
def connect():
    """Makes clients, and closes them at the end."""
    made = []

    def make(server, **options):
        client = RemoteDevice(server if isinstance(server, str) else server.address, **{"timeout_s": 20.0, **options})
        made.append(client)
        return client

    yield make
    for client in made:
        client.close()


@pytest.fixture
def raw():
    """Makes clients without manners, and closes them at the end."""
    made = []

    def make(server, *arguments, **options):
        client = Raw(server.port, *arguments, **options)
        made.append(client)
        return client

    yield make
    for client in made:
        client.channel.close()


@pytest.fixture
def pattern():
    """Targets of a tile and input vectors, both well within the limits of the small chip."""
    can = Driver().capabilities()
    make = torch.Generator().manual_seed(5)
    targets = (torch.rand(ROWS, COLS, generator=make) * 2 - 1) * can.g_max_uS
    inputs = (torch.rand(40, ROWS, generator=make) * 2 - 1) * can.v_max_V
    return targets, inputs, can.i_max_uA / 4
