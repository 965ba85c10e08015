from __future__ import annotations

import contextlib
import datetime as dt
import decimal
import gzip
import io
import re
import tracemalloc
import warnings
from collections.abc import Callable
from pathlib import Path

import astropy.units as u
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy.io import fits
from astropy.table import MaskedColumn, QTable, Table
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from galstore.survey.catalog_files.reader import read_catalog_file, read_catalog_head, read_catalog_pages
from galstore.survey.catalog_files.units import convert_unit
from galstore.survey.row_checks import prepare_catalog
from schemas.errors import CatalogError

FIRST_ID = 1237648702973411443
N_ROWS = 11


def write_fits(table: Table, path: Path) -> None:
    table.write(path, format="fits")


def write_csv(table: Table, path: Path) -> None:
    table.to_pandas().to_csv(path, index=False)


def write_ecsv(table: Table, path: Path) -> None:
    table.write(path, format="ascii.ecsv")


def write_parquet(table: Table, path: Path) -> None:
    fields = [
        pa.field(column.name, pa.array(np.asarray(column)).type, metadata={"unit": str(column.unit or "")})
        for column in table.itercols()
    ]
    arrays = [pa.array(np.asarray(column), mask=np.ma.getmaskarray(column)) for column in table.itercols()]
    pq.write_table(pa.table(arrays, schema=pa.schema(fields)), path)


def votable_writer(serialisation: str) -> Callable[[Table, Path], None]:
    def write(table: Table, path: Path) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            table.write(path, format="votable", tabledata_format=serialisation)

    return write


def gzipped(writer: Callable[[Table, Path], None]) -> Callable[[Table, Path], None]:
    def write(table: Table, path: Path) -> None:
        writer(table, path)
        path.write_bytes(gzip.compress(path.read_bytes(), 1))

    return write


WRITERS: dict[str, Callable[[Table, Path], None]] = {
    "csv": write_csv,
    "csv in gzip": gzipped(write_csv),
    "ecsv": write_ecsv,
    "fits": write_fits,
    "fits in gzip": gzipped(write_fits),
    "votable tabledata": votable_writer("tabledata"),
    "votable binary": votable_writer("binary"),
    "votable binary2": votable_writer("binary2"),
    "votable in gzip": gzipped(votable_writer("binary2")),
    "parquet": write_parquet,
}

every_format = pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
with_units = pytest.mark.parametrize(
    "write", [write for name, write in WRITERS.items() if "csv" not in name or name == "ecsv"]
)


def a_table(n_rows: int = N_ROWS, **more: object) -> Table:
    rng = np.random.default_rng(3)
    return Table(
        {
            "objID": FIRST_ID + np.arange(n_rows),
            "ra": rng.uniform(0, 360, n_rows),
            "dec": rng.uniform(-90, 90, n_rows),
            "modelMag_r": rng.uniform(14, 18, n_rows).astype("f4"),
            "name": [f"NGC #{index}" for index in range(n_rows)],
        }
        | more
    )


def written(tmp_path: Path, write: Callable[[Table, Path], None], table: Table, name: str = "catalog") -> Path:
    # no suffix: the content determines the format
    path = tmp_path / name
    write(table, path)
    return path


def three_rows(**columns: object) -> Table:
    plain = {"objID": [1, 2, 3], "ra": [10.0, 20.0, 30.0], "dec": [-1.0, 0.0, 1.0]}
    return Table(plain | columns)


@every_format
def test_every_format_gives_the_same_catalog(tmp_path: Path, write) -> None:
    table = a_table()
    frame = read_catalog_file(written(tmp_path, write, table))
    rows = prepare_catalog(frame, origin="catalog").rows
    assert rows["object_id"].tolist() == table["objID"].tolist()
    for name in ("ra", "dec", "modelMag_r"):
        np.testing.assert_array_equal(rows[name], table[name])
    assert frame["name"].tolist() == table["name"].tolist()


@pytest.mark.parametrize("write", [WRITERS[name] for name in ("csv", "ecsv", "fits", "parquet", "votable binary2")])
@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.integers(0, 2**63 - 1), min_size=1, max_size=20, unique=True))
@example([2**53 + 1, 2**63 - 1, 0])
def test_ids_are_exact(tmp_path_factory, write, ids: list[int]) -> None:
    table = Table({"objID": np.array(ids, dtype=np.int64), "ra": np.full(len(ids), 1.5), "dec": np.full(len(ids), 2.5)})
    path = written(tmp_path_factory.mktemp("ids"), write, table)
    assert prepare_catalog(read_catalog_file(path), origin="new").rows["object_id"].tolist() == ids


