"""Any device served over gRPC, and the client that makes a device of it. See README.md of this folder."""

try:
    import google.protobuf  # noqa: F401
    import grpc  # noqa: F401
    import grpc_health  # noqa: F401
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        f"mho.lab.remote needs the package {error.name}. Fix: pip install 'mho[lab]'.", name=error.name
    ) from error

from mho.lab.remote.client import RemoteDevice
from mho.lab.remote.limits import Limits
from mho.lab.remote.server import DeviceServer, TlsFiles, serve

__all__ = ["DeviceServer", "Limits", "RemoteDevice", "TlsFiles", "serve"]
