"""Compile the C sources into the user's cache: once for each (source, compiler, processor), atomically."""

import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

SOURCES = ("cpu.c", "normal.h")
# No contraction and no fast-math: the bits must not depend on the machine.
COMMON = ("-std=gnu11", "-O3", "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math", "-shared", "-fPIC")
ATTEMPTS = (("-march=native",), ("-mcpu=native",), ())
COMPILERS = ("cc", "gcc", "clang")
TIME_LIMIT_S = 120


@dataclass(frozen=True)
class Built:
    """The compiled library, or the reason why there is none (``path`` is None)."""

    path: Path | None
    reason: str


def cache_dir() -> Path:
    """``$XDG_CACHE_HOME/mho/kernels``, or ``~/.cache/mho/kernels``."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if os.path.isabs(base) else Path.home() / ".cache") / "mho" / "kernels"


def find_compiler() -> Path | None:
    """The first of cc, gcc, clang on the PATH."""
    found = (shutil.which(name) for name in COMPILERS)
    return next((Path(path).resolve() for path in found if path is not None), None)


def processor() -> str:
    """What ``-march=native`` depends on: the first processor's lines of /proc/cpuinfo, or the platform's name."""
    names = ("vendor_id", "model name", "flags", "Features", "CPU part", "cpu family", "model", "stepping")
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as info:
            lines = info.read(16384).split("\n\n")[0].splitlines()
    except OSError:
        lines = []
    kept = [line for line in lines if line.partition(":")[0].strip() in names]
    return "\n".join([platform.system(), platform.machine(), platform.processor(), *kept])


def library_name(source: Path, compiler: Path, sources: Sequence[str] = SOURCES) -> str:
    """``<hash>.so`` of the sources, the flags, the compiler's file (path, size, date) and the processor."""
    stat = compiler.stat()
    parts = [(source / name).read_bytes() for name in sources]
    parts += [repr((COMMON, ATTEMPTS, str(compiler), stat.st_size, stat.st_mtime_ns)).encode(), processor().encode()]
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        digest.update(len(part).to_bytes(8, "little") + part)
    return f"{digest.hexdigest()}.so"


def compile_into(target: Path, source: Path, compiler: Path, sources: Sequence[str] = SOURCES) -> str:
    """Compile to a temporary file beside ``target``, then rename: two processes at once are safe. "" or the errors."""
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    errors = []
    with tempfile.TemporaryDirectory(dir=target.parent) as work:
        output = Path(work) / target.name
        for attempt in ATTEMPTS:
            command = [str(compiler), *COMMON, *attempt, str(source / sources[0]), "-o", str(output), "-lm"]
            try:
                done = subprocess.run(command, capture_output=True, text=True, timeout=TIME_LIMIT_S, check=False)
            except subprocess.TimeoutExpired:
                errors.append(f"{' '.join(attempt) or 'plain'}: no end after {TIME_LIMIT_S} s")
                continue
            if done.returncode == 0:
                os.replace(output, target)
                return ""
            errors.append(f"{' '.join(attempt) or 'plain'}: {done.stderr.strip()[:300]}")
    return "; ".join(errors)


def build(cache: Path | None = None, source: Path | None = None, sources: Sequence[str] = SOURCES) -> Built:
    """The library for this machine, compiled if the cache lacks it. Never raises: ``reason`` says what went wrong.

    ``sources``: names in the folder ``source`` (``None``: this one); the first is compiled, the others are what it
    includes.
    """
    source = source or Path(__file__).parent
    compiler = find_compiler()
    if compiler is None:
        return Built(None, f"no C compiler on the PATH (looked for {', '.join(COMPILERS)})")
    try:
        target = (cache or cache_dir()) / library_name(source, compiler, sources)
        if not target.exists():
            errors = compile_into(target, source, compiler, sources)
            if errors:
                return Built(None, f"{compiler} cannot compile the kernels: {errors}")
    except (OSError, RuntimeError) as error:  # RuntimeError: Path.home() of a user without one
        return Built(None, f"the kernels cannot be built or cached: {error}")
    return Built(target, f"compiled by {compiler}, in {target}")