@pytest.mark.parametrize("write", [write_fits, write_parquet, write_ecsv])
def test_unsigned_64_bit_ids_are_exact(tmp_path: Path, write) -> None:
    ids = [2**64 - 1, 2**63, 2**63 - 1, 2**53 + 1, 0]
    frame = read_catalog_file(written(tmp_path, write, Table({"objID": np.array(ids, dtype=np.uint64)})))
    assert [int(object_id) for object_id in frame["objID"]] == ids


@every_format
@pytest.mark.parametrize("page_rows", [1, 4, N_ROWS, 100])
def test_pages_make_up_the_whole_file(tmp_path: Path, write, page_rows: int) -> None:
    path = written(tmp_path, write, a_table())
    pages = list(read_catalog_pages(path, page_rows=page_rows))
    sizes = [min(page_rows, N_ROWS - first) for first in range(0, N_ROWS, page_rows)]
    assert [len(page) for page in pages] == sizes
    pd.testing.assert_frame_equal(pd.concat(pages, ignore_index=True), read_catalog_file(path))


@every_format
def test_a_catalog_without_rows_is_one_empty_page(tmp_path: Path, write) -> None:
    (page,) = read_catalog_pages(written(tmp_path, write, a_table(0)))
    assert len(page) == 0
    assert page.columns.tolist() == ["objID", "ra", "dec", "modelMag_r", "name"]


@pytest.mark.parametrize("write", [WRITERS[name] for name in ("csv", "fits", "parquet")])
def test_the_head_is_the_first_thousand_rows(tmp_path: Path, write) -> None:
    path = written(tmp_path, write, a_table(1_500))
    pd.testing.assert_frame_equal(read_catalog_head(path), next(read_catalog_pages(path, page_rows=1_000)))
    assert len(read_catalog_head(path)) == 1_000


def test_pages_need_at_least_one_row(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"(?=.*page_rows)(?=.*\b0\b)"):
        read_catalog_pages(tmp_path / "new.csv", page_rows=0)


@pytest.mark.parametrize(
    ("name", "unit", "given_value", "expected"),
    [
        ("ra", "rad", np.pi / 2, 90.0),
        ("ra", "h", 12.0, 180.0),
        ("ra", "hourangle", 1.0, 15.0),
        ("ra", "degrees", 12.5, 12.5),
        ("dec", "arcsec", -7200.0, -2.0),
        ("petroR50_r", "mas", 1500.0, 1.5),
        ("velDisp", "m/s", 150_000.0, 150.0),
        ("modelMag_g", "mmag", 17_500.0, 17.5),
        ("modelMag_g", "mag(AB)", 17.5, 17.5),
        # 1 W m^-2 = 10^7 erg / s over 10^4 cm^2, so 10^-20 of them are 10^-17 erg / s / cm^2
        ("h_alpha_flux", "W/m2", 3e-20, 3.0),
        ("h_alpha_flux", "1e-17 erg/s/cm^2", 3.0, 3.0),
        ("h_alpha_flux", "erg.s-1.cm-2", 2e-16, 20.0),
        ("lgm_tot_p50", "solMass", 1e10, 10.0),
        ("lgm_tot_p50", "[solMass]", 10.5, 10.5),
        ("lgm_tot_p50", "log(Msun)", 10.5, 10.5),
        ("lgm_tot_p50", "dex", 10.5, 10.5),
        ("lgm_tot_p50", "dex(10+9Msun)", 1.5, 10.5),
        ("sfr_tot_p50", "solMass/yr", 0.01, -2.0),
        ("oh_p50", "dex", 8.7, 8.7),
        ("z", "%", 5.0, 0.05),
        ("z", "", 0.05, 0.05),
    ],
)
def test_columns_are_converted_to_the_units_of_the_contract(
    tmp_path: Path, name: str, unit: str, given_value: float, expected: float
) -> None:
    path = tmp_path / "new.fits"
    write_fits(three_rows(**{name: [given_value, np.nan, -9999.0]}), path)
    with fits.open(path, mode="update") as opened:
        number = opened[1].columns.names.index(name) + 1
        opened[1].header[f"TUNIT{number}"] = unit
    first, missing, sentinel = read_catalog_file(path)[name]
    assert first == pytest.approx(expected, rel=1e-12)
    assert np.isnan(missing)
    assert sentinel == -9999.0


