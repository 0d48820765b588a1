"""What was recorded is replayed to the same bits; a killed recorder loses nothing; another run is told from it."""

import os
import signal
import struct
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import mho
from mho.errors import DataError, DeviceFault, RangeError, TransportError
from mho.hardware import load_hardware
from mho.lab import Policy, Session, VirtualDevice, wait
from mho.lab.faults import FaultPlan, FaultyDevice
from mho.lab.protocol import Device, Health, NotProgrammed, Readout
from mho.lab.record import NotRecorded, Recorder, ReplayDevice
from mho.lab.record.calls import first_difference, tell_error
from mho.lab.record.frames import MAGIC, load, pack, scan
from mho.rng import normals, uniforms
from mho.testing import check_device
from mho.testing.device_bench import Bench
from mho.testing.device_physics import program_once
from mho.testing.devices import CHECKS

ROWS, COLS = 12, 8


def chip(seed: int = 5) -> VirtualDevice:
    return VirtualDevice(load_hardware("pcm-hermes"), seed, tiles=2, rows=ROWS, cols=COLS)


OPEN: list[ReplayDevice] = []


def opened(path: Path, strict: bool = True, boot: str | None = None) -> ReplayDevice:
    OPEN.append(ReplayDevice(path, strict, boot=boot))
    return OPEN[-1]


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    yield
    while OPEN:
        OPEN.pop().close()


TARGETS = normals((ROWS, COLS), "record", "targets").clamp(-2, 2)
INPUTS = (normals((6, ROWS), "record", "inputs") / 20).clamp(-0.1, 0.1)


def multiply(device: Device, operation: str, scale: float = 1.0, repeats: int = 2) -> Readout:
    return device.mvm(0, INPUTS * scale, operation=operation, full_scale_uA=5.0, repeats=repeats)


def train(device: Device, first: int = 0, last: int = 6, weights: Tensor | None = None) -> list[object]:
    """A run whose inputs depend on all answers before them: any other bit anywhere changes the rest."""
    w = torch.zeros(COLS) if weights is None else weights
    seen: list[object] = [device.health().boot] if first == 0 else []
    for k in range(first, last):
        targets = (TARGETS + w * 1e-2).clamp(-2, 2)
        report = device.program(k % 2, targets, operation=f"w{k}", mask=None if k < 2 else TARGETS > 0)
        x = (INPUTS * (1 + w.sum() * 1e-3)).clamp(-0.1, 0.1)
        readout = device.mvm(k % 2, x, operation=f"m{k}", full_scale_uA=5.0, repeats=2)
        w = w + readout.mean_uA()[0].nan_to_num(0).mean(0) + device.read(k % 2).g_uS.nan_to_num(0).mean(0)
        if k == 3:
            seen.append(device.calibrate())
        seen += [report, readout, device.health(), w]
    return seen


def bits(value: object) -> object:
    """Something that is equal exactly when all bits are."""
    if isinstance(value, Tensor):
        return value.dtype, tuple(value.shape), value.contiguous().numpy().tobytes()
    if isinstance(value, list):
        return [bits(v) for v in value]
    if hasattr(value, "__dataclass_fields__"):
        return type(value).__name__, [bits(getattr(value, f.name)) for f in fields(value)]
    return value


@pytest.mark.parametrize("inputs", ["whole", "digest"])
def test_replay_gives_the_same_bits_without_the_device(tmp_path: Path, inputs: str) -> None:
    recorder = Recorder(chip(), tmp_path / "run.mho", inputs=inputs)
    recorded = train(recorder)
    recorder.close()
    replay = opened(tmp_path / "run.mho")
    assert replay.capabilities() == chip().capabilities()
    assert bits(train(replay)) == bits(recorded)
    assert replay.dropped_bytes == 0
    assert bits(train(opened(tmp_path / "run.mho"))) != bits(train(chip(6)))  # the comparison can fail


