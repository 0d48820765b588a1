"""``mho serve``: a virtual chip for other processes, until it is interrupted."""

import os
import signal
import uuid
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from mho.cli.output import console
from mho.errors import DataError

TOKEN_VARIABLE = "MHO_TOKEN"
LOOPBACK = ("127.", "localhost:", "[::1]:")


def serve(
    hardware: Annotated[str, typer.Option("--hardware", help="A preset's name, or the path of a TOML file.")],
    seed: Annotated[int, typer.Option("--seed", min=0, help="Which chip of this hardware.")] = 0,
    listen: Annotated[
        str, typer.Option("--listen", metavar="HOST:PORT", help="Where; port 0 is any that is free.")
    ] = "127.0.0.1:7070",
    tiles: Annotated[int, typer.Option("--tiles", min=1, help="Tiles of the chip.")] = 16,
    token_file: Annotated[
        Path | None,
        typer.Option("--token-file", help=f"A file with the token that clients must give (or {TOKEN_VARIABLE})."),
    ] = None,
    tls_cert: Annotated[Path | None, typer.Option("--tls-cert", help="Certificate chain, PEM.")] = None,
    tls_key: Annotated[Path | None, typer.Option("--tls-key", help="Its private key, PEM.")] = None,
    idle: Annotated[
        float, typer.Option("--idle", min=1.0, metavar="SECONDS", help="After which a silent client loses the device.")
    ] = 60.0,
    max_wait: Annotated[
        float,
        typer.Option(
            "--max-wait", min=0.0, metavar="SECONDS", help="How far a client may let the chip's clock run on in a call."
        ),
    ] = 3.2e8,
) -> None:
    """Serve a virtual chip over gRPC until Ctrl-C; clients connect to grpc://HOST:PORT, one at a time."""
    from mho.hardware import load_hardware
    from mho.lab import VirtualDevice
    from mho.lab.remote import Limits, TlsFiles
    from mho.lab.remote import serve as serve_device

    if (tls_cert is None) != (tls_key is None):
        raise typer.BadParameter("--tls-cert and --tls-key belong together; give both, or none.")
    tls = TlsFiles(tls_cert, tls_key) if tls_cert is not None and tls_key is not None else None
    token = read_token(token_file)
    notes = Console(stderr=True, highlight=False)
    if not listen.startswith(LOOPBACK) and (token is None or tls is None):
        missing = " and ".join(n for n, v in (("no token", token), ("no TLS", tls)) if v is None)
        notes.print(f"note: {listen} may be reached from other machines, with {missing}.", markup=False)
    hw = load_hardware(hardware)
    # A chip that is made anew has lost its tiles, even if seed and data sheet are those of the last one.
    device = VirtualDevice(hw, seed, tiles=tiles, boot=uuid.uuid4().hex)
    previous = signal.signal(signal.SIGTERM, _stop)
    try:
        serve_device(
            device,
            listen,
            token=token,
            tls=tls,
            limits=Limits(idle_s=idle, wait_s=max_wait),
            ready=lambda address: _ready(f"{hw.name}, seed {seed}, {tiles} tiles: {address}"),
        )
    finally:
        signal.signal(signal.SIGTERM, previous)


def read_token(path: Path | None) -> str | None:
    """The token in a file, or that of the environment; never one of the command line, which others can see."""
    if path is None:
        return os.environ.get(TOKEN_VARIABLE) or None
    try:
        token = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"--token-file {path}: {error}. Fix: give a text file that can be read.") from error
    if not token:
        raise DataError(f"--token-file {path}: it is empty. Fix: write the token into it, 20 characters or more.")
    return token


def _ready(text: str) -> None:
    console().print(text)
    # Whoever started this reads the line from a pipe, before anything else happens.
    console().file.flush()


def _stop(number: int, _: object) -> None:
    raise SystemExit(0)
