"""Tests of exports, opened with the tools they are made for."""

from __future__ import annotations

import builtins
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import astropy.units as u
import hats
import mlcroissant
import numpy as np
import pandas as pd
import pyarrow.parquet
import pytest
import simplejpeg
import xarray as xr
import zarr
from astropy.io import votable
from astropy.table import Table
from hats.io.validation import is_valid_catalog

from galstore.cube.predictions import write_predictions
from galstore.cube.reader import Cube, open_cube
from galstore.executor import Executor
from galstore.export import ExportFormat, export_cube
from galstore.export import hats as hats_export
from galstore.export.jpeg_folder import write_jpeg_folder
from galstore.export.object_table import ExportRequest, cube_table
from galstore.export.parquet import write_parquet
from galstore.export.provenance import read_provenance
from galstore.export.sparse_rows import read_sparse_rows
from galstore.survey.skyserver import SkyServer
from schemas.catalog import CATALOG_COLUMNS, COLUMN, LABEL_COLUMNS
from schemas.cube import LEVEL, LEVELS, STATE_COLUMNS
from schemas.errors import ExportError, StoreError
from tests.galstore.conftest import add_objects, fill, registered_cube

SPARSE = np.array([3, 5, 700, 1023, 1024, 1099])
"""Rows of both blocks of `filled_cube`."""
N_STORED, N_NOWHERE, N_PENDING = 20, 3, 2


@pytest.fixture(scope="module")
def mixed_cube(
    tmp_path_factory: pytest.TempPathFactory, folder_service: SkyServer, executor: Executor, cutout_folder: Path
) -> Cube:
    """Return a cube with 20 stored objects, 3 out of the footprint, 2 pending, and predictions of a model."""
    path = registered_cube(str(tmp_path_factory.mktemp("mixed") / "cube"), folder_service, limit=N_STORED)
    add_objects(path, pd.DataFrame({"object_id": [1, 2, 3], "ra": 300.0, "dec": [-80.0, -81, -82]}), catalog="nowhere")
    fill(path, folder_service, executor)
    late = pd.read_csv(cutout_folder / "catalog.csv").rename(columns={"objID": "object_id"})[100:102]
    add_objects(path, late, catalog="late")
    rows = np.arange(N_STORED)
    write_predictions(path, "m", rows, {"mean": rows + 8.0, "view_spread": rows * 0.1}, attributes={"units": "dex"})
    return open_cube(path)


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def request_of(cube: Cube, rows: np.ndarray, **changes: Any) -> ExportRequest:
    provenance = read_provenance(cube, n_objects=rows.size)
    return ExportRequest(cube=cube, rows=rows, provenance=provenance, table=cube_table(cube), **changes)


def exported_catalog(cube: Cube) -> pd.DataFrame:
    """Return object_id, ra, dec, oh_p50 of the cube."""
    return cube.read_catalog(["object_id", "ra", "dec"]).assign(oh_p50=cube.read_label("oh_p50").astype(np.float32))


@pytest.mark.parametrize("kind", ExportFormat)
def test_the_same_snapshot_gives_the_same_bytes(mixed_cube: Cube, tmp_path: Path, kind: ExportFormat) -> None:
    written: list[int] = []
    first = export_cube(mixed_cube, tmp_path / "first", format=kind, on_progress=written.append)
    export_cube(open_cube(mixed_cube.path), tmp_path / "else" / "second", format=kind)
    files = files_of(tmp_path / "first")
    assert files == files_of(tmp_path / "else" / "second")
    assert (first.path, first.n_objects) == (tmp_path / "first", 25)
    assert (first.n_files, first.bytes) == (len(files), sum(map(len, files.values())))
    assert sum(written) == 25
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("kind", ExportFormat)
def test_every_format_names_its_provenance(mixed_cube: Cube, tmp_path: Path, kind: ExportFormat) -> None:
    export_cube(mixed_cube, tmp_path / "out", format=kind, rows=np.array([0]))
    content = b"".join(files_of(tmp_path / "out").values())
    for word in (mixed_cube.snapshot_id, "simulated", version("galstore")):
        assert word.encode() in content
    assert str(tmp_path).encode() not in content


