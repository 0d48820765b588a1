"""``mho serve`` as a person meets it: one line when it is ready, a clean end, clear errors."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import typer

import mho
from mho.cli.lab import read_token, serve
from mho.errors import DataError, RangeError
from mho.lab.remote import RemoteDevice

CODE = "import typer; from mho.cli.lab import serve; typer.run(serve)"
LISTEN = ["--hardware", "pcm-hermes", "--seed", "7", "--listen", "127.0.0.1:0"]


@pytest.fixture
def start():
    """Starts the command in a process of its own; what is left is killed."""
    started = []

    def run(*arguments, **variables):
        environment = {**os.environ, "PYTHONPATH": str(Path(mho.__file__).parents[1]), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-c", CODE, *arguments]
        pipe = subprocess.PIPE
        process = subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env={**environment, **variables})
        started.append(process)
        return process

    yield run
    for process in started:
        process.kill()
        process.communicate()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 0)])
def test_one_line_when_ready_and_a_clean_end(start, number, code):
    process = start(*LISTEN, "--tiles", "3", "--max-wait", "5", MHO_TOKEN="s3cret-s3cret")
    line = process.stdout.readline()
    assert line.startswith("pcm-hermes, seed 7, 3 tiles: grpc://127.0.0.1:")
    address = line.split()[-1]
    with RemoteDevice(address, token="s3cret-s3cret") as device:
        assert device.capabilities().tiles == 3
        assert device.capabilities().max_wait_s == 5.0
        first = device.health().boot
    with RemoteDevice(address) as stranger, pytest.raises(RangeError, match="wrong or no token"):
        stranger.capabilities()
    process.send_signal(number)
    out, err = process.communicate(timeout=20)
    assert process.returncode == code
    assert out == "" and "Traceback" not in err and "s3cret" not in err
    assert len(first) == 32  # a chip that is made anew says so


def test_a_port_in_use(monkeypatch):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(RangeError, match=r"it cannot be listened on.*Fix: choose another port"):
            serve("pcm-hermes", listen=f"127.0.0.1:{taken.getsockname()[1]}", tiles=1)


def test_a_note_about_open_doors(start):
    process = start(*LISTEN[:-1], "0.0.0.0:0")
    assert "with no token and no TLS" in process.stderr.readline()


def test_certificate_and_key_belong_together(tmp_path):
    with pytest.raises(typer.BadParameter, match=r"--tls-cert and --tls-key belong together"):
        serve("pcm-hermes", tls_cert=tmp_path / "cert.pem")


def test_where_the_token_comes_from(tmp_path, monkeypatch):
    monkeypatch.setenv("MHO_TOKEN", "of the environment")
    assert read_token(None) == "of the environment"
    file = tmp_path / "token"
    file.write_text("of the file\n")
    assert read_token(file) == "of the file"
    file.write_text("\n")
    with pytest.raises(DataError, match=r"it is empty. Fix: write the token"):
        read_token(file)
    with pytest.raises(DataError, match=r"No such file.*Fix: give a text file"):
        read_token(tmp_path / "none")
    monkeypatch.delenv("MHO_TOKEN")
    assert read_token(None) is None
