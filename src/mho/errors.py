"""Every error that mho raises on purpose. Each message names the module, the value and the way out."""

from collections.abc import Iterable
from difflib import get_close_matches


class MhoError(Exception):
    """Base of all errors of this package."""


class HardwareError(MhoError, ValueError):
    """A hardware description is impossible, unknown or misspelt."""


class ConversionError(MhoError, TypeError):
    """A network, or a part of one, cannot be put on analog hardware."""


class InputError(MhoError, ValueError):
    """A layer got a tensor of the wrong shape, dtype or content (NaN, infinity)."""


class NonFiniteError(InputError):
    """NaN or infinity reached a layer in training; the step is refused and the weights stay."""


class DataError(MhoError, OSError):
    """A data file is missing, truncated or not what its checksum says."""


class RecipeError(MhoError, ValueError):
    """A recipe is misspelt or contradicts itself."""


class CheckpointError(MhoError, OSError):
    """A checkpoint or result cannot be written or read."""


class TrainingError(MhoError, RuntimeError):
    """Training cannot go on (for instance: only NaN batches)."""


class DeviceError(MhoError, RuntimeError):
    """Anything that went wrong between the host and a device. Its subclasses say who can help."""


class TransportError(DeviceError, ConnectionError):
    """The answer did not come, or not whole: time-out, broken connection. The same call may be tried again."""


class DeviceBusyError(TransportError):
    """Another client holds the device; the call was not carried out."""


class RangeError(DeviceError, ValueError):
    """The caller asked for what the device must not or cannot do. Trying again does not help."""


class DeviceFault(DeviceError):
    """The device answered that it cannot: not programmed, a broken part, a failed calibration."""


class BudgetError(DeviceError):
    """The allowed device calls or seconds are used up; nothing was sent."""


class TwinError(MhoError, ValueError):
    """Measurements from which a twin cannot be fitted."""


def nearest(name: str, known: Iterable[str]) -> str:
    """A sentence with the names nearest to ``name``, for "unknown ..." errors.

    >>> nearest("pcm-herms", ["pcm-hermes", "ideal"])
    "Did you mean 'pcm-hermes'?"
    """
    names = sorted(known)
    close = get_close_matches(name, names, n=3, cutoff=0.5)
    if close:
        return f"Did you mean {' or '.join(repr(c) for c in close)}?"
    return f"Known: {', '.join(names)}."
