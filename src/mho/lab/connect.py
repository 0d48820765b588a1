"""A device by its address."""

from urllib.parse import parse_qs, urlsplit

from mho.errors import RangeError
from mho.lab.protocol import Device

_FORMS = {
    "grpc": "grpc://HOST:PORT (a served device; grpcs:// with TLS)",
    "virtual": "virtual:HARDWARE?seed=0&tiles=16 (a virtual chip in this process)",
    "replay": "replay:PATH (a recording)",
}


def connect(address: str, *, token: str | None = None, tls_ca: str | None = None) -> Device:
    """The device at ``address``: ``grpc://host:port``, ``virtual:pcm-hermes?seed=7``, ``replay:recording``.

    ``token``, ``tls_ca``: for served devices. Drivers of one's own need no address: any object with the calls of
    :class:`~mho.lab.Device` is one. Raises :class:`RangeError` for an address of another form, and what the device
    raises.
    """
    scheme, _, rest = address.partition(":")
    if scheme in ("grpc", "grpcs"):
        from mho.lab.remote import RemoteDevice

        return RemoteDevice(address, token=token, tls_ca=tls_ca)
    if scheme == "virtual" and rest:
        return _virtual(address)
    if scheme == "replay" and rest:
        from mho.lab.record import ReplayDevice

        return ReplayDevice(rest)
    forms = "; ".join(_FORMS.values())
    raise RangeError(f"device address {address!r}: not understood. Fix: one of {forms}.")


def _virtual(address: str) -> Device:
    from mho.hardware import load_hardware
    from mho.lab.virtual import VirtualDevice

    parts = urlsplit(address)
    numbers = {"seed": 0, "tiles": 16}
    for key, values in parse_qs(parts.query, keep_blank_values=True).items():
        if key not in numbers or not values[-1].isdecimal():
            raise RangeError(f"device address {address!r}: {key} = {values[-1]!r}. Fix: {_FORMS['virtual']}.")
        numbers[key] = int(values[-1])
    return VirtualDevice(load_hardware(parts.path), numbers["seed"], tiles=numbers["tiles"])