def test_a_run_with_faults_behind_the_policies_is_replayed_without_them(tmp_path: Path) -> None:
    plan = FaultPlan.uniform(0.4, delay_s=0.0)
    faulty = FaultyDevice(chip(), plan, 3)
    session = Session(Recorder(faulty, tmp_path / "run.mho"), sleep=lambda s: None)
    recorded = train(session)
    session.close()
    assert sum(faulty.injected.values()) > 5
    replayed = Session(opened(tmp_path / "run.mho"), sleep=lambda s: None)
    assert bits(train(replayed)) == bits(recorded)


def test_the_recorder_and_its_replay_are_devices(tmp_path: Path) -> None:
    paths = (tmp_path / f"{k}.mho" for k in range(100))
    used: list[Path] = []

    def recorder() -> Recorder:
        used.append(next(paths))
        return Recorder(chip(), used[-1])

    report = check_device(recorder)
    assert not report.skipped
    for check, path in zip(CHECKS, used, strict=True):
        if check is program_once:  # asks for other targets under the same name: not a run that can be replayed
            continue
        check(Bench(opened(path), f"check_device/{check.__name__}", 0.1))


SOURCE = str(Path(mho.__file__).parents[1])


def killed_in_the_middle(path: Path) -> None:
    """A process that records and is killed by -9 while it does."""
    code = textwrap.dedent(f"""
        import os, signal, torch
        from mho.hardware import load_hardware
        from mho.lab import VirtualDevice
        from mho.lab.record import Recorder
        chip = VirtualDevice(load_hardware("pcm-hermes"), 5, tiles=2, rows={ROWS}, cols={COLS})
        device = Recorder(chip, {str(path)!r})
        device.program(0, torch.zeros({ROWS}, {COLS}), operation="w")
        for k in range(5):
            device.mvm(0, torch.ones(6, {ROWS}) * 0.01 * k, operation=f"m{{k}}", full_scale_uA=5.0)
        print("ready", flush=True)
        k = 5
        while True:
            device.mvm(0, torch.ones(6, {ROWS}) * 0.01, operation=f"m{{k}}", full_scale_uA=5.0)
            k += 1
    """)
    process = subprocess.Popen([sys.executable, "-c", code], env={"PYTHONPATH": SOURCE}, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()


def test_kill_9_loses_no_answer_that_was_given(tmp_path: Path) -> None:
    path = tmp_path / "run.mho"
    killed_in_the_middle(path)
    replay = opened(path)
    for k in range(5):
        expected = torch.ones(6, ROWS) * 0.01 * k
        assert replay.mvm(0, expected, operation=f"m{k}", full_scale_uA=5.0).currents_uA.shape == (1, 6, COLS)
    replay.close()
    again = Recorder(chip(), path)
    assert again.life == 1
    again.close()
    assert len(opened(path)) == len(replay)


def test_a_torn_end_is_dropped_at_every_length(tmp_path: Path) -> None:
    whole = tmp_path / "whole.mho"
    recorder = Recorder(chip(), whole)
    recorder.program(0, TARGETS, operation="w")
    before = whole.stat().st_size
    expected = multiply(recorder, "a")
    middle = whole.stat().st_size
    multiply(recorder, "b")
    recorder.close()
    content = whole.read_bytes()
    torn = tmp_path / "torn.mho"
    for size in (*range(middle, len(content), 37), len(content) - 1):
        torn.write_bytes(content[:size])
        replay = opened(torn)
        assert replay.dropped_bytes == size - middle
        replay.program(0, TARGETS, operation="w")
        assert bits(multiply(replay, "a")) == bits(expected)
        with pytest.raises(NotRecorded, match="mvm 'b' is not among its 2 calls"):
            multiply(replay, "b")
    torn.write_bytes(content[: middle + 50])
    resumed = Recorder(chip(), torn)
    assert resumed.dropped_bytes == 50
    resumed.program(0, TARGETS, operation="w")
    multiply(resumed, "b")
    resumed.close()
    assert len(opened(torn)) == 3
    lost = bytearray(content)  # power failed: the length is there, the end of the bytes is not
    lost[-40:] = bytes(40)
    torn.write_bytes(lost)
    assert opened(torn).dropped_bytes == len(content) - middle
    assert before < middle


@pytest.mark.parametrize("size", range(len(MAGIC)))
def test_a_file_that_was_torn_in_its_first_line(tmp_path: Path, size: int) -> None:
    path = tmp_path / "run.mho"
    path.write_bytes(MAGIC[:size])
    with pytest.raises(DataError, match="without a single whole frame"):
        opened(path)
    recorder = Recorder(chip(), path)
    recorder.program(0, TARGETS, operation="w")
    recorder.close()
    assert len(opened(path)) == 1


def test_damage_in_the_middle_is_an_error_and_names_the_byte(tmp_path: Path) -> None:
    path = tmp_path / "run.mho"
    recorder = Recorder(chip(), path)
    recorder.program(0, TARGETS, operation="w")
    start = path.stat().st_size
    multiply(recorder, "a")
    multiply(recorder, "b")
    recorder.close()
    content = path.read_bytes()
    head = bytearray(content)
    head[start + 5] ^= 1
    path.write_bytes(head)
    for open_it in (lambda: opened(path), lambda: Recorder(chip(), path)):
        with pytest.raises(DataError, match=rf"damaged at byte {start} \(the head of a frame\).*truncate -s {start}"):
            open_it()
    assert path.read_bytes() == head  # nothing was cut off
    payload = bytearray(content)
    payload[start + 700] ^= 1
    path.write_bytes(payload)
    with pytest.raises(DataError, match=f"damaged at byte {start}"):
        multiply(opened(path), "a")
    multiply(opened(path), "b")


@settings(max_examples=150, deadline=None)
@given(at=st.integers(0, 10**6), flip=st.integers(1, 255), cut=st.integers(0, 3))
def test_damaged_bytes_never_become_other_answers(tmp_path_factory, at: int, flip: int, cut: int) -> None:
    content = bytearray(RECORDING.bytes(tmp_path_factory))
    content[at % len(content)] ^= flip
    path = tmp_path_factory.getbasetemp() / "fuzz.mho"
    path.write_bytes(content[: len(content) - cut])
    try:
        replay = opened(path)
        for name in ("a", "b"):
            assert bits(multiply(replay, name)) == bits(RECORDING.answers[name])
    except (DataError, NotRecorded):
        pass
    finally:
        path.unlink()


class _Recording:
    """One recording for all examples."""

    content: bytes | None = None
    answers: dict[str, Readout]

    def bytes(self, factory) -> bytes:
        if self.content is None:
            path = factory.mktemp("fuzz") / "run.mho"
            recorder = Recorder(chip(), path)
            recorder.program(0, TARGETS, operation="w")
            self.answers = {name: multiply(recorder, name) for name in ("a", "b")}
            recorder.close()
            self.content = path.read_bytes()
        return self.content


RECORDING = _Recording()


def test_another_run_is_told_from_the_recorded_one(tmp_path: Path) -> None:
    path = tmp_path / "run.mho"
    recorder = Recorder(chip(), path)
    recorder.program(0, TARGETS, operation="w")
    multiply(recorder, "step 1")
    recorder.close()
    replay = opened(path)
    changed = INPUTS.clone()
    changed[2, 7] += 0.01
    with pytest.raises(NotRecorded, match=r"mvm 'step 1': inputs_V\[2, 7\] = .*, recorded .* \(1 of 72 differ\)"):
        replay.mvm(0, changed, operation="step 1", full_scale_uA=5.0, repeats=2)
    with pytest.raises(NotRecorded, match="mvm 'step 1': repeats = 3, recorded 2"):
        multiply(replay, "step 1", repeats=3)
    with pytest.raises(NotRecorded, match=r"full_scale_uA = 4.0, recorded 5.0"):
        replay.mvm(0, INPUTS, operation="step 1", full_scale_uA=4.0, repeats=2)
    with pytest.raises(NotRecorded, match="program 'w': tile = 1, recorded 0"):
        replay.program(1, TARGETS, operation="w")
    with pytest.raises(NotRecorded, match="program 'w': mask is given, and was not before"):
        replay.program(0, TARGETS, operation="w", mask=TARGETS > 0)
    with pytest.raises(NotRecorded, match=r"inputs_V is torch.float32 \[5, 12\], recorded torch.float32 \[6, 12\]"):
        replay.mvm(0, INPUTS[:5], operation="step 1", full_scale_uA=5.0, repeats=2)
    with pytest.raises(NotRecorded, match=r"mvm 'step 2' is not among its 2 calls \(last answered: .*step 1"):
        multiply(replay, "step 2")
    with pytest.raises(NotRecorded, match="read of tile 0, number 1 after 'mvm step 2' is not among"):
        replay.read(0)
    assert issubclass(NotRecorded, RangeError)  # a session does not try again
    loose = opened(path, strict=False)
    assert loose.mvm(0, changed, operation="step 1", full_scale_uA=1.0, repeats=9).currents_uA.shape[0] == 2


def test_digests_tell_that_inputs_differ(tmp_path: Path) -> None:
    recorder = Recorder(chip(), tmp_path / "run.mho", inputs="digest")
    recorder.program(0, TARGETS, operation="w")
    multiply(recorder, "a")
    recorder.close()
    replay = opened(tmp_path / "run.mho")
    with pytest.raises(NotRecorded, match="inputs_V has another digest"):
        multiply(replay, "a", scale=1.01)
    multiply(replay, "a")


class Moody:
    """A device that raises what it is told to."""

    def __init__(self) -> None:
        self.inner = chip()
        self.errors: list[Exception] = []
        self.boot = "A"

    def __getattr__(self, name: str):
        def call(*args, **rest):
            if self.errors and name != "capabilities":
                raise self.errors.pop(0)
            answer = getattr(self.inner, name)(*args, **rest)
            return replace(answer, boot=self.boot) if isinstance(answer, Health) else answer

        return call


class OwnFault(DeviceFault):
    """A class that the protocol does not know."""


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (TransportError("the cable"), TransportError),
        (RangeError("too much"), RangeError),
        (NotProgrammed("nothing there"), NotProgrammed),
        (OwnFault("its own"), DeviceFault),
        (ZeroDivisionError("a bug"), DeviceFault),
    ],
)
def test_errors_are_raised_again_as_what_they_were(tmp_path: Path, error: Exception, kind: type[Exception]) -> None:
    moody = Moody()
    recorder = Recorder(moody, tmp_path / "run.mho")
    moody.errors = [error]
    with pytest.raises(type(error)):
        multiply(recorder, "a")
    recorder.close()
    with pytest.raises(DeviceFault if kind is DeviceFault else kind) as caught:
        multiply(opened(tmp_path / "run.mho"), "a")
    assert type(caught.value) is kind
    assert str(error) in str(caught.value)


