"""Tests of published predictions, opened with the tools they are made for."""

from __future__ import annotations

import subprocess
import sys

import astropy.units as u
import numpy as np
import pandas as pd
import pyarrow.parquet
import pytest
from astropy.io import fits, votable
from astropy.table import Table

from galstore.cube.predictions import write_predictions
from galstore.cube.reader import Cube, open_cube
from galstore.export import hats, predictions
from galstore.export.predictions import PredictionFormat, publish_predictions, write_scored_catalog
from schemas.errors import ExportError
from schemas.predictions import PREDICTION_COLUMNS, Flag
from tests.conftest import ROOT
from tests.galstore.conftest import add_objects, registered_cube

N, N_SCORED = 40, 30
ATTRIBUTES = {"target": "lgm_tot_p50", "units": "log10(solMass)", "training_set": "a1b2c3", "level": 64, "views": 8}


@pytest.fixture
def scored(folder_service, cube_path) -> Cube:
    """Return 40 objects of a survey and 2 of another catalog; the first 30 are scored, a third of them flagged."""
    registered_cube(cube_path, folder_service, limit=N)
    add_objects(cube_path, pd.DataFrame({"object_id": [1, 2], "ra": 300.0, "dec": [-80.0, -81]}), catalog="nowhere")
    rows = np.arange(N_SCORED)
    values = {column.name: rows * 0.1 for column in PREDICTION_COLUMNS}
    values["flags"] = np.where(rows % 3, 0, Flag.OUTSIDE_TRAINING_SUPPORT | Flag.EXTRAPOLATED_RANGE)
    write_predictions(cube_path, "abc123", rows, values, attributes=ATTRIBUTES)
    return open_cube(cube_path)


@pytest.mark.parametrize("format", sorted(set(PredictionFormat) - {PredictionFormat.HATS}))
def test_every_format_holds_the_same_rows(scored, tmp_path, format) -> None:  # noqa: A002
    done = publish_predictions(scored, "abc123", tmp_path / "out" / "file", format=format)
    assert (done.n_objects, done.n_files) == (N_SCORED, 1)
    readers = {
        "parquet": lambda path: Table.read(path, format="parquet"),
        "csv": lambda path: Table.read(path, format="ascii.csv"),
        "ecsv": lambda path: Table.read(path, format="ascii.ecsv"),
        "fits": lambda path: Table.read(path, format="fits"),
        "votable": lambda path: Table.read(path, format="votable"),
    }
    table = readers[format](done.path)
    assert len(table) == N_SCORED
    assert np.allclose(table["prediction"], np.arange(N_SCORED) * 0.1, atol=1e-6)
    assert table["flags"].tolist()[:4] == [33, 0, 0, 33]
    names = ["" if str(name) in {"--", "None"} else str(name).strip() for name in table["flag_names"][:2]]
    assert names == ["outside_training_support|extrapolated_range", ""]
    assert np.array_equal(table["object_id"], scored.read_catalog(["object_id"])["object_id"][:N_SCORED])
    assert set(map(str, table["status"])) == {"scored"}


def test_parquet_has_units_ucds_and_provenance(scored, tmp_path) -> None:
    publish_predictions(scored, "abc123", tmp_path / "p.parquet")
    schema = pyarrow.parquet.read_schema(tmp_path / "p.parquet")
    assert schema.field("sigma").metadata[b"unit"] == b"log10(solMass)"
    assert schema.field("sigma").metadata[b"ucd"] == b"stat.stdev;phys.mass"
    assert schema.field("ra").metadata[b"unit"] == b"deg"
    parents = {name: schema.metadata[f"galstore.{name}".encode()].decode() for name in ("model_id", "training_set")}
    assert parents == {"model_id": "abc123", "training_set": "a1b2c3"}
    assert schema.metadata[b"galstore.snapshot"].decode() == scored.snapshot_id
    assert schema.metadata[b"galstore.run"]
    assert Table.read(tmp_path / "p.parquet", format="parquet.votable")["dec"].unit == u.deg