@with_units
def test_units_are_read_from_every_format(tmp_path: Path, write) -> None:
    table = three_rows(ra=np.array([0.5, 1.0, 1.5], dtype=np.float32))
    table["ra"].unit = u.rad
    ra = read_catalog_file(written(tmp_path, write, table))["ra"]
    # a radian is 57.29577951308232 degrees; float32 would keep seven digits of it
    np.testing.assert_allclose(ra, np.array([0.5, 1.0, 1.5]) * 57.29577951308232, rtol=1e-15)
    assert ra.dtype == np.float64


def test_units_are_read_from_astropy_parquet_and_voparquet(tmp_path: Path) -> None:
    quantities = QTable(three_rows())
    quantities["ra"] = np.array([1.0, 2.0, 3.0]) * u.hourangle
    quantities.write(tmp_path / "astropy.parquet", format="parquet")
    assert read_catalog_file(tmp_path / "astropy.parquet")["ra"].tolist() == pytest.approx([15.0, 30.0, 45.0])

    xml = (
        b'<VOTABLE version="1.4"><RESOURCE><TABLE><FIELD name="key" datatype="long" ucd="meta.id;meta.main"/>'
        b'<FIELD name="ra" datatype="double" unit="rad"/><FIELD name="dec" datatype="double"/>'
        b"</TABLE></RESOURCE></VOTABLE>"
    )
    rows = pa.table({"key": [1], "ra": [np.pi], "dec": [0.0]}).replace_schema_metadata(
        {"IVOA.VOTable-Parquet.content": xml}
    )
    pq.write_table(rows, tmp_path / "vo.parquet")
    assert read_catalog_file(tmp_path / "vo.parquet").to_dict("list") == {"object_id": [1], "ra": [180.0], "dec": [0.0]}


@pytest.mark.parametrize(
    ("name", "unit", "message"),
    [
        ("modelMag_g", "Jy", r"(?=.*'Jy')(?=.*'mag')"),
        ("modelMag_g", "dex", r"(?=.*'dex')(?=.*'mag')"),
        ("oh_p50", "mag", r"(?=.*'mag')(?=.*'dex')"),
        ("z", "km/s", r"'km/s'"),
        ("ra", "furlongs", r"(?=.*'furlongs')(?=.*'deg')"),
        # astropy would compute this digit by digit
        ("ra", "10**99999999999", r"'10\*\*99999999999'"),
    ],
)
def test_a_unit_that_cannot_be_converted_is_an_error(tmp_path: Path, name: str, unit: str, message: str) -> None:
    schema = pa.schema([pa.field("objID", pa.int64()), pa.field(name, pa.float64(), metadata={"unit": unit})])
    pq.write_table(pa.table([[1], [1.0]], schema=schema), tmp_path / "new.parquet")
    with pytest.raises(CatalogError, match=rf"(?=.*new\.parquet)(?=.*'{name}')") as raised:
        read_catalog_file(tmp_path / "new.parquet")
    assert raised.match(message)


def test_the_unit_of_an_unknown_column_is_ignored(tmp_path: Path) -> None:
    table = three_rows(colour=[1.0, 2.0, 3.0])
    table["colour"].unit = u.Unit("furlongs", parse_strict="silent")
    assert read_catalog_file(written(tmp_path, write_ecsv, table))["colour"].tolist() == [1.0, 2.0, 3.0]


def test_the_logarithm_of_zero_is_infinite_and_not_missing() -> None:
    assert convert_unit(np.array([0.0]), got="solMass", expected="log10(solMass)").tolist() == [-np.inf]


def test_values_in_the_contract_unit_are_unchanged() -> None:
    values = np.array([1.5], dtype=np.float32)
    assert convert_unit(values, got="degree", expected="deg") is values


def test_numbers_as_text_are_converted_and_sexagesimal_ones_are_not(tmp_path: Path) -> None:
    table = three_rows(ra=["0.5", "12 30 00", ""])
    table["ra"].unit = u.hourangle
    assert read_catalog_file(written(tmp_path, write_ecsv, table))["ra"].tolist() == [
        pytest.approx(7.5),
        "12 30 00",
        None,
    ]
    sexagesimal = three_rows(ra=["12 30 00", "1 2 3", "4 5 6"])
    sexagesimal["ra"].unit = u.Unit('"h:m:s"', parse_strict="silent")
    frame = read_catalog_file(written(tmp_path, votable_writer("binary"), sexagesimal, "sexagesimal"))
    prepared = prepare_catalog(frame, origin="new")
    assert prepared.rejected[["reason", "value"]].to_numpy().tolist()[0] == ["not_a_number", "12 30 00"]