def test_the_attempt_that_was_asked_last_counts(tmp_path: Path) -> None:
    """Also where the answer to an earlier one, which the host had given up, comes in later."""
    moody = Moody()
    recorder = Recorder(moody, tmp_path / "run.mho")
    recorder.program(0, TARGETS, operation="w")
    moody.errors = [TransportError("lost")]
    with pytest.raises(TransportError):
        multiply(recorder, "a")
    expected = multiply(recorder, "a")
    recorder.close()
    assert bits(multiply(opened(tmp_path / "run.mho"), "a")) == bits(expected)
    moody.inner = chip()

    late, given_up = threading.Event(), threading.Event()
    inner = moody.inner

    class Slow:
        def __getattr__(self, name: str):
            return getattr(inner, name)

        def mvm(self, tile, inputs_V, **rest):
            answer = inner.mvm(tile, inputs_V, **rest)
            if not given_up.is_set():
                given_up.set()
                late.wait(10)
                answer = replace(answer, currents_uA=answer.currents_uA + 1)
            return answer

    slow = Recorder(Slow(), tmp_path / "slow.mho")
    slow.program(0, TARGETS, operation="w")
    first = threading.Thread(target=multiply, args=(slow, "a"))
    first.start()
    given_up.wait(10)
    answered = multiply(slow, "a")
    late.set()
    first.join()
    slow.close()
    assert bits(multiply(opened(tmp_path / "slow.mho"), "a")) == bits(answered)


