"""MNIST on five virtual chips that deviate from their data sheet, each behind gRPC in a process of its own.

    python benchmarks/lab_loop.py chips --data-dir DIR
        what training for the data sheet, for a fitted twin and in the loop are worth
    python benchmarks/lab_loop.py faults --data-dir DIR
        the same run with faults, the server killed twice and the trainer once; recorded, and replayed without a server

Writes benchmarks/results/lab-loop.json and lab-faults.json. The images that are evaluated are the 10,000 test images;
all settings were chosen before they were looked at, on chips with other seeds.
"""

import argparse
import copy
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

import mho
from mho.data import Dataset, load_dataset
from mho.evaluation.atomic import write_atomically
from mho.hardware import Adc, Dac, GenericCell, Hardware, Mapping, dump_hardware
from mho.hardware.spec import Tile
from mho.lab import EventLog, Policy, Session, deploy, fit_in_the_loop, fit_twin, measure_columns, place
from mho.lab.chip_twin import ChipTwin
from mho.lab.faults import Fault, FaultPlan, FaultyDevice
from mho.lab.record import Recorder, ReplayDevice
from mho.lab.remote import RemoteDevice
from mho.models import build
from mho.nn.site import substituted
from mho.train import TrainSettings

SHEET = Hardware(
    name="data-sheet",
    summary="What the maker promises: 8 % programming error, 2 % read noise, 6-bit converters.",
    cell=GenericCell(programming_noise=0.08, read_noise=0.02),
    mapping=Mapping(scheme="signed"),
    tile=Tile(rows=256, cols=256),
    dac=Dac(bits=6),
    adc=Adc(bits=6),
)
HIDDEN = SHEET.replace(name="hidden", adc=Adc(bits=6, gain_d2d=0.15, offset_d2d_lsb=2.0, inl_lsb=2.0))
"""What the chips are: 15 % gain spread, offsets of 2 LSB, a cubic of 2 LSB, besides what the data sheet says."""

SIZES = (784, 256, 10)
BATCH = 128
SAVE_EVERY = 10
DIGITAL = TrainSettings(epochs=5, lr=0.1)
TUNING = TrainSettings(epochs=2, lr=0.02)
LOOP = TrainSettings(epochs=1, lr=0.02)
PLAN = FaultPlan(
    delay=0.01,
    delay_s=0.02,
    drop_before=0.005,
    drop_after=0.005,
    short=0.01,
    nan_flagged=0.005,
    nan_silent=0.005,
    duplicate=0.01,
)