def with_ucds(write_format: str, path: Path, **ucds: str) -> None:
    columns = {name: [7, 8] if "id" in name.lower() else [1.5, 2.5] for name in ucds}
    if write_format == "parquet":
        schema = pa.schema(
            [pa.field(name, pa.array(columns[name]).type, metadata={"ucd": ucds[name]}) for name in ucds]
        )
        pq.write_table(pa.table(list(columns.values()), schema=schema), path)
        return
    table = Table(columns)
    for name, ucd in ucds.items():
        table[name].meta["ucd"] = ucd
    {"ecsv": write_ecsv, "fits": write_fits, "votable": votable_writer("tabledata")}[write_format](table, path)
    if write_format == "fits":
        with fits.open(path, mode="update") as opened:
            for number, ucd in enumerate(ucds.values(), 1):
                opened[1].header[f"TUCD{number}"] = ucd


@pytest.mark.parametrize("write_format", ["parquet", "ecsv", "fits", "votable"])
def test_columns_with_unknown_names_are_identified_by_ucd(tmp_path: Path, write_format: str) -> None:
    path = tmp_path / "new"
    with_ucds(
        write_format,
        path,
        SourceId="META.MAIN; meta.id",
        RAJ2000="pos.eq.ra;meta.main",
        ra_other="pos.eq.ra",
        DEJ2000="pos.eq.dec",
        zphot="src.redshift",
    )
    frame = read_catalog_file(path)
    assert frame.columns.tolist() == ["object_id", "ra", "ra_other", "dec", "z"]
    assert prepare_catalog(frame, origin="new").rows["object_id"].tolist() == [7, 8]


@pytest.mark.parametrize(
    ("ucds", "names"),
    [
        ({"raA": "pos.eq.ra", "raB": "pos.eq.ra"}, ["raA", "raB"]),
        ({"RA": "", "ra_b": "pos.eq.ra;meta.main"}, ["RA", "ra_b"]),
        ({"specObjID": "meta.id;meta.main"}, ["specObjID"]),
        ({"mass": "phys.mass", "name_id": "meta.id"}, ["mass", "name_id"]),
        ({"ra_ang": "pos.eq.ra;pos.frame"}, ["ra_ang"]),
    ],
    ids=["ambiguous", "already named", "known by another name", "incomplete", "extra words"],
)
def test_an_ambiguous_ucd_is_ignored(tmp_path: Path, ucds: dict[str, str], names: list[str]) -> None:
    with_ucds("parquet", tmp_path / "new", **ucds)
    assert read_catalog_file(tmp_path / "new").columns.tolist() == names


def test_a_ucd_does_not_turn_text_into_an_optional_number(tmp_path: Path) -> None:
    table = three_rows(quality=["good", "good", "bad"])
    table["quality"].meta["ucd"] = "src.redshift"
    assert "quality" in read_catalog_file(written(tmp_path, write_ecsv, table))


# astropy writes a missing integer of a VOTable as no number at all
@pytest.mark.parametrize("write", [write for name, write in WRITERS.items() if "votable" not in name])
def test_missing_values_are_missing_and_ids_beside_them_exact(tmp_path: Path, write) -> None:
    ids = MaskedColumn([FIRST_ID, 5, FIRST_ID + 2], mask=[False, True, False], fill_value=-1)
    table = three_rows(objID=ids, z=MaskedColumn([0.5, 0.25, 0.125], mask=[False, False, True]))
    check_missing(written(tmp_path, write, table))


def check_missing(path: Path) -> None:
    prepared = prepare_catalog(read_catalog_file(path), origin="new")
    assert prepared.rows["object_id"].tolist() == [FIRST_ID, FIRST_ID + 2]
    assert prepared.rows["z"].isna().tolist() == [False, True]
    assert prepared.rejected[["row", "reason"]].to_numpy().tolist() == [[1, "missing"]]


VOTABLE_WITH_NULLS = f"""<?xml version="1.0"?>
<VOTABLE version="1.3" xmlns="http://www.ivoa.net/xml/VOTable/v1.3"><RESOURCE>
<TABLE><FIELD name="note" datatype="char" arraysize="*"/></TABLE>
<TABLE nrows="3">
<FIELD name="objID" datatype="long"><VALUES null="-1"/></FIELD><FIELD name="ra" datatype="double"/>
<FIELD name="dec" datatype="double"/><FIELD name="z" datatype="float"/>
<DATA><TABLEDATA>
<TR><TD>{FIRST_ID}</TD><TD>10</TD><TD>-1</TD><TD>0.5</TD></TR>
<TR><TD>-1</TD><TD>20</TD><TD>0</TD><TD>0.25</TD></TR>
<TR><TD>{FIRST_ID + 2}</TD><TD>30</TD><TD>1</TD><TD/></TR>
</TABLEDATA></DATA></TABLE></RESOURCE></VOTABLE>""".encode()