def test_a_run_that_was_killed_and_resumed_is_replayed_from_end_to_end(tmp_path: Path) -> None:
    """Life 0 runs to step 4 and is killed; life 1 resumes from a checkpoint after step 1. What counts is life 1."""
    path = tmp_path / "run.mho"
    moody = Moody()
    first = Recorder(moody, path)
    begun = train(first, 0, 4)
    first.close()
    weights = begun[8]
    assert isinstance(weights, Tensor)
    moody = Moody()
    moody.inner = chip()
    moody.boot = "B"
    for k in range(2):  # the device is where it was, its memory of operations is not
        moody.inner.program(k, TARGETS, operation=f"before {k}")
    second = Recorder(moody, path)
    second.health()  # what a host asks for when it comes up; in a run without a break there is no such call
    rest = train(second, 2, 6, weights)
    second.close()
    assert second.life == 1
    through = train(opened(path))
    assert bits(through) == bits(begun[:9] + rest)
    assert bits(through) != bits(begun[:9] + begun[9:] + rest[-9:])
    assert through[0] == "A"  # calls before any operation: the first life counts
    steady = train(opened(path, boot="replay"))
    assert {h.boot for h in steady if isinstance(h, Health)} == {"replay"}


def test_another_device_is_not_recorded_on_top(tmp_path: Path) -> None:
    Recorder(chip(5), tmp_path / "run.mho").close()
    size = (tmp_path / "run.mho").stat().st_size
    with pytest.raises(DataError, match=r"a recording of a device with serial = .* Fix: record to another file"):
        Recorder(chip(6), tmp_path / "run.mho")
    assert (tmp_path / "run.mho").stat().st_size == size


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"MHOREC2\n" + bytes(30), "version 2; this package reads version 1"),
        (b"\x89PNG\r\n\x1a\n", "no recording"),
        (b"MH\n", "no recording"),
        (MAGIC, "without a single whole frame"),
    ],
)
def test_files_that_are_no_recording(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(DataError, match=message):
        opened(tmp_path / "x")
    if content != MAGIC:
        with pytest.raises(DataError, match=message):
            Recorder(chip(), tmp_path / "x")
        assert (tmp_path / "x").read_bytes() == content


def test_files_that_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="No such file"):
        opened(tmp_path / "none")
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(DataError, match="cannot be written"):
        Recorder(chip(), tmp_path / "file" / "run.mho")
    with pytest.raises(DataError, match="inputs = 'all'"):
        Recorder(chip(), tmp_path / "run.mho", inputs="all")  # type: ignore[arg-type]