def test_zarr_opens_with_xarray_and_holds_the_cube(mixed_cube: Cube, tmp_path: Path) -> None:
    export_cube(mixed_cube, tmp_path / "out.zarr", format=ExportFormat.ZARR)
    with xr.open_datatree(tmp_path / "out.zarr", engine="zarr") as tree, mixed_cube.to_datatree() as cube:
        exported_from = tree.attrs.pop("exported_from")
        assert exported_from["snapshot_id"] == mixed_cube.snapshot_id
        expected = cube.filter(lambda group: not group.path.startswith("/index"))
        xr.testing.assert_identical(tree.load(), expected.load())
    arrays = zarr.open_group(tmp_path / "out.zarr", mode="r").members(
        max_depth=None, use_consolidated_for_children=True
    )
    for path, array in arrays:
        if isinstance(array, zarr.Array):
            assert (array.chunks, array.compressors) == (
                mixed_cube.array(path).chunks,
                mixed_cube.array(path).compressors,
            )


def test_zarr_of_some_rows_and_levels(filled_cube: Cube, tmp_path: Path) -> None:
    exported = export_cube(filled_cube, tmp_path / "out", format=ExportFormat.ZARR, rows=SPARSE[::-1], levels=[32, 128])
    assert exported.n_objects == 6
    with xr.open_datatree(tmp_path / "out", engine="zarr") as tree:
        assert sorted(tree["images"].children) == ["128", "32"]
        layout = tree["images"].attrs["multiscales"]["layout"]
        for side in (128, 32):
            assert np.array_equal(tree[f"images/{side}/pixels"], filled_cube.read_pixels(side, SPARSE))
    assert [level["asset"] for level in layout] == ["128", "32"]
    assert layout[1]["transform"] == {"scale": [4.0, 4.0], "translation": [1.5, 1.5]}
    with xr.open_zarr(tmp_path / "out", group="state", consolidated=True) as state:
        lengths = state["body_length"].to_numpy()
    bodies = zarr.open_array(tmp_path / "out" / "delivered" / "body", mode="r")
    for at, row in enumerate(SPARSE):
        assert np.asarray(bodies[at, : lengths[at]]).tobytes() == filled_cube.read_body(row)


def test_zarr_opens_without_galstore_and_without_icechunk(filled_cube: Cube, tmp_path: Path) -> None:
    export_cube(filled_cube, tmp_path / "out", format=ExportFormat.ZARR, rows=SPARSE)
    script = """
import sys
import xarray as xr
tree = xr.open_datatree(sys.argv[1], engine="zarr")
print(tree["images/64/pixels"].to_numpy().shape, not {"galstore", "schemas", "icechunk"} & set(sys.modules))
"""
    ran = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "out")], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert ran.stdout.split("\n")[0] == "(6, 64, 64, 3) True"


def test_zarr_reads_no_more_than_a_block_at_once(filled_cube: Cube, tmp_path: Path, monkeypatch) -> None:
    sizes: list[int] = []

    def record(array: Any, rows: np.ndarray, **options: Any) -> np.ndarray:
        if array.ndim > 1:
            sizes.append(rows.size)
        return read_sparse_rows(array, rows, **options)

    monkeypatch.setattr("galstore.export.zarr.read_sparse_rows", record)
    export_cube(filled_cube, tmp_path / "out", format=ExportFormat.ZARR)
    assert set(sizes) == {1024, 76}


