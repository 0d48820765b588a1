"""Results on disk: one row a cell, whole or not at all."""

import numpy as np
import pyarrow.parquet as pq
import pytest
from campaign_cells import cell, many

from mho.campaign import CampaignError, Found, read_results
from mho.campaign.cells import answer
from mho.campaign.lock import held
from mho.campaign.store import SCHEMA, Store, labels_of, outcomes, row_of
from mho.errors import CheckpointError

CORRECT = np.random.default_rng(0).random((5, 37)) < 0.7


def done(which):
    return row_of(which, "done", 0, answer(lambda c: Found(correct=CORRECT, clean=99.0), which))


def test_a_row_holds_every_outcome_and_the_accuracy_of_every_chip(tmp_path):
    store = Store(tmp_path)
    store.append(done(cell(1)))
    (row,) = read_results(tmp_path).to_pylist()
    assert np.array_equal(outcomes(row), CORRECT)
    assert row["accuracy"] == pytest.approx(100 * CORRECT.mean(1)) and row["clean"] == 99.0
    assert labels_of(row) == cell(1).labels and row["id"] == cell(1).id
    assert row["description"] == cell(1).description and row["seconds"] >= 0


def test_compaction_keeps_each_cell_once_and_the_newer_of_two(tmp_path):
    store = Store(tmp_path)
    cells = many(4, 0.0)
    for each in cells:
        store.append(row_of(each, "failed", 0, message="at first"))
    store.compact()
    assert not list(store.parts.iterdir()) and store.whole.is_file()
    store.append(done(cells[2]))
    assert [p.status for p in store.past().values()].count("done") == 1
    before = store.whole.read_bytes()
    store.compact()
    assert read_results(tmp_path).num_rows == 4
    # A kill between the two steps of a compaction: the part is still there.
    store.append(done(cells[2]))
    assert store.whole.read_bytes() != before and read_results(tmp_path).num_rows == 4
    assert store.past()[cells[2].id].status == "done" and store.past()[cells[0].id].status == "failed"


def test_a_half_written_part_is_not_a_result(tmp_path):
    store = Store(tmp_path)
    path = store.append(done(cell(1)))
    path.with_name(f".{path.name}.1234.partial").write_bytes(path.read_bytes()[:100])
    assert list(store.past()) == [cell(1).id]


def test_a_damaged_file_and_another_format_are_named(tmp_path):
    store = Store(tmp_path)
    path = store.append(done(cell(1)))
    whole = path.read_bytes()
    path.write_bytes(whole[:-20])
    with pytest.raises(CheckpointError, match=rf"{path.name}: not a readable table .* Fix: delete it"):
        store.past()
    path.write_bytes(whole)
    table = pq.read_table(path).replace_schema_metadata({"mho.campaign.format": "99"})
    pq.write_table(table, path)
    with pytest.raises(CheckpointError, match="format 99, this version of mho reads 1"):
        store.past()


def test_the_schema_of_the_file_is_the_documented_one(tmp_path):
    store = Store(tmp_path)
    store.append(done(cell(1)))
    store.compact()
    assert pq.read_schema(store.whole).equals(SCHEMA, check_metadata=True)


def test_a_folder_without_a_campaign_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match="no campaign is in it"):
        read_results(tmp_path)


def test_two_drivers_do_not_share_a_folder(tmp_path):
    with held(tmp_path / ".lock", "campaign x"), pytest.raises(CampaignError, match="campaign x is in use by process"):
        held(tmp_path / ".lock", "campaign x").__enter__()
    with held(tmp_path / ".lock", "campaign x"):
        pass  # Left, it is free again.
