"""A served chip passes the suite that every driver must pass, and is in good company under a session."""

import torch

from mho.lab.remote import RemoteDevice
from mho.lab.session import Session
from mho.testing.devices import check_device


def test_a_served_chip_conforms(driver, serve):
    near = check_device(lambda: type(driver)().chip)
    far = check_device(lambda: RemoteDevice(serve(type(driver)()).address, timeout_s=20.0))
    assert far == near and len(far.passed) > 10


def test_a_session_restores_a_tile_that_another_client_has_written(driver, serve, connect, pattern):
    server = serve(driver)
    mine = Session(connect(server, client="mine"))
    mine.program(0, pattern[0], operation="of mine")
    server_side = connect(server, client="theirs")
    mine.device._ask("Release", b"\x08\x01")
    mine.device._grip.cancel()
    server_side.program(0, -pattern[0], operation="of theirs")
    server_side.close()
    found = mine.mvm(0, pattern[1], operation="m", full_scale_uA=pattern[2])
    untouched = type(driver)()
    untouched.program(0, pattern[0], operation="of mine")
    expected = untouched.mvm(0, pattern[1], operation="m", full_scale_uA=pattern[2])
    assert torch.equal(found.currents_uA, expected.currents_uA)
    mine.close()
