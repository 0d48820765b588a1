"""Conformance of a device: what the rest of the package relies on, for any driver.

Nothing is assumed about how well a device computes, beyond a rough product: noise is estimated from repeats, the step
of a converter from its bits. The statistics are such that a sound device fails with a chance below 1e-5.
"""

import contextlib
from collections.abc import Callable
from dataclasses import dataclass

from mho.errors import DeviceError
from mho.lab.protocol import Device
from mho.testing.device_answers import CHECKS_OF_ANSWERS
from mho.testing.device_bench import Bench, Check, Skipped
from mho.testing.device_physics import CHECKS_OF_PHYSICS
from mho.testing.device_refusals import CHECKS_OF_REFUSALS

CHECKS: tuple[Check, ...] = (*CHECKS_OF_ANSWERS, *CHECKS_OF_REFUSALS, *CHECKS_OF_PHYSICS)


@dataclass(frozen=True)
class DeviceReport:
    """Names of the checks that passed, and (name, reason) of those that this device gives no occasion for."""

    passed: tuple[str, ...]
    skipped: tuple[tuple[str, str], ...]


def check_device(make_device: Callable[[], Device], *, run: str = "check_device", slack: float = 0.1) -> DeviceReport:
    """Raise ``AssertionError`` where a driver breaks the contract of :class:`mho.lab.protocol.Device`.

    ``make_device`` gives a freshly connected device each time it is called; every check gets one of its own and
    closes it, so that none leans on another. Tiles 0 and 1 are written. ``run`` is the prefix of all operations: a
    device that remembers operations for ever needs another one each time. ``slack``: how far a device may be from
    linear and from its own answer of a moment ago, relative to the largest current, beyond noise and converter.

    Checked: capabilities; shapes, dtypes and validity of every answer; names of operations are kept, programming is
    not carried out twice under one; masks; limits refused with RangeError and nothing changed; NaN refused;
    NotProgrammed; the product, its linearity, repeats, full scale, batches; tiles apart; a clock that is asked to wait;
    calibration; health; close; tensors given in and given out are not shared.
    """
    passed: list[str] = []
    skipped: list[tuple[str, str]] = []
    for check in CHECKS:
        name = check.__name__
        bench = Bench(make_device(), f"{run}/{name}", slack)
        try:
            check(bench)
        except Skipped as reason:
            skipped.append((name, str(reason)))
        except DeviceError as error:
            raise AssertionError(
                f"{bench.name}: {name}: a call that must succeed raised {type(error).__name__}: {error}"
            ) from error
        except AssertionError as error:
            raise AssertionError(f"{bench.name}: {name}: {error}") from error
        else:
            passed.append(name)
        finally:
            with contextlib.suppress(DeviceError):  # whether it closes well is a check of its own
                bench.device.close()
    return DeviceReport(tuple(passed), tuple(skipped))
