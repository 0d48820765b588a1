"""Addresses of servers, as people write them."""

from mho.errors import RangeError

PLAIN = "grpc://"
TLS = "grpcs://"


def host_and_port(text: str, what: str) -> tuple[str, int]:
    """``"127.0.0.1:7070"`` or ``"[::1]:7070"`` in its two parts; port 0 is one that is free."""
    host, colon, port = text.rpartition(":")
    if not colon or not host or not port.isdecimal() or int(port) > 65535 or "/" in host:
        raise RangeError(f"{what} = {text!r}: no address. Fix: write host:port, for instance 127.0.0.1:7070.")
    return host, int(port)


def target(address: str) -> tuple[str, bool]:
    """``host:port`` of ``grpc://host:port``, and whether it is to be TLS (``grpcs://``)."""
    scheme, _, rest = address.rpartition("://")
    if scheme not in ("", "grpc", "grpcs"):
        raise RangeError(f"address = {address!r}: unknown scheme. Fix: write {PLAIN}host:port, or {TLS}host:port.")
    host, port = host_and_port(rest, "address")
    if port == 0:
        raise RangeError(f"address = {address!r}: port 0. Fix: write the port that the server printed.")
    return f"{host}:{port}", scheme == "grpcs"