class Server:
    """``mho serve`` in a process of its own, on a port that stays the same when it is started again."""

    def __init__(self, folder: Path, seed: int, port: int = 0) -> None:
        self.folder, self.seed, self.port = folder, seed, port
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "hidden.toml").write_text(dump_hardware(HIDDEN))
        self.process: subprocess.Popen[str] | None = None

    @property
    def address(self) -> str:
        return f"grpc://127.0.0.1:{self.port}"

    def start(self) -> None:
        words = [sys.executable, "-m", "mho.cli", "serve", "--hardware", str(self.folder / "hidden.toml")]
        words += ["--seed", str(self.seed), "--listen", f"127.0.0.1:{self.port}", "--idle", "5"]
        self.process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if self.port == 0:
            self.port = int(line.strip().rsplit(":", 1)[1])

    def kill(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


@contextmanager
def serving(folder: Path, seed: int) -> Iterator[Server]:
    server = Server(folder, seed)
    server.start()
    try:
        yield server
    finally:
        server.kill()


def accuracy(network: nn.Module, data: Dataset) -> float:
    """Percent of all test images."""
    network.eval()
    with torch.no_grad():
        right = sum(int((network(x).argmax(1) == y).sum()) for x, y in data.test_batches(500))
    return 100.0 * right / len(data.test_y)


def trained(data: Dataset, folder: Path) -> tuple[nn.Module, nn.Module]:
    """The digital network, and the one that is trained for the data sheet, from one start."""
    torch.manual_seed(0)
    net = build("mlp", sizes=SIZES)
    batches = partial(data.train_batches, BATCH, seed=0)
    mho.fit(net, batches(), recipe=DIGITAL, checkpoint=folder / "digital", resume=True)
    sheet = mho.convert(net, SHEET, clip_sigma=2.5)
    mho.calibrate(sheet, batches())
    mho.fit(sheet, batches(), recipe=TUNING, checkpoint=folder / "sheet", resume=True)
    return net.eval(), sheet.eval()


def for_the_twin(sheet: nn.Module, session: Session, data: Dataset) -> tuple[nn.Module, dict[str, Any], Any]:
    """The network trained on the twin of one chip: the description that was fitted, and the columns of its tiles."""
    network = copy.deepcopy(sheet)
    placement = place(network, session.capabilities())
    before = session.budget.calls
    began = time.monotonic()
    fitted = fit_twin(session, tile=placement.tiles[0])
    columns = measure_columns(session, placement.tiles)
    cost = {"calls": session.budget.calls - before, "seconds": round(time.monotonic() - began, 1)}
    cost["error_over_noise"] = fitted.error_over_noise
    twin = ChipTwin(fitted.hardware, placement, columns)
    with substituted(network, lambda _: twin):
        mho.fit(network, data.train_batches(BATCH, seed=0), recipe=TUNING)
    return network.eval(), cost, columns


def one_chip(seed: int, sheet: nn.Module, data: Dataset, folder: Path) -> dict[str, Any]:
    """All networks on one chip."""
    row: dict[str, Any] = {"chip": seed}
    with serving(folder / f"chip-{seed}", seed) as server, Session(RemoteDevice(server.address)) as session:
        row["data sheet"] = accuracy(deploy(sheet, session), data)
        began = time.monotonic()
        twin, cost, columns = for_the_twin(sheet, session, data)
        row["twin_s"], row["twin_measured"] = round(time.monotonic() - began, 1), cost
        row["data sheet, columns divided out"] = accuracy(deploy(sheet, session, columns=columns), data)
        row["twin"] = accuracy(deploy(twin, session), data)
        loop = copy.deepcopy(sheet)
        x, y = next(iter(data.train_batches(64, seed=99)))
        began, before = time.monotonic(), dict(session.budget.summary())
        result = fit_in_the_loop(
            loop,
            session,
            data.train_batches(BATCH, seed=0),
            recipe=TUNING,
            probe=(x, y),
            say=lambda t: print(t, flush=True),
        )
        row["loop_s"] = round(time.monotonic() - began, 1)
        row["loop_calls"] = {k: round(v - before[k], 3) for k, v in result.budget.items()}
        row["cosine"] = list(result.cosines)
        row["in the loop"] = accuracy(deploy(loop, session), data)
    print(row, flush=True)
    return row


def chips(given: argparse.Namespace, data: Dataset) -> None:
    """Must show 1."""
    net, sheet = trained(data, given.out)
    rows: list[dict[str, Any]] = []
    for seed in given.chips:
        rows.append(one_chip(seed, sheet, data, given.out))
        document = {
            "command": f"python benchmarks/lab_loop.py chips --chips {' '.join(map(str, given.chips))}",
            "network": list(SIZES),
            "images": len(data.test_y),
            "training_seeds": 1,
            "digital": accuracy(net, data),
            "data sheet on its own surrogate": accuracy(sheet, data),
            "chips": rows,
        }
        write_atomically(given.results / "lab-loop.json", (json.dumps(document, indent=1) + "\n").encode())


def train_with_faults(given: argparse.Namespace, data: Dataset) -> None:
    """The trainer of the run with faults; started again with the same words it resumes."""
    _, sheet = trained(data, given.out)
    log = EventLog(given.run / "events.jsonl")
    injected = (given.run / "injected.jsonl").open("a")

    def note(fault: Fault) -> None:
        injected.write(json.dumps(asdict(fault)) + "\n")
        injected.flush()

    device = RemoteDevice(given.address)
    if not given.clean:
        device = FaultyDevice(device, PLAN, seed=1, on_fault=note)
    policy = Policy(timeout_s=10.0, give_up_s=60.0)
    recorder = Recorder(Session(device, policy, log=log), given.run / "recording")
    _loop(sheet, recorder, data, given, log)
    recorder.close()


def _loop(sheet: nn.Module, device: Any, data: Dataset, given: argparse.Namespace, log: EventLog | None) -> None:
    network = copy.deepcopy(sheet)
    result = fit_in_the_loop(
        network,
        device,
        data.train_batches(BATCH, seed=0, subset=given.subset),
        recipe=LOOP,
        checkpoint=given.run / ("replay-checkpoint" if given.what == "replay" else "checkpoint"),
        checkpoint_every=SAVE_EVERY,
        resume=given.what != "replay",
        log=log,
    )
    torch.save(network.state_dict(), given.run / ("replayed.pt" if given.what == "replay" else "network.pt"))
    steps = {"steps": result.history.steps, "refused": result.history.refused}
    write_atomically(given.run / f"{given.what}.json", json.dumps(steps).encode())


def replay(given: argparse.Namespace, data: Dataset) -> None:
    """The run from its recording, without a server."""
    _, sheet = trained(data, given.out)
    _loop(sheet, ReplayDevice(given.run / "recording"), data, given, None)


def faults(given: argparse.Namespace, data: Dataset) -> None:
    """Must show 2 and 3."""
    _, sheet = trained(data, given.out)
    found: dict[str, Any] = {"command": "python benchmarks/lab_loop.py faults", "subset": given.subset}
    for name in ("clean", "faulty"):
        run = given.out / name
        run.mkdir(parents=True, exist_ok=True)
        for old in ("events.jsonl", "injected.jsonl", "recording", "network.pt", "train.json"):
            (run / old).unlink(missing_ok=True)
        with serving(run, given.chips[0]) as server:
            found[name] = _supervise(server, given, run, name == "clean")
            network = copy.deepcopy(sheet)
            network.load_state_dict(torch.load(run / "network.pt"))
            with Session(RemoteDevice(server.address), Policy(give_up_s=60.0)) as session:
                found[name]["accuracy"] = accuracy(deploy(network, session), data)
        if name == "faulty":
            _trainer("replay", given, run, "none").wait()
            a, b = torch.load(run / "network.pt"), torch.load(run / "replayed.pt")
            found[name]["replayed to the same bits"] = all(torch.equal(a[k], b[k]) for k in a)
            found[name]["recording_MB"] = round((run / "recording").stat().st_size / 1e6, 1)
        print(found[name], flush=True)
    write_atomically(given.results / "lab-faults.json", (json.dumps(found, indent=1) + "\n").encode())


def _trainer(what: str, given: argparse.Namespace, run: Path, address: str) -> subprocess.Popen[bytes]:
    words = [sys.executable, __file__, what, "--out", str(given.out), "--run", str(run), "--address", address]
    words += ["--subset", str(given.subset)] + (["--clean"] if what == "train" and run.name == "clean" else [])
    words += ["--data-dir", str(given.data_dir)] if given.data_dir else []
    return subprocess.Popen(words, env=os.environ)


def _supervise(server: Server, given: argparse.Namespace, run: Path, clean: bool) -> dict[str, Any]:
    """Run the trainer to its end; unless ``clean``, kill the server twice and the trainer once on the way."""
    began = time.monotonic()
    trainer = _trainer("train", given, run, server.address)
    kills = [] if clean else [("server", 0.2), ("trainer", 0.45), ("server", 0.7)]
    done: list[str] = []
    while trainer.poll() is None:
        time.sleep(0.2)
        share = _progress(run, given.subset)
        if kills and share >= kills[0][1]:
            what, _ = kills.pop(0)
            done.append(f"{what} at {share:.2f}")
            if what == "server":
                server.kill()
                time.sleep(2.0)
                server.start()
            else:
                trainer.kill()
                trainer.wait()
                trainer = _trainer("train", given, run, server.address)
    if trainer.returncode != 0:
        raise SystemExit(f"the trainer ended with {trainer.returncode}")
    events, injected = _counts(run / "events.jsonl", "kind"), _counts(run / "injected.jsonl", "kind")
    return {
        **json.loads((run / "train.json").read_text()),
        "kills": done,
        "wall_s": round(time.monotonic() - began, 1),
        "injected": injected,
        "events": events,
    }


def _counts(path: Path, key: str) -> dict[str, int]:
    found: dict[str, int] = {}
    if path.exists():
        for line in path.read_text().splitlines():
            kind = json.loads(line)[key]
            found[kind] = found.get(kind, 0) + 1
    return found


def _progress(run: Path, subset: int) -> float:
    """Share of the steps, by the newest checkpoint."""
    saves = [int(p.name.removeprefix("save-")) for p in (run / "checkpoint").glob("save-*")]
    return SAVE_EVERY * max(saves, default=0) / (subset / BATCH)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("what", choices=("chips", "faults", "train", "replay"))
    options.add_argument("--data-dir", type=Path, default=None)
    options.add_argument("--chips", type=int, nargs="+", default=[1, 2, 3, 4, 5])
    options.add_argument("--subset", type=int, default=60_000, help="training images of the run with faults")
    options.add_argument("--out", type=Path, default=Path("runs/lab-loop"))
    options.add_argument("--run", type=Path, default=None)
    options.add_argument("--address", default=None)
    options.add_argument("--clean", action="store_true")
    options.add_argument("--results", type=Path, default=Path(__file__).parent / "results")
    given = options.parse_args()
    data = load_dataset("mnist", data_dir=given.data_dir)
    {"chips": chips, "faults": faults, "train": train_with_faults, "replay": replay}[given.what](given, data)


if __name__ == "__main__":
    main()
