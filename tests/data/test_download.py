"""Downloads from a server on loopback that can break off, refuse and send the wrong thing."""

import hashlib
import re
import threading
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from mho.data import SOURCES, FileSum, load_dataset
from mho.data.download import ResumingDownloader, fetch
from mho.data.idx import write_idx
from mho.errors import DataError

CONTENT = np.random.default_rng(1).integers(0, 256, 300_000, dtype=np.uint8).tobytes()


@dataclass
class Site:
    """What the server holds, how it misbehaves and what it was asked."""

    files: dict[str, bytes]
    breaks_after: list[int] = field(default_factory=list)
    ranges: bool = True
    asked: list[tuple[str, str | None]] = field(default_factory=list)
    url: str = ""


class Handler(BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def do_GET(self):
        site = self.server.site
        asked = self.headers.get("Range")
        site.asked.append((self.path, asked))
        content = site.files.get(self.path.lstrip("/"))
        if content is None:
            self.send_error(404)
            return
        start = int(re.fullmatch(r"bytes=(\d+)-", asked)[1]) if asked and site.ranges else 0
        if start and start >= len(content):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(content)}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        stop = start + site.breaks_after.pop(0) if site.breaks_after else len(content)
        self.wfile.write(content[start:stop])


@pytest.fixture
def site(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.site = Site({"a.bin": CONTENT}, url=f"http://127.0.0.1:{server.server_port}/")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield server.site
    server.shutdown()
    server.server_close()


def source_of(site, files, **changes):
    sums = tuple(FileSum(name, "sha256:" + hashlib.sha256(content).hexdigest()) for name, content in files.items())
    return replace(SOURCES["cifar10"], base_url=site.url, files=sums, **changes)


@pytest.fixture
def impatient(monkeypatch):
    """No waiting between transfers."""
    monkeypatch.setattr("mho.data.download.time.sleep", lambda _: None)


def test_download_and_then_no_second_one(site, tmp_path):
    source = source_of(site, {"a.bin": CONTENT})
    seen = []
    fetch(source, tmp_path, lambda *report: seen.append(report))
    fetch(source, tmp_path)
    assert (tmp_path / "a.bin").read_bytes() == CONTENT
    assert site.asked == [("/a.bin", None)]
    assert seen[-1] == (site.url + "a.bin", len(CONTENT), len(CONTENT))
    assert not list(tmp_path.glob("*.part"))


def test_a_base_url_needs_no_slash(site, tmp_path):
    source = source_of(site, {"a.bin": CONTENT})
    fetch(replace(source, base_url=site.url.rstrip("/")), tmp_path)
    assert (tmp_path / "a.bin").read_bytes() == CONTENT


@pytest.mark.parametrize("ranges", [True, False])
def test_broken_transfers_go_on(site, tmp_path, impatient, ranges):
    site.breaks_after = [100_000, 50_000]
    site.ranges = ranges
    fetch(source_of(site, {"a.bin": CONTENT}), tmp_path)
    assert (tmp_path / "a.bin").read_bytes() == CONTENT
    assert site.asked[:2] == [("/a.bin", None), ("/a.bin", "bytes=100000-")]
    assert len(site.asked) == 3


def test_the_next_call_goes_on_where_the_last_gave_up(site, tmp_path, impatient):
    site.breaks_after = [120_000, 0, 0, 0, 0]
    source = source_of(site, {"a.bin": CONTENT})
    with pytest.raises(DataError, match="120000 bytes are kept"):
        fetch(source, tmp_path)
    assert not (tmp_path / "a.bin").exists()
    site.asked.clear()
    site.breaks_after.clear()
    fetch(source, tmp_path)
    assert (tmp_path / "a.bin").read_bytes() == CONTENT
    assert site.asked == [("/a.bin", "bytes=120000-")]


def test_a_part_that_is_complete_is_used(site, tmp_path):
    (tmp_path / "a.bin.part").write_bytes(CONTENT)
    fetch(source_of(site, {"a.bin": CONTENT}), tmp_path)
    assert (tmp_path / "a.bin").read_bytes() == CONTENT


def test_a_part_longer_than_the_file_is_thrown_away(site, tmp_path, impatient):
    (tmp_path / "a.bin.part").write_bytes(CONTENT + b"more")
    fetch(source_of(site, {"a.bin": CONTENT}), tmp_path)
    assert (tmp_path / "a.bin").read_bytes() == CONTENT


def test_wrong_checksum_leaves_nothing_behind(site, tmp_path):
    source = source_of(site, {"a.bin": b"other"})
    with pytest.raises(DataError, match=r"wrong checksum.*data_dir"):
        fetch(source, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]


def test_a_foreign_part_is_found_out_and_forgotten(site, tmp_path):
    (tmp_path / "a.bin.part").write_bytes(b"x" * 1000)
    source = source_of(site, {"a.bin": CONTENT})
    with pytest.raises(DataError, match="wrong checksum"):
        fetch(source, tmp_path)
    fetch(source, tmp_path)
    assert (tmp_path / "a.bin").read_bytes() == CONTENT


def test_refused_address_is_asked_once(site, tmp_path):
    with pytest.raises(DataError, match="404"):
        fetch(source_of(site, {"missing.bin": b"x"}), tmp_path)
    assert len(site.asked) == 1


def test_nobody_answers(tmp_path, monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    downloader = ResumingDownloader(attempts=2, wait_s=0.0, timeout_s=1.0)
    with pytest.raises(DataError, match="give it as data_dir"):
        downloader("http://127.0.0.1:9/a.bin", str(tmp_path / "a"), None)


def test_unwritable_folder(site, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cache_dir"):
        fetch(source_of(site, {"a.bin": CONTENT}), tmp_path / "file")


def test_load_dataset_downloads_into_the_cache_and_reads_it_there(site, tmp_path):
    images, labels = np.zeros((20, 28, 28), np.uint8), (np.arange(20) % 10).astype(np.uint8)
    names = [file.name.removesuffix(".gz") for file in SOURCES["mnist"].files]
    site.files |= {name: write_idx(array) for name, array in zip(names, (images, labels) * 2, strict=True)}
    files = {name: site.files[name] for name in names}
    source = source_of(site, files, folder="MNIST/raw", train=20, test=20, mean=(0.1,), std=(0.3,))
    (tmp_path / "empty").mkdir()
    settings = {"data_dir": tmp_path / "empty", "cache_dir": tmp_path / "cache", "source": source}
    data = load_dataset("mnist", **settings)
    assert data.test_y.tolist() == labels.tolist()
    assert len(site.asked) == 4
    load_dataset("mnist", download=False, **settings)
    assert len(site.asked) == 4
    assert not list((tmp_path / "empty").iterdir())