def test_a_full_disk_is_an_error_and_leaves_whole_frames(tmp_path: Path) -> None:
    code = textwrap.dedent(f"""
        import resource, signal, torch
        from mho.errors import DataError
        from mho.hardware import load_hardware
        from mho.lab import VirtualDevice
        from mho.lab.record import Recorder, ReplayDevice
        path = {str(tmp_path / "run.mho")!r}
        device = Recorder(VirtualDevice(load_hardware("ideal"), 5, rows=16, cols=16), path)
        device.program(0, torch.zeros(16, 16), operation="w")
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))
        told = ""
        for k in range(100):
            try:
                device.mvm(0, torch.zeros(8, 16), operation=f"m{{k}}", full_scale_uA=5.0)
            except DataError as error:
                told = str(error)
                break
        assert "cannot be written" in told, told
        device.close()
        replay = ReplayDevice(path)
        assert replay.dropped_bytes == 0
        print(k, len(replay))
    """)
    done = subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": SOURCE}, capture_output=True, text=True)
    assert done.stderr == ""
    k, count = map(int, done.stdout.split())
    assert count == k + 1 > 3


def test_closed_recorders_and_replays(tmp_path: Path) -> None:
    recorder = Recorder(chip(), tmp_path / "run.mho")
    recorder.close()
    recorder.close()
    with pytest.raises(DeviceFault, match="closed"):
        recorder.health()
    replay = opened(tmp_path / "run.mho")
    replay.close()
    replay.close()
    with pytest.raises(DeviceFault, match=r"it was closed. Fix: open it again"):
        replay.capabilities()


