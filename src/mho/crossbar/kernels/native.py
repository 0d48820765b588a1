"""Load the compiled library, check that it computes the known numbers, and say what runs."""

import ctypes
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch

from mho.crossbar.kernels.build import build

_POINTER, _COUNT, _SEED, _REAL, _INT = (
    ctypes.c_void_p,
    ctypes.c_int64,
    ctypes.c_uint64,
    ctypes.c_float,
    ctypes.c_int,
)
_THREADS = (_POINTER, _INT)
_ARGUMENTS = {
    "mho_normal": (_POINTER, _COUNT, _SEED),
    "mho_add_normal": (_POINTER, _POINTER, _COUNT, _REAL, _REAL, _REAL, _SEED),
    "mho_absmax_sumsq": (_POINTER, _COUNT, _POINTER),
    "mho_quantize": (_POINTER, _POINTER, _COUNT, _REAL, _REAL, _REAL, _REAL, _POINTER),
    "mho_adc": (*(_POINTER,) * 5, *(_COUNT,) * 3, _REAL, _SEED, *(_REAL,) * 4, _POINTER),
    "mho_noise_slope": (*(_POINTER,) * 4, *(_COUNT,) * 3, _REAL, _SEED, _POINTER),
    "mho_unclipped": (_POINTER, _POINTER, _POINTER, _COUNT, _POINTER),
    "mho_pass_inside": (_POINTER, _POINTER, _COUNT, _REAL, _POINTER),
}
# Elements 0, 1, 511, 512 and 1023 of seed 1: a miscompiled library is refused.
_KNOWN = {
    0: 2.1823835372924805,
    1: 2.0229320526123047,
    511: -2.205251932144165,
    512: 0.47179585695266724,
    1023: -0.3628920912742615,
}


@dataclass(frozen=True)
class Native:
    """The library (None: use the reference), the address of torch's GOMP_parallel (None: one thread), the reason."""

    library: ctypes.CDLL | None
    parallel: int | None
    reason: str


def find_parallel() -> int | None:
    """The address of the ``GOMP_parallel`` that torch is linked to, or None (torch built without GNU or LLVM OpenMP).

    Looked up through torch's own library, so that it is torch's runtime and no other: a second OpenMP runtime in the
    process would keep its own threads spinning against torch's.
    """
    try:
        function = ctypes.CDLL(str(torch._C.__file__)).GOMP_parallel
    except (OSError, AttributeError):
        return None
    return ctypes.cast(function, ctypes.c_void_p).value


def open_library(path: Path) -> ctypes.CDLL:
    """Load and declare the functions. Raises OSError (not a library) or AttributeError (a function is missing)."""
    library = ctypes.CDLL(str(path))
    for name, arguments in _ARGUMENTS.items():
        function = getattr(library, name)
        function.argtypes = (*arguments, *_THREADS)
        function.restype = None
    return library


def computes_known_numbers(library: ctypes.CDLL) -> bool:
    """Whether seed 1 gives the normals it must give."""
    z = torch.empty(1024)
    library.mho_normal(z.data_ptr(), z.numel(), 1, None, 1)
    return all(z[index].item() == value for index, value in _KNOWN.items())


def load(built_path: Path | None, reason: str) -> Native:
    """A checked library, or none and the reason. Never raises."""
    if built_path is None:
        return Native(None, None, reason)
    try:
        library = open_library(built_path)
    except (OSError, AttributeError) as error:
        return Native(None, None, f"{built_path} cannot be loaded: {error}; delete the file to compile it again")
    if not computes_known_numbers(library):
        return Native(None, None, f"{built_path} computes wrong numbers (a compiler bug?); another compiler may help")
    parallel = find_parallel()
    threads = "torch's OpenMP threads" if parallel else "one thread (torch here has no GNU-compatible OpenMP)"
    return Native(library, parallel, f"{reason}, on {threads}")


@cache
def native() -> Native:
    """Built and loaded on the first call in a process; later calls are free."""
    built = build()
    return load(built.path, built.reason)


def available() -> bool:
    """Whether the compiled kernels run; if not, the reference does (same numbers, slower). Compiles on first use."""
    return native().library is not None


def status() -> str:
    """One sentence: by which compiler and where the kernels were compiled, or why they could not be."""
    return native().reason