def test_nulls_of_a_votable_are_missing_in_its_first_table_with_data(tmp_path: Path) -> None:
    (tmp_path / "new.vot").write_bytes(VOTABLE_WITH_NULLS)
    check_missing(tmp_path / "new.vot")


def test_shifted_and_scaled_fits_columns_are_exact(tmp_path: Path) -> None:
    columns = [
        fits.Column("objID", "K", array=np.array([1, -5], dtype="i8"), null=-5),
        fits.Column("small", "I", bzero=2**15, array=np.array([0, 2**16 - 1], dtype="u2")),
        fits.Column("byte", "B", bzero=-128, array=np.array([-128, 127], dtype="i1")),
        fits.Column("flag", "L", array=np.array([True, False])),
        fits.Column("text", "6A", array=["ab", " c"]),
    ]
    path = tmp_path / "new.fits"
    fits.BinTableHDU.from_columns(columns).writeto(path)
    with fits.open(path, mode="update", do_not_scale_image_data=True) as opened:
        opened[1].header["TZERO1"] = FIRST_ID
    frame = read_catalog_file(path)
    assert frame["objID"].iloc[0] == FIRST_ID + 1
    assert frame["objID"].isna().tolist() == [False, True]
    assert frame["small"].tolist() == [0, 65_535]
    assert frame["byte"].tolist() == [-128, 127]
    assert frame["flag"].tolist() == [True, False]
    assert frame["text"].tolist() == ["ab", "c"]
    assert frame["small"].dtype.isnative


def test_the_first_binary_table_of_a_fits_file_is_read(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    image = fits.ImageHDU(np.zeros((3, 5), dtype="i2"))
    squeezed = fits.CompImageHDU(np.zeros((16, 16), dtype="i2"))
    tables = [
        fits.BinTableHDU(three_rows(ra=[value] * 3), name=name) for value, name in ((1.0, "OURS"), (2.0, "LATER"))
    ]
    fits.HDUList([fits.PrimaryHDU(np.zeros(7)), image, squeezed, *tables]).writeto(tmp_path / "new.fits")
    with caplog.at_level("INFO"):
        assert read_catalog_file(tmp_path / "new.fits")["ra"].tolist() == [1.0] * 3
    assert re.search(r"(?=.*HDU 3\b)(?=.*OURS)", caplog.text)


@pytest.mark.parametrize("write", [write_fits, write_ecsv, votable_writer("binary2")])
def test_arrays_become_text(tmp_path: Path, write) -> None:
    table = three_rows(flux=np.zeros((3, 5)), once=np.arange(3.0).reshape(3, 1))
    frame = read_catalog_file(written(tmp_path, write, table))
    assert ["5" in text for text in frame["flux"]] == [True] * 3
    assert frame["once"].tolist() == [0.0, 1.0, 2.0]
    assert "flux" in prepare_catalog(frame, origin="new").ignored_columns


def test_parquet_types_that_are_not_numbers_become_text(tmp_path: Path) -> None:
    rows = {
        "id": [decimal.Decimal(FIRST_ID), decimal.Decimal(7)],
        "ra": pa.array([1.5, None], pa.float64()),
        "dec": pa.array(["-1.5", " 2 "]).dictionary_encode(),
        "list": [[1], [2, 3]],
        "day": [dt.date(2026, 1, 2), None],
        "seen": [True, None],
        "spectrum": pa.array([None, 2**63 - 1], pa.int64()),
    }
    pq.write_table(pa.table(rows), tmp_path / "new.pq")
    frame = read_catalog_file(tmp_path / "new.pq")
    assert frame["id"].tolist() == [str(FIRST_ID), "7"]
    assert frame["dec"].tolist() == ["-1.5", "2"]
    assert frame["seen"].tolist() == [True, None]
    assert frame["spectrum"].tolist() == [pd.NA, 2**63 - 1]
    prepared = prepare_catalog(frame, origin="new")
    assert prepared.rows["object_id"].tolist() == [FIRST_ID]
    assert prepared.ignored_columns == ("list", "day", "seen", "spectrum")


def test_two_columns_with_one_name_are_both_read(tmp_path: Path) -> None:
    pq.write_table(pa.table([[1], [2], [3]], names=["id", "flux", "flux"]), tmp_path / "new.pq")
    assert read_catalog_file(tmp_path / "new.pq").to_dict("list") == {"id": [1], "flux": [2], "flux.1": [3]}


def test_a_coordinate_object_of_an_ecsv_becomes_text(tmp_path: Path) -> None:
    from astropy.coordinates import SkyCoord

    table = QTable(three_rows())
    table["place"] = SkyCoord([1, 2, 3], [4, 5, 6], unit="deg")
    assert read_catalog_file(written(tmp_path, write_ecsv, table))["place"].tolist() == ["SkyCoord"] * 3


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("# a remark\n#and another\nobjID,ra,dec\n1,2,3\n# between\n4,5,6\n", [["1", 2, 3], ["4", 5, 6]]),
        ("\ufeffobjID;ra;dec\r\n1;2;3\r\n", [["1", 2, 3]]),
        ("objID\tra\tdec\n1\t2\t3", [["1", 2, 3]]),
        ("\nobjID, ra, dec\n\n1, 2, 3\n\n", [["1", 2, 3]]),
    ],
)
def test_csv_dialects(tmp_path: Path, text: str, expected: list[list[object]]) -> None:
    (tmp_path / "new.csv").write_bytes(text.encode())
    frame = read_catalog_file(tmp_path / "new.csv")
    assert frame.columns.tolist() == ["objID", "ra", "dec"]
    assert frame.to_numpy().tolist() == expected