def test_parquet_opens_with_astropy_and_its_units(mixed_cube: Cube, tmp_path: Path) -> None:
    export_cube(mixed_cube, tmp_path / "out", format=ExportFormat.PARQUET)
    read = Table.read(tmp_path / "out" / "catalog.parquet", format="parquet.votable")
    expected = exported_catalog(mixed_cube)
    assert len(read) == 25
    for name in ("object_id", "ra", "dec", "oh_p50"):
        assert np.array_equal(np.asarray(read[name]), expected[name], equal_nan=name == "oh_p50")
    assert read["object_id"].dtype == np.int64
    assert (read["ra"].unit, read["modelMag_r"].unit, read["pixel_scale"].unit) == (u.deg, u.mag, u.arcsec / u.pix)
    assert read["velDisp"].unit == u.km / u.s
    assert "ICRS" in read["ra"].description
    assert read["ra"].meta["ucd"] == "pos.eq.ra;meta.main"
    assert list(read["status"][[0, 20, 23]]) == ["stored", "quarantined", "pending"]
    assert list(read["reason"][[0, 20, 23]]) == ["none", "out_of_footprint", "none"]
    assert list(read["catalog"][[0, 20, 23]])[1:] == ["nowhere", "late"]
    assert read["body_sha256"][0] == mixed_cube.read_state("body_sha256")[0].tobytes().hex()


def test_parquet_describes_every_column_in_its_votable(filled_cube: Cube, tmp_path: Path) -> None:
    export_cube(filled_cube, tmp_path / "out", format=ExportFormat.PARQUET, rows=SPARSE)
    file = pyarrow.parquet.ParquetFile(tmp_path / "out" / "catalog.parquet")
    metadata = file.metadata.metadata
    assert metadata[b"IVOA.VOTable-Parquet.version"] == b"1.0"
    content = metadata[b"IVOA.VOTable-Parquet.content"]
    (tmp_path / "content.xml").write_bytes(content)
    fields = votable.parse_single_table(tmp_path / "content.xml").fields
    names = ["object_id", *CATALOG_COLUMNS, *LABEL_COLUMNS, *(column.name for column in STATE_COLUMNS)]
    assert [field.name for field in fields] == names == file.schema_arrow.names
    for field in fields:
        assert field.description
        if field.name in COLUMN:
            assert field.ucd == COLUMN[field.name].ucd
    assert b'unit="log10(solMass)"' in content
    assert next(field for field in fields if field.name == "specObjID").values.null == -1


def test_parquet_is_written_in_row_groups(filled_cube: Cube, tmp_path: Path) -> None:
    write_parquet(request_of(filled_cube, np.arange(1100), group_rows=500), tmp_path / "catalog.parquet")
    file = pyarrow.parquet.ParquetFile(tmp_path / "catalog.parquet")
    assert [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)] == [500, 500, 100]
    assert np.array_equal(file.read()["object_id"], filled_cube.read_catalog(["object_id"])["object_id"])


