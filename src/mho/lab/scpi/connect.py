"""A bench by its VISA name. PyVISA is imported here and nowhere else."""

from collections.abc import Callable
from typing import final

from mho.errors import DeviceFault, TransportError
from mho.lab.scpi.bench import ScpiBench
from mho.lab.scpi.layout import BenchLayout
from mho.lab.scpi.line import Wire


@final
class _Owned:
    """A resource and the manager that goes with it."""

    def __init__(self, resource: Wire, close_manager: Callable[[], None]) -> None:
        self._resource = resource
        self._close_manager = close_manager

    @property
    def timeout(self) -> float:
        return self._resource.timeout

    @timeout.setter
    def timeout(self, milliseconds: float) -> None:
        self._resource.timeout = milliseconds

    def write_raw(self, message: bytes) -> int:
        return self._resource.write_raw(message)

    def read_bytes(self, count: int) -> bytes:
        return self._resource.read_bytes(count)

    def close(self) -> None:
        try:
            self._resource.close()
        finally:
            self._close_manager()


def open_bench(name: str, layout: BenchLayout, *, backend: str = "@py") -> ScpiBench:
    """The bench at the VISA resource ``name`` ("TCPIP::bench-3::5025::SOCKET", "GPIB0::9::INSTR").

    ``backend``: of PyVISA: "@py" (pure Python), "@ivi" (the vendor's library), "path.yaml@sim" (a simulation).
    Raises :class:`TransportError` where nothing answers, :class:`DeviceFault` where PyVISA is not installed.
    """
    try:
        import pyvisa
    except ImportError as error:
        raise DeviceFault(
            f"scpi bench {name!r}: PyVISA is not installed ({error}). Fix: pip install 'mho[lab]'."
        ) from error
    try:
        manager = pyvisa.ResourceManager(backend)
    except (OSError, ValueError) as error:
        raise DeviceFault(
            f"scpi bench {name!r}: PyVISA has no backend {backend!r} ({error}). Fix: '@py', or install it."
        ) from error
    try:
        resource = manager.open_resource(name)
        if not resource.session:  # VI_NULL: a backend that could not open it and said nothing
            raise OSError("there is no such resource")
    except (pyvisa.Error, OSError, ValueError) as error:
        manager.close()
        raise TransportError(
            f"scpi bench {name!r}: cannot be opened ({error}). Fix: check the name, the cable and that it is on."
        ) from error
    if not isinstance(resource, pyvisa.resources.MessageBasedResource):
        manager.close()
        raise DeviceFault(
            f"scpi bench {name!r}: is a {type(resource).__name__}, which takes no messages. Fix: check the name."
        )
    wire = _Owned(resource, manager.close)
    try:
        return ScpiBench(wire, layout)
    except BaseException:
        wire.close()
        raise