def test_ids_of_a_csv_are_text_whatever_the_case_of_their_name(tmp_path: Path) -> None:
    (tmp_path / "new.csv").write_text(f"OBJID,RA,DEC,SPECOBJID\n{FIRST_ID},1,2,\n,1,2,{FIRST_ID}\n")
    frame = read_catalog_file(tmp_path / "new.csv")
    assert frame["OBJID"].iloc[0] == str(FIRST_ID)
    assert frame["SPECOBJID"].iloc[1] == str(FIRST_ID)


def fits_bytes(*hdus: object) -> bytes:
    buffer = io.BytesIO()
    fits.HDUList([fits.PrimaryHDU(), *hdus]).writeto(buffer)
    return buffer.getvalue()


def a_fits_table() -> bytes:
    return fits_bytes(fits.BinTableHDU(a_table(200)))


def with_card(content: bytes, key: str, value: object) -> bytes:
    """Replace the last card with this key."""
    at = content.rindex(f"{key:8s}=".encode())
    return content[:at] + f"{key:8s}= {value!s:>20s}".ljust(80).encode() + content[at + 80 :]


def parquet_bytes() -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.table({"objID": [1], "ra": [1.0], "dec": [1.0]}), buffer)
    return buffer.getvalue()


def a_votable(body: str, *, before: str = "") -> bytes:
    return f'<?xml version="1.0"?>{before}<VOTABLE version="1.4"><RESOURCE>{body}</RESOURCE></VOTABLE>'.encode()


FIELD = '<FIELD name="objID" datatype="long"/>'
ENTITIES = (
    '<!DOCTYPE VOTABLE [<!ENTITY a "aaaaaaaaaa">'
    + "".join(f'<!ENTITY {name} "{f"&{inner};" * 10}">' for inner, name in zip("abcdefgh", "bcdefghi", strict=True))
    + "]>"
)