def test_hats_opens_with_hats_and_holds_every_object_once(filled_cube: Cube, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(hats_export, "PIXEL_ROWS", 200)
    export_cube(filled_cube, tmp_path / "out", format=ExportFormat.HATS)
    assert is_valid_catalog(tmp_path / "out", strict=True)
    catalog = hats.read_hats(tmp_path / "out")
    pixels = catalog.get_healpix_pixels()
    assert catalog.catalog_info.total_rows == 1100
    assert len({pixel.order for pixel in pixels}) > 1
    parts = []
    for pixel in pixels:
        file = Path(str(hats.io.paths.pixel_catalog_file(tmp_path / "out", pixel)))
        part = pyarrow.parquet.read_table(file, partitioning=None).to_pandas()
        assert len(part) <= 200
        assert part["_healpix_29"].is_monotonic_increasing
        assert set(part["_healpix_29"].to_numpy() >> 2 * (29 - pixel.order)) == {pixel.pixel}
        parts.append(part)
    whole = pd.concat(parts).sort_values("object_id", ignore_index=True)
    expected = exported_catalog(filled_cube).sort_values("object_id", ignore_index=True)
    pd.testing.assert_frame_equal(whole[list(expected)], expected)


def test_hats_omits_pixels_without_objects() -> None:
    index = np.array([0, 5, 8]) << 58
    assert list(hats_export._partition(np.sort(index))) == [
        (0, 0, slice(0, 1)),
        (0, 5, slice(1, 2)),
        (0, 8, slice(2, 3)),
    ]


def test_hats_without_its_library_says_how_to_get_it(filled_cube: Cube, tmp_path: Path, monkeypatch) -> None:
    imported = builtins.__import__

    def refuse(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.partition(".")[0] == "hats":
            raise ImportError("No module named 'hats'")
        return imported(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(ExportError, match=r"(?=.*\bhats\b)(?=.*galstore\[export\])"):
        export_cube(filled_cube, tmp_path / "out", format=ExportFormat.HATS, rows=SPARSE)
    assert not list(tmp_path.iterdir())


@pytest.mark.filterwarnings("ignore:ConjunctiveGraph is deprecated:DeprecationWarning")  # mlcroissant 1.1 upon rdflib 7
@pytest.mark.filterwarnings("ignore:The inplace keyword")  # mlcroissant 1.1 upon pandas 3.1
def test_croissant_validates_and_gives_records(mixed_cube: Cube, tmp_path: Path) -> None:
    export_cube(mixed_cube, tmp_path / "out", format=ExportFormat.CROISSANT)
    described = mlcroissant.Dataset(str(tmp_path / "out" / "metadata.json"))
    assert not described.metadata.ctx.issues.errors
    objects = list(described.records("objects"))
    expected = exported_catalog(mixed_cube)
    assert [record["objects/object_id"] for record in objects] == expected["object_id"].tolist()
    assert [record["objects/status"] for record in objects][19:21] == [b"stored", b"quarantined"]
    images = {record["images/object_id"]: record for record in described.records("images")}
    assert sorted(images) == sorted(expected["object_id"][:N_STORED])
    for row in range(N_STORED):
        record = images[expected["object_id"][row]]
        assert record["images/oh_p50"] == expected["oh_p50"][row]
        finest = simplejpeg.decode_jpeg(mixed_cube.read_body(row))
        assert np.abs(np.asarray(record["images/image"]).astype(int) - finest).max() <= 2, "another JPEG decoder"


def test_jpeg_folder_has_the_delivered_bytes_and_all_objects(mixed_cube: Cube, tmp_path: Path) -> None:
    export_cube(mixed_cube, tmp_path / "out", format=ExportFormat.JPEG_FOLDER)
    catalog = pd.read_csv(tmp_path / "out" / "catalog.csv", dtype={"specObjID": "Int64"})
    assert list(catalog) == ["object_id", "file", *CATALOG_COLUMNS, *LABEL_COLUMNS]
    expected = exported_catalog(mixed_cube)
    # the shortest text that gives the same float32
    catalog["oh_p50"] = catalog["oh_p50"].astype(np.float32)
    pd.testing.assert_frame_equal(catalog[list(expected)], expected)
    for row, file in enumerate(catalog["file"][:N_STORED]):
        assert file == f"images/{catalog['object_id'][row]}.jpg"
        assert (tmp_path / "out" / file).read_bytes() == mixed_cube.read_body(row)
    assert catalog["file"][N_STORED:].isna().all()
    spectra = mixed_cube.read_catalog(["specObjID"])["specObjID"]
    assert catalog["specObjID"].fillna(-1).tolist() == spectra.tolist()
    assert (spectra == -1).any()
    assert len(list((tmp_path / "out" / "images").iterdir())) == N_STORED
    missing = pd.read_csv(tmp_path / "out" / "missing.csv")
    assert missing["object_id"].tolist() == expected["object_id"][N_STORED:].tolist()
    assert missing["reason"].tolist() == ["out_of_footprint"] * N_NOWHERE + ["pending"] * N_PENDING
    readme = (tmp_path / "out" / "README.txt").read_text()
    assert re.search(r"\bra\b.*\bdeg\b.*ICRS", readme)
    assert "0.296" in readme
    assert "25 objects" in readme


def test_jpeg_folder_of_rows_far_apart(filled_cube: Cube, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    write_jpeg_folder(request_of(filled_cube, SPARSE, group_rows=4), tmp_path / "out")
    catalog = pd.read_csv(tmp_path / "out" / "catalog.csv")
    assert len(catalog) == 6
    for row, file in zip(SPARSE, catalog["file"], strict=True):
        assert (tmp_path / "out" / file).read_bytes() == filled_cube.read_body(row)
    assert (tmp_path / "out" / "missing.csv").read_text() == "object_id,reason\n"


@pytest.mark.parametrize("kind", ExportFormat)
def test_an_existing_target_is_refused(filled_cube: Cube, tmp_path: Path, kind: ExportFormat) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("keep")
    with pytest.raises(ExportError, match=r"/out\b(?!/)"):
        export_cube(filled_cube, tmp_path / "out", format=kind)
    with pytest.raises(ExportError, match=r"/out/mine\b"):
        export_cube(filled_cube, tmp_path / "out" / "mine", format=kind)
    assert files_of(tmp_path) == {"out/mine": b"keep"}


def test_an_empty_folder_is_accepted(filled_cube: Cube, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    export_cube(filled_cube, tmp_path / "out", format=ExportFormat.PARQUET, rows=SPARSE)
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["catalog.parquet"]


def test_an_export_that_fails_leaves_nothing(filled_cube: Cube, tmp_path: Path, monkeypatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise OSError("the disk is full")

    monkeypatch.setattr("galstore.export.jpeg_folder.image_path", fail)
    with pytest.raises(OSError, match="the disk is full"):
        export_cube(filled_cube, tmp_path / "out", format=ExportFormat.JPEG_FOLDER)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("rows", "facts"),
    [
        (np.array([], dtype=np.int64), "objects"),
        ([], "objects"),
        (np.array([5, 1100]), r"(?=.*row 1100\b)(?=.*\b1099\b)"),
        (np.array([-1]), r"row -1\b"),
        (np.ones(1100, dtype=bool), r"(?=.*\bbool\b)(?=.*\b1\b)"),
    ],
)
def test_rows_that_cannot_be_exported_are_named(filled_cube: Cube, tmp_path: Path, rows: Any, facts: str) -> None:
    with pytest.raises(ExportError, match=facts):
        export_cube(filled_cube, tmp_path / "out", format=ExportFormat.PARQUET, rows=rows)
    assert not list(tmp_path.iterdir())


def test_levels_that_cannot_be_exported_are_named(filled_cube: Cube, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"(?=.*level 100\b)(?=.*\b128, 64\b)"):
        export_cube(filled_cube, tmp_path / "out", format=ExportFormat.ZARR, levels=[128, 100])
    with pytest.raises(ExportError, match=r"(?=.*levels)(?=.*\b128, 64\b)"):
        export_cube(filled_cube, tmp_path / "out", format=ExportFormat.ZARR, levels=[])
    with pytest.raises(ExportError, match="'parquet'"):
        export_cube(filled_cube, tmp_path / "out", format=ExportFormat.PARQUET, levels=[128])
    assert not list(tmp_path.iterdir())


def test_exported_levels_have_their_scale_factor(mixed_cube: Cube, tmp_path: Path) -> None:
    """Xarray applies CF `scale_factor`, so every level is in counts."""
    export_cube(mixed_cube, tmp_path / "out", format=ExportFormat.ZARR, rows=np.arange(N_STORED))
    for side in LEVELS:
        with xr.open_zarr(tmp_path / "out", group=f"images/{side}") as level:
            expected = mixed_cube.read_pixels(side, np.arange(N_STORED))
            assert np.allclose(level["pixels"], expected, atol=LEVEL[side].scale_factor / 100)
