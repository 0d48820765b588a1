"""Time on a device: its clock may be asked to run on, so that what was written ages.

Asked for is the time at which the clock shall stand, not a stretch of it: a call whose answer was lost is repeated,
finds the clock where it should be, and waits no second time. A chip that is simulated is there at once; one of silicon
is when that time has come.
"""

from mho.errors import DeviceFault, RangeError
from mho.lab import checks
from mho.lab.protocol import Device, Health, TimedDevice


def wait_until(device: Device, time_s: float) -> Health:
    """Let the clock of ``device`` run on to ``time_s``, and say how the device is then.

    :class:`~mho.errors.RangeError` where its ``max_wait_s`` is 0, or is exceeded.
    """
    checks.waits(device.capabilities(), time_s)
    if not isinstance(device, TimedDevice):
        raise DeviceFault(
            f"{type(device).__name__}: max_wait_s is above 0, and wait_until does not exist. Way out: the driver is at "
            "fault; mho.testing.check_device tells where."
        )
    return device.wait_until(time_s)


def wait(device: Device, seconds: float) -> Health:
    """Let the clock of ``device`` run for ``seconds`` (0 or more) from now; else as :func:`wait_until`."""
    can = device.capabilities()
    checks.waits(can, seconds)
    if seconds < 0.0:
        raise RangeError(f"wait: {seconds!r} s. Fix: 0 or more; no clock runs back.")
    now_s = device.health().time_s
    checks.wait(can, now_s, now_s + seconds)
    return wait_until(device, now_s + seconds)
