"""``mho calibrate``: measure a device, fit its twin, write it as hardware that everything else can use."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from mho.cli.output import console, table

if TYPE_CHECKING:
    from mho.lab.twin import Estimate, Twin

TABLES = (".csv", ".parquet", ".h5", ".hdf5")


def calibrate(
    device: Annotated[
        str,
        typer.Argument(help="An address (grpc://HOST:PORT, virtual:PRESET?seed=7), or a file of measurements."),
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE.toml", help="Where the description goes; statics beside it.")
    ],
    tile: Annotated[int, typer.Option("--tile", min=0, help="Which tile is written and measured.")] = 0,
    budget: Annotated[
        int | None, typer.Option("--budget", min=1, metavar="VECTORS", help="Most input vectors that may be sent.")
    ] = None,
    token_file: Annotated[
        Path | None, typer.Option("--token-file", help="A file with the token of a served device (or MHO_TOKEN).")
    ] = None,
    tls_ca: Annotated[Path | None, typer.Option("--tls-ca", help="Certificate of the server's authority, PEM.")] = None,
    keep: Annotated[
        Path | None, typer.Option("--keep", metavar="FILE.safetensors", help="Also keep what was measured.")
    ] = None,
) -> None:
    """Measure a device and write its twin; the content of the tile is lost. Or fit a file of measurements:

    CSV, Parquet or HDF5 of pairs or pulse responses, or what --keep has written (.safetensors).
    """
    if output.suffix != ".toml":
        raise typer.BadParameter(f"--output {output}: a description ends in .toml.")
    suffix = Path(device).suffix.lower()
    if suffix in TABLES:
        _from_table(device, output)
        return
    from mho.lab.twin import fit, load_measurements

    if suffix == ".safetensors":
        twin = fit(load_measurements(device))
    else:
        twin = _from_device(device, tile, budget, token_file, tls_ca, keep)
    _write(twin, output)


def _from_device(
    address: str, tile: int, budget: int | None, token_file: Path | None, tls_ca: Path | None, keep: Path | None
) -> "Twin":
    import uuid

    from mho.cli.lab import read_token
    from mho.lab import connect
    from mho.lab.session import Session
    from mho.lab.twin import Plan, fit, measure, save_measurements

    notes = Console(stderr=True, highlight=False)
    plan = Plan(name=f"calibrate-{uuid.uuid4().hex}")
    driver = connect(address, token=read_token(token_file), tls_ca=None if tls_ca is None else str(tls_ca))
    with Session(driver) as session:
        data = measure(
            session,
            plan if budget is None else plan.within(budget),
            tile=tile,
            say=lambda text: notes.print(text, markup=False),
        )
    if keep is not None:
        save_measurements(data, keep)
    notes.print(f"fitting {data.vectors} vectors of {data.calls} calls", markup=False)
    return fit(data)


def _from_table(path: str, output: Path) -> None:
    from mho.evaluation.atomic import write_atomically
    from mho.hardware import GenericCell, Hardware, dump_hardware
    from mho.lab.twin import PulseTable, fit_pairs, fit_pulses, read_measurements

    found = read_measurements(path)
    if not isinstance(found, PulseTable):
        _write(fit_pairs(found), output)
        return
    fit = fit_pulses(found)
    cell = GenericCell(g_min_uS=max(fit.g_low_uS, 0.0), g_max_uS=fit.g_high_uS)
    hardware = Hardware(
        name=output.stem, summary=f"Pulse response fitted to {Path(path).name}.", cell=cell, update=fit.device
    )
    write_atomically(output, dump_hardware(hardware).encode())
    _print(fit.estimates, fit.unidentified)
    console().print(f"written: {output}")


def _write(twin: "Twin", output: Path) -> None:
    hardware, statics = twin.save(output)
    _print(twin.estimates, twin.unidentified)
    if twin.error_over_noise is not None:
        console().print(
            f"error of the twin over the repeatability of the device, held out: {twin.error_over_noise:.3f} (1 is "
            "perfect)"
        )
    console().print(f"written: {hardware}, {statics}")


def _print(estimates: tuple["Estimate", ...], unidentified: tuple[str, ...]) -> None:
    shown = table("", "parameter", "value", "95 % interval", "unit", "how", right=("value",))
    for e in estimates:
        shown.add_row(e.name, f"{e.value:.4g}", f"{e.low:.4g} to {e.high:.4g}", e.unit, e.how)
    console().print(shown)
    for text in unidentified:
        console().print(f"not told: {text}")