def test_fits_and_votable_have_units_ucds_and_provenance(scored, tmp_path) -> None:
    publish_predictions(scored, "abc123", tmp_path / "p.fits", format=PredictionFormat.FITS)
    header = fits.getheader(tmp_path / "p.fits", 1)
    number = next(n for n in range(1, 30) if header[f"TTYPE{n}"] == "p84")
    assert header[f"TCOMM{number}"].endswith("[log10(solMass)]")
    assert header["TUNIT2"] == "deg"
    assert header[f"TUCD{number}"] == "phys.mass;stat.max"
    assert "model_id = abc123" in list(header["HISTORY"])
    publish_predictions(scored, "abc123", tmp_path / "p.vot", format=PredictionFormat.VOTABLE)
    document = votable.parse(tmp_path / "p.vot", verify="exception")
    fields = {field.name: field for field in document.get_first_table().fields}
    assert fields["ra"].unit == u.deg
    assert fields["flags"].ucd == "meta.code.qual"
    assert {info.name: info.value for info in document.resources[0].infos}["training_set"] == "a1b2c3"


def test_all_objects_of_a_catalog_are_published_with_their_status(scored, tmp_path) -> None:
    done = publish_predictions(scored, "abc123", tmp_path / "p.csv", format=PredictionFormat.CSV, catalog="nowhere")
    table = pd.read_csv(done.path)
    assert table["status"].tolist() == ["pending", "pending"]
    assert table["prediction"].isna().all()
    assert table["flags"].tolist() == [-1, -1]
    assert table["flag_names"].isna().all()
    with pytest.raises(ExportError, match="'other'"):
        publish_predictions(scored, "abc123", tmp_path / "q.csv", catalog="other")


def test_a_failed_export_leaves_no_file(scored, tmp_path, monkeypatch) -> None:
    with pytest.raises(ExportError, match="'zzz'"):
        publish_predictions(scored, "zzz", tmp_path / "p.parquet")
    with monkeypatch.context() as patch:
        patch.setattr(predictions, "MAX_ROWS_IN_MEMORY", 10)
        with pytest.raises(ExportError, match=r"(?=.*\b30 rows)(?=.*'fits')(?=.*\b10\b)"):
            publish_predictions(scored, "abc123", tmp_path / "p.fits", format=PredictionFormat.FITS)
    assert list(tmp_path.glob("*.fits")) == list(tmp_path.glob(".p*")) == []
    (tmp_path / "existing.csv").write_text("mine")
    with pytest.raises(ExportError, match=r"/existing\.csv"):
        publish_predictions(scored, "abc123", tmp_path / "existing.csv", format=PredictionFormat.CSV)
    assert (tmp_path / "existing.csv").read_text() == "mine"


def test_a_scored_catalog_keeps_the_order_and_positions_of_its_file(scored, tmp_path) -> None:
    ids = scored.read_catalog(["object_id"])["object_id"].to_numpy()
    objects = pd.DataFrame({"object_id": ids[[35, 5, 4, 35, 0]], "ra": np.arange(5.0), "dec": -np.arange(5.0)})
    counts = write_scored_catalog(tmp_path / "new.parquet", scored, "abc123", objects, page_rows=3)
    assert counts == {"scored": 3, "pending": 2}
    table = pd.read_parquet(tmp_path / "new.parquet")
    assert table["object_id"].tolist() == objects["object_id"].tolist()
    assert table["ra"].tolist() == objects["ra"].tolist()
    assert np.allclose(table["prediction"], [np.nan, 0.5, 0.4, np.nan, 0], equal_nan=True)
    assert table["model_id"].eq("abc123").all()


def test_lsdb_searches_and_crossmatches_a_hats_catalog(scored, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(hats, "PIXEL_ROWS", 10)  # several pixels
    publish_predictions(scored, "abc123", tmp_path / "hats", format=PredictionFormat.HATS)
    places = scored.read_catalog(["object_id", "ra", "dec"])[:N_SCORED]
    places.to_csv(tmp_path / "input.csv", index=False)
    ra, dec = places.loc[7, "ra"], places.loc[7, "dec"]
    # in a separate process, because Dask and Bokeh warn
    program = ROOT / "tests" / "support" / "lsdb_program.py"
    subprocess.run(
        [sys.executable, "-W", "ignore", str(program), str(tmp_path), str(ra), str(dec)], check=True, timeout=240
    )