DAMAGED: dict[str, tuple[Callable[[], bytes], str]] = {
    "nothing": (lambda: b"", r"object_id, ra, dec$"),
    "only remarks": (lambda: b"# one\n# two\n", r"object_id, ra, dec$"),
    "open quote": (lambda: b'objID,ra\n"1,2\n3', r"(?=.*CSV)(?=.*EOF inside string)"),
    "uneven rows": (lambda: b"objID,ra\n1,2\n3,4,5\n", r"(?=.*CSV)(?=.*Expected 2 fields in line 3, saw 3)"),
    "short header": (lambda: b"objID,ra\n1,2,3\n", r"(?=.*CSV)(?=.*header)"),
    "latin-1": (lambda: "objID,ra,né\n".encode("latin-1"), r"(?=.*UTF-8)(?=.*0xe9)(?=.*\b10\b)"),
    "latin-1 below": (lambda: b"objID,ra\n" + b"1,2\n" * 5000 + b"\xe9,2\n", r"UTF-8"),
    "utf-16": (lambda: "objID,ra".encode("utf-16"), r"UTF-16"),
    "zeros": (lambda: bytes(100), r"binary"),
    "workbook": (lambda: b"PK\x03\x04" + bytes(50), r"(?=.*zip)(?=.*Excel)"),
    "hdf5": (lambda: b"\x89HDF\r\n\x1a\n", r"HDF5"),
    "gzip cut": (lambda: gzip.compress(b"objID,ra,dec\n1,2,3\n")[:-12], r"(?=.*gzip)(?=.*Compressed file ended)"),
    "gzip cut late": (
        lambda: gzip.compress(np.random.default_rng(0).bytes(10**5).hex().encode())[:-50],
        r"(Compressed file ended|1,048,576)",
    ),
    "gzipped parquet": (lambda: gzip.compress(parquet_bytes()), r"(?=.*Parquet)(?=.*gunzip)"),
    "parquet cut": (lambda: parquet_bytes()[:-20], r"(?=.*Parquet)(?=.*footer)"),
    "parquet magic alone": (lambda: b"PAR1PAR1", r"(?=.*Parquet)(?=.*8 bytes)"),
    "fits image": (
        lambda: fits_bytes(fits.ImageHDU(np.zeros((4, 4)))),
        r"(?=.*FITS)(?=.*0: image, 1: image)",
    ),
    "fits ascii table": (
        lambda: fits_bytes(fits.TableHDU.from_columns([fits.Column("ra", "F8.3", array=[1.0], ascii=True)])),
        r"(?=.*FITS)(?=.*0: image, 1: ASCII table)",
    ),
    "fits cut": (lambda: a_fits_table()[:9000], r"(?=.*HDU 1\b)(?=.*\b200 rows)(?=.*\b36 bytes)(?=.*\b3,240\b)"),
    "fits header cut": (lambda: a_fits_table()[:4000], r"(?=.*FITS)(?=.*HDU #1\b)"),
    "fits rows claimed": (lambda: with_card(a_fits_table(), "NAXIS2", 10**15), r"FITS"),
    "fits width claimed": (lambda: with_card(a_fits_table(), "NAXIS1", 40), r"(?=.*40 bytes)(?=.*NAXIS1)"),
    "fits array claimed": (lambda: with_card(a_fits_table(), "TFORM1", "'999999999999D'"), r"FITS"),
    "fits columns claimed": (
        lambda: with_card(a_fits_table(), "TFIELDS", 10**9),
        r"(?=.*TFIELDS)(?=.*1000000000)",
    ),
    "fits negative": (lambda: with_card(a_fits_table(), "NAXIS2", -5), r"(?=.*NAXIS2)(?=.*-5\b)"),
    "fits image claimed": (lambda: with_card(fits_bytes(fits.ImageHDU(np.zeros(4))), "NAXIS1", 10**14), r"FITS"),
    "error page": (
        lambda: b"<!DOCTYPE html><html><body>503</body></html>",
        r"(?=.*<html>)(?=.*VOTable)",
    ),
    "another xml": (lambda: b'<?xml version="1.0"?><kml></kml>', r"(?=.*<kml>)(?=.*VOTable)"),
    "votable cut": (lambda: VOTABLE_WITH_NULLS[:-90], r"(?=.*VOTable)(?=.*no element found)"),
    "no table": (lambda: a_votable(""), r"VOTable.* table"),
    "entities": (
        lambda: a_votable("&i;", before=ENTITIES),
        r"<!ENTITY a ",
    ),
    "rows elsewhere": (
        lambda: a_votable(f'<TABLE>{FIELD}<DATA><BINARY><STREAM href="file:///etc/hostname"/></BINARY></DATA></TABLE>'),
        r"file:///etc/hostname",
    ),
    "votable rows claimed": (
        lambda: a_votable(f'<TABLE nrows="99999999999">{FIELD}<DATA><TABLEDATA/></DATA></TABLE>'),
        r"VOTable",
    ),
    "votable rows lacking": (
        lambda: a_votable(f'<TABLE nrows="2">{FIELD}<DATA><TABLEDATA><TR><TD>1</TD></TR></TABLEDATA></DATA></TABLE>'),
        r"(?=.*\bnrows=2\b)(?=.*\b1 rows)",
    ),
    "votable array claimed": (
        lambda: a_votable('<TABLE><FIELD name="x" datatype="double" arraysize="99999x99999"/></TABLE>'),
        r"VOTable",
    ),
    "votable row of nothing": (
        lambda: a_votable(
            '<TABLE><FIELD name="x" datatype="int" arraysize="0"/><DATA><BINARY><STREAM encoding="base64">AAAA</STREAM>'
            "</BINARY></DATA></TABLE>"
        ),
        r"(?=.*VOTable)(?=.*\brow\b)",
    ),
    "ecsv header": (
        lambda: b"# %ECSV 1.0\n# ---\n# {datatype: [[[\nra\n1\n",
        r"(?=.*ECSV)(?=.*yaml)",
    ),
    "ecsv carriage return": (
        lambda: b"# %ECSV 1.0\n# ---\n# datatype:\n# - {name: ra, datatype: string}\nra\n1\r2\n",
        r"(?=.*ECSV)(?=.*new-line character seen in unquoted field)",
    ),
    "ecsv latin-1": (lambda: b"# %ECSV 1.0\n# \xe9\n", r"(?=.*ECSV)(?=.*UTF-8)(?=.*\b14\b)"),
}


