"""``mho``: one command, its subcommands, and how errors reach a person."""

import os
import shlex
import sys
import traceback
from typing import Annotated, Any

import typer
from rich.console import Console

import mho
from mho.cli import bench, calibrate, energy, evaluation, front, hardware, inspection, lab, runs, sweep
from mho.errors import MhoError

# typer carries its own copy of click and exports only the leaves of its exceptions.
UsageError: Any = typer.BadParameter.__base__

INTERRUPTED = 130

_START = """\b
Start here:
  mho run                                  train, put on 25 virtual chips, report
  mho hardware list                        which hardware there is
  mho hardware show pcm-hermes --noise     what limits it
  mho inspect mypackage.nets:make          what would become of a network of yours
"""
app = typer.Typer(
    name="mho",
    help="Train neural networks for noisy analog hardware, prove them on many virtual chips.",
    epilog=_START,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
app.command("run", short_help="Train, put on virtual chips, report.")(runs.run)
app.command("join", short_help="One run of several with different training seeds.")(runs.join)
app.command("evaluate", short_help="A trained network under other conditions.")(evaluation.evaluate)
app.command("sweep", short_help="A campaign over hardware, recipes, seeds, noise and ages.")(sweep.sweep)
app.command("report", short_help="A page of saved results.")(runs.report)
app.command("energy", short_help="Joules, seconds and area of one inference.")(energy.energy)
app.command("front", short_help="Accuracy against joules over bits, tiles and read times.")(front.front)
app.command("calibrate", short_help="Measure a device and write its twin as hardware.")(calibrate.calibrate)
app.command("serve", short_help="A virtual chip for other processes, over gRPC.")(lab.serve)
app.command("inspect", short_help="What would become of each module, and why.")(inspection.inspect)
app.add_typer(hardware.app, name="hardware", help="Descriptions of analog hardware: list them, look into one.")
app.add_typer(bench.app, name="bench", help="Measure mho itself on this machine.")


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"mho {mho.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and stop.")
    ] = False,
    show_traceback: Annotated[bool, typer.Option("--traceback", help="Show where in the code an error arose.")] = False,
) -> None:
    """Options of all commands; read again in :func:`main`, where errors end up."""


def main(arguments: list[str] | None = None) -> Any:
    """Run ``mho`` with ``arguments`` (those of the process without); exits with 0, 2 (error) or 130 (Ctrl-C)."""
    given = sys.argv[1:] if arguments is None else arguments
    errors = Console(stderr=True, highlight=False)
    command = typer.main.get_command(app)
    try:
        code = command.main(args=given, prog_name="mho", standalone_mode=False)
    except MhoError as error:
        if "--traceback" in given:
            traceback.print_exc()
        errors.print("[bold red]error:[/] ", end="")
        errors.print(str(error), markup=False, soft_wrap=True)
        sys.exit(2)
    except (KeyboardInterrupt, typer.Abort):
        code = INTERRUPTED
    except UsageError as error:
        if type(error).__name__ == "NoArgsIsHelpError":
            typer.echo(error.format_message())
            sys.exit(0)
        path = error.ctx.command_path if error.ctx is not None else "mho"
        errors.print("[bold red]error:[/] ", end="")
        errors.print(f"{error.format_message().rstrip('.')}. Try '{path} --help'.", markup=False, soft_wrap=True)
        sys.exit(2)
    except BrokenPipeError:
        # The reader of our output went away (``mho hardware list | head``).
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    if code == INTERRUPTED:  # typer makes this code of Ctrl-C.
        errors.print(f"interrupted; what was saved is whole.{_way_on(given)}", markup=False, soft_wrap=True)
    sys.exit(code if isinstance(code, int) else 0)


def _way_on(given: list[str]) -> str:
    """How to go on after Ctrl-C, for the commands that can."""
    command = next((word for word in given if not word.startswith("-")), "")
    if command not in ("run", "sweep"):
        return ""
    resume = ["--resume"] if command == "run" and "--resume" not in given else []
    return f" Continue with: {shlex.join(['mho', *given, *resume])}"
