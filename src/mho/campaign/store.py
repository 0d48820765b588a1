"""Results on disk: one Parquet file a cell as it ends, one for all at the end.

::

    <folder>/results.parquet            what earlier starts of the campaign left
    <folder>/parts/<cell id>.parquet    one row, written under another name, synced, then renamed

A cell's file has the cell's name, so a cell cannot be there twice; where both places hold it, the part is newer.
"""

import io
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

import mho
from mho.campaign.cells import Answer, Cell, Labels
from mho.campaign.errors import CampaignError
from mho.errors import CheckpointError
from mho.evaluation.atomic import write_atomically

try:
    import pyarrow as pa
    import pyarrow.parquet as pq
except ModuleNotFoundError as error:  # pragma: no cover - the environment of the tests has it
    raise CampaignError(
        f"a campaign keeps its results in Parquet, which needs {error.name}. Fix: pip install 'mho[sweep]'."
    ) from error

FORMAT = "1"
_KEY = b"mho.campaign.format"
SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("kind", pa.string(), nullable=False),
        pa.field("status", pa.string(), nullable=False),
        pa.field("recipe", pa.string()),
        pa.field("seed", pa.int64()),
        pa.field("network", pa.string()),
        pa.field("hardware", pa.string()),
        pa.field("noise_scale", pa.float64()),
        pa.field("age_s", pa.float64()),
        pa.field("lot", pa.int64()),
        pa.field("chips", pa.int64()),
        pa.field("images", pa.int64()),
        pa.field("clean", pa.float64()),  # percent without noise
        pa.field("accuracy", pa.list_(pa.field("element", pa.float64()))),  # percent, one a chip
        pa.field("correct", pa.binary()),  # [chip, image], eight outcomes a byte
        pa.field("summary", pa.string()),  # of a run, JSON
        pa.field("message", pa.string()),  # why it failed
        pa.field("deaths", pa.int64()),  # of workers that had it in hand
        pa.field("started_at", pa.float64()),  # Unix time on the worker's clock
        pa.field("seconds", pa.float64()),
        pa.field("worker", pa.string()),
        pa.field("mho", pa.string()),
        pa.field("description", pa.string(), nullable=False),  # whose hash is the id
    ],
    metadata={_KEY: FORMAT.encode()},
)
Status = Literal["done", "failed", "given up"]


@dataclass(frozen=True, kw_only=True)
class Past:
    """What a resumed campaign needs of a cell that was there before."""

    status: str
    kind: str
    seconds: float


def row_of(cell: Cell, status: Status, deaths: int, reply: Answer | None = None, message: str = "") -> dict[str, Any]:
    """The row of a cell that came to an end: with the worker's ``reply``, or a ``message`` where none ever came."""
    row: dict[str, Any] = {
        "id": cell.id,
        "kind": cell.kind,
        "status": status,
        **asdict(cell.labels),
        "message": (reply.message if reply is not None else message) or None,
        "deaths": deaths,
        "mho": mho.__version__,
        "description": cell.description,
    }
    if reply is None:
        return row
    row |= {"started_at": reply.started_at, "seconds": reply.seconds, "worker": reply.worker}
    found = reply.found
    if found is not None and found.correct is not None:
        chips, images = found.correct.shape
        row |= {
            "chips": chips,
            "images": images,
            "accuracy": (100.0 * found.correct.mean(1)).tolist(),
            "correct": np.packbits(found.correct.ravel()).tobytes(),
        }
    if found is not None:
        row |= {"clean": found.clean, "summary": None if found.summary is None else json.dumps(found.summary)}
    return row


def outcomes(row: Mapping[str, Any]) -> NDArray[np.bool_]:
    """``correct[chip, image]`` of a row of an evaluation."""
    shape = (row["chips"], row["images"])
    packed = np.frombuffer(row["correct"], dtype=np.uint8)
    return np.unpackbits(packed, count=shape[0] * shape[1]).astype(np.bool_).reshape(shape)


def labels_of(row: Mapping[str, Any]) -> Labels:
    """The labels of a row."""
    return Labels(**{spec.name: row[spec.name] for spec in fields(Labels)})


class Store:
    """The results of one campaign in ``folder``. One process writes at a time (:func:`~mho.campaign.lock.held`)."""

    def __init__(self, folder: Path) -> None:
        self.parts = folder / "parts"
        self.whole = folder / "results.parquet"

    def append(self, row: Mapping[str, Any]) -> Path:
        """Write one row; a kill at any moment leaves all of it or nothing."""
        return write_atomically(
            self.parts / f"{row['id']}.parquet", _encoded(pa.Table.from_pylist([dict(row)], SCHEMA))
        )

    def past(self) -> dict[str, Past]:
        """Every cell that came to an end, by id."""
        found = self.table(["id", "status", "kind", "seconds"]).to_pylist()
        return {r["id"]: Past(status=r["status"], kind=r["kind"], seconds=r["seconds"] or 0.0) for r in found}

    def table(self, columns: list[str] | None = None) -> pa.Table:
        """One row a cell, the newest; ``columns``: these alone ("id" among them).

        Raises :class:`CheckpointError` naming a file that cannot be read or is of another version.
        """
        files = [self.whole] if self.whole.is_file() else []
        files += sorted(self.parts.glob("*.parquet"))
        schema = SCHEMA if columns is None else pa.schema([SCHEMA.field(name) for name in columns])
        tables = [_read(file, columns).cast(schema) for file in files]
        if not tables:
            return schema.empty_table()
        joined = pa.concat_tables(tables)
        newest = {cell_id: place for place, cell_id in enumerate(joined.column("id").to_pylist())}
        kept: pa.Table = joined.take(pa.array(sorted(newest.values()), pa.int64()))
        return kept

    def compact(self) -> None:
        """Put all parts into ``results.parquet``. A kill on the way leaves cells in both places, which is the same."""
        parts = sorted(self.parts.glob("*.parquet"))
        if not parts:
            return
        write_atomically(self.whole, _encoded(self.table()))
        for part in parts:
            part.unlink()


def _encoded(table: pa.Table) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(table.replace_schema_metadata(SCHEMA.metadata), buffer, compression="zstd")
    return buffer.getvalue()


def _read(file: Path, columns: list[str] | None) -> pa.Table:
    try:
        stored = pq.ParquetFile(io.BytesIO(file.read_bytes()))
        version = (stored.schema_arrow.metadata or {}).get(_KEY, b"none").decode()
        if version != FORMAT:
            raise CheckpointError(
                f"{file}: results of format {version}, this version of mho reads {FORMAT}. "
                "Way out: the version that wrote them, or another --out."
            )
        return stored.read(columns=columns)
    except (OSError, pa.ArrowException) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(
            f"{file}: not a readable table of results: {error}. Fix: delete it; its cells then run again."
        ) from error


def read_results(folder: str | os.PathLike[str]) -> pa.Table:
    """All results of the campaign in ``folder``, one row a cell, as a pyarrow table (``.to_pandas()``)."""
    place = Path(folder)
    if not (place / "results.parquet").is_file() and not (place / "parts").is_dir():
        raise CheckpointError(f"{place}: no campaign is in it. Fix: the folder that 'mho sweep' named.")
    return Store(place).table()