@pytest.mark.parametrize(("content", "message"), DAMAGED.values(), ids=DAMAGED)
def test_an_unreadable_file_is_an_error_with_a_remedy(tmp_path: Path, content, message: str) -> None:
    path = tmp_path / "new"
    path.write_bytes(content())
    with pytest.raises(CatalogError, match=message):
        list(read_catalog_pages(path))


def test_a_path_that_is_not_a_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(CatalogError, match=r"(?=.*folder)(?=.*CSV, ECSV, FITS, VOTable or Parquet)"):
        read_catalog_file(tmp_path)
    with pytest.raises(CatalogError, match=r"(?=.*/new\.csv)(?=.*CSV, ECSV)"):
        read_catalog_head(tmp_path / "new.csv")


def test_a_suffix_that_contradicts_the_content_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "new.fits.gz").write_bytes(gzip.compress(b"XIMPLE  =     T"))
    with pytest.raises(CatalogError, match=r"(?=.*FITS)(?=.*b'XIMPLE)"):
        read_catalog_file(tmp_path / "new.fits.gz")


def test_opening_errors_come_with_the_first_page(tmp_path: Path) -> None:
    pages = read_catalog_pages(tmp_path / "new.csv")
    with pytest.raises(CatalogError, match=r"(?=.*/new\.csv)(?=.*CSV, ECSV)"):
        next(pages)


@pytest.mark.parametrize("write", [write_csv, write_fits, gzipped(write_fits), write_parquet])
def test_memory_does_not_grow_with_the_file(tmp_path: Path, write) -> None:
    path = written(tmp_path, write, a_table(150_000))
    next(read_catalog_pages(path, page_rows=2_000))  # imports
    tracemalloc.start()
    n_rows = sum(len(page) for page in read_catalog_pages(path, page_rows=2_000))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert n_rows == 150_000
    # the file has 8 MB, its rows 30 MB in memory; reads are 1-2 MB and a page has half a MB
    assert peak < 6e6


SEEDS = {name: write for name, write in WRITERS.items() if "gzip" not in name}


@pytest.fixture(scope="module")
def intact_files(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    folder = tmp_path_factory.mktemp("sound")
    return [written(folder, write, a_table(3), str(index)).read_bytes() for index, write in enumerate(SEEDS.values())]


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    which=st.integers(0, len(SEEDS) - 1),
    changes=st.lists(st.tuples(st.floats(0, 1), st.binary(max_size=8), st.integers(0, 8)), min_size=1, max_size=4),
)
def test_damage_raises_only_catalog_errors(
    tmp_path: Path, intact_files: list[bytes], which: int, changes: list[tuple[float, bytes, int]]
) -> None:
    content = intact_files[which]
    for where, inserted, n_removed in changes:
        at = int(where * len(content))
        content = content[:at] + inserted + content[at + n_removed :]
    path = tmp_path / "damaged"
    path.write_bytes(content)
    with contextlib.suppress(CatalogError):
        assert list(read_catalog_pages(path, page_rows=2))


@pytest.mark.parametrize(
    "text",
    [
        (
            '<VOTABLE><RESOURCE><TABLE><FIELD name="ra" datatype="double" unit="10**99999999999 deg"/>'
            "<DATA><TABLEDATA><TR><TD>1</TD></TR></TABLEDATA></DATA></TABLE></RESOURCE></VOTABLE>"
        ),
        "# %ECSV 1.0\n# ---\n# datatype:\n# - {name: ra, unit: 10**99999999999 deg, datatype: float64}\nra\n1\n",
    ],
    ids=["VOTable", "ECSV"],
)
def test_a_unit_with_a_huge_power_is_rejected_at_once(text: str, tmp_path: Path) -> None:
    path = tmp_path / "huge.cat"
    path.write_text(text)
    with pytest.raises(CatalogError, match=r"(?=.*huge\.cat)(?=.*99999999999)"):
        read_catalog_file(path)