DTYPES = [torch.float32, torch.float64, torch.bool, torch.uint8, torch.int32, torch.int64]


@settings(max_examples=60, deadline=None)
@given(
    shapes=st.lists(st.lists(st.integers(0, 4), max_size=4), max_size=4),
    kinds=st.lists(st.sampled_from(DTYPES), min_size=4, max_size=4),
    seed=st.integers(0, 10**6),
)
def test_frames_come_back_whatever_tensors_they_hold(tmp_path_factory, shapes, kinds, seed) -> None:
    tensors = [
        (f"t{k}", (uniforms(tuple(shape), seed, k) * 300 - 20).to(kind))
        for k, (shape, kind) in enumerate(zip(shapes, kinds, strict=False))
    ]
    path = tmp_path_factory.getbasetemp() / "frames.mho"
    path.write_bytes(MAGIC + pack({"seed": seed}, tensors) + pack({"seed": -1}, []))
    with path.open("rb") as stream:
        first, second = scan(stream, "x")
        found = load(stream, first, "x")
    assert first.header["seed"] == seed
    assert second.header["seed"] == -1
    assert list(found) == [name for name, _ in tensors]
    for name, tensor in tensors:
        assert bits(found[name]) == bits(tensor)


def test_the_layout_is_the_published_one() -> None:
    frame = pack({"a": 1}, [("x", torch.tensor([1.0, -0.0, torch.nan]))])
    assert frame[:4] == b"FRAM"
    header, payload = struct.unpack("<IQ", frame[4:16])
    assert frame[20 : 20 + header] == b'{"a":1,"tensors":[["x","float32",[3]]]}'
    at = 20 + header + 4
    assert frame[at : at + payload] == struct.pack("<3f", 1.0, -0.0, float("nan"))
    assert len(frame) == at + payload + 4
    with pytest.raises(DataError, match="x: a recording holds no bfloat16"):
        pack({}, [("x", torch.zeros(2, dtype=torch.bfloat16))])


def test_differences_and_errors_in_words() -> None:
    a = torch.tensor([1.0, torch.nan, 3.0])
    assert first_difference("a", a, a.clone()) == ""
    assert first_difference("a", a, torch.tensor([1.0, torch.nan, 4.0])) == "a[2] = 3.0, recorded 4.0 (1 of 3 differ)"
    assert first_difference("a", a, torch.tensor([1.0, 0.0, 3.0])).startswith("a[1] = nan, recorded 0.0")
    assert tell_error(OwnFault("x"))["classes"][:2] == ["OwnFault", "DeviceFault"]


def test_a_wait_is_recorded_and_takes_no_time_again(tmp_path: Path) -> None:
    """The recorder stands around a session whose device loses answers: the host saw one wait of each."""

    def run(device: Device) -> list[object]:
        device.program(0, TARGETS, operation="w")
        seen: list[object] = [multiply(device, "young")]
        for k in range(3):
            seen += [wait(device, 10.0**k), device.read(0), multiply(device, f"old {k}")]
        return seen

    path = tmp_path / "waits.mho"
    lossy = FaultyDevice(chip(), FaultPlan(drop_after=0.3), 3, sleep=lambda s: None)
    with Recorder(Session(lossy, Policy(backoff_s=0.0)), path) as recorder:
        first = run(recorder)
    assert lossy.injected["drop_after"] > 0
    again = run(opened(path))
    for one, two in zip(first, again, strict=True):
        for name, value in vars(one).items():
            other = getattr(two, name)
            assert torch.equal(value, other) if isinstance(value, Tensor) else value == other, name
    other_run = opened(path)
    other_run.program(0, TARGETS, operation="w")
    multiply(other_run, "young")
    with pytest.raises(NotRecorded, match=r"wait, number 1 after 'mvm young': time_s = 77.0, recorded"):
        other_run.wait_until(77.0)
