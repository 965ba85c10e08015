"""Mutated catalog files, read and checked as a catalog."""

from __future__ import annotations

import gzip
import io
import random
import struct
import tempfile
import warnings
from collections.abc import Callable
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from astropy.table import MaskedColumn, Table

from galstore.survey.catalog_files.reader import HEAD_ROWS, read_catalog_head, read_catalog_pages
from galstore.survey.row_checks import prepare_catalog
from tests.slow.fuzz.mutations import BYTE_MUTATIONS, EXTREMES
from tests.slow.fuzz.target import Mutant, Target

FIRST_ID = 1237648702973411443
N_ROWS = 40
MOST_ROWS = 100_000
"""Maximum number of rows read from one file."""


def a_table() -> Table:
    """Return a table with ids, positions, a unit to convert, missing values and text."""
    rng = np.random.default_rng(5)
    missing = np.arange(N_ROWS) % 7 == 0
    table = Table(
        {
            "objID": FIRST_ID + np.arange(N_ROWS),
            "ra": rng.uniform(0, 6.28, N_ROWS),
            "dec": rng.uniform(-90, 90, N_ROWS),
            "specObjID": MaskedColumn(np.arange(N_ROWS), mask=missing),
            "modelMag_r": rng.uniform(14, 18, N_ROWS).astype("f4"),
            "oh_p50": MaskedColumn(rng.normal(8.9, 0.2, N_ROWS).astype("f4"), mask=missing),
            "name": [f"NGC {number}" for number in range(N_ROWS)],
        }
    )
    table["ra"].unit = "rad"
    table["dec"].unit = "deg"
    return table


def plain_table() -> Table:
    return a_table()["objID", "ra", "dec"]


def wide_table() -> Table:
    table = a_table()
    table["bands"] = np.arange(5 * N_ROWS, dtype="f4").reshape(N_ROWS, 5)
    table["flag"] = np.arange(N_ROWS) % 2 == 0
    table["count"] = np.arange(N_ROWS, dtype="i2")
    return table


def example_files() -> dict[str, list[bytes]]:
    """Return files by format."""
    tables = [a_table(), plain_table(), wide_table()]
    files = {
        "csv": [_csv(table) for table in tables[:2]],
        "ecsv": [_written(table, "ascii.ecsv") for table in tables],
        "fits": [_written(table, "fits") for table in tables],
        "votable": [
            # BINARY does not support nulls
            _written(table.filled(0) if how == "binary" else table, "votable", tabledata_format=how)
            for table in tables
            for how in ("tabledata", "binary", "binary2")
        ],
        "parquet": [_parquet(table, **options) for table in tables[:2] for options in PARQUET_OPTIONS],
    }
    files["gzip"] = [gzip.compress(originals[0], 1) for name, originals in files.items() if name != "parquet"]
    return files


PARQUET_OPTIONS = (
    {"compression": "none", "use_dictionary": False},
    {"compression": "snappy"},
    {"compression": "zstd", "row_group_size": 7},
    {"compression": "none", "data_page_version": "2.0", "write_statistics": False},
)


def _csv(table: Table) -> bytes:
    return table.to_pandas().to_csv(index=False).encode()


def _written(table: Table, format: str, **options: str) -> bytes:  # noqa: A002 - name of astropy
    with warnings.catch_warnings(), tempfile.TemporaryDirectory() as folder:
        # units that VOTable 1.4 does not list, masked integers
        warnings.simplefilter("ignore")
        file = Path(folder) / "catalog"
        table.write(file, format=format, **options)
        return file.read_bytes()


def _parquet(table: Table, **options: object) -> bytes:
    arrays = [pa.array(np.asarray(column), mask=np.ma.getmaskarray(column)) for column in table.itercols()]
    fields = [pa.field(name, array.type) for name, array in zip(table.colnames, arrays, strict=True)]
    file = io.BytesIO()
    pq.write_table(pa.table(arrays, schema=pa.schema(fields)), file, **options)
    return file.getvalue()


class Catalogs(Target):
    """Fuzzing target for catalog files, mutated as bytes and as parts of their format, and for memory bombs."""

    name: ClassVar[str] = "catalogs"
    # a page of 50,000 rows of text from a small Parquet file
    largest_growth_bytes: ClassVar[int] = 384 << 20

    @cached_property
    def originals(self) -> dict[str, list[bytes]]:
        return example_files()

    @property
    def kinds(self) -> tuple[str, ...]:
        formats = ("csv", "ecsv", "fits", "votable", "parquet", "gzip")
        return (*(f"{name} {how}" for name in formats for how in ("bytes", "bytes", "parts")), "bomb")

    def _make(self, rng: random.Random, kind: str) -> Mutant:
        if kind == "bomb":
            return Mutant(kind=kind, content=rng.choice(list(BOMBS.values()))(rng, self.originals))
        name, how = kind.split()
        file, other = rng.choice(self.originals[name]), rng.choice(self.originals[name])
        if how == "parts":
            return Mutant(kind=kind, content=PART_EDITS[name](rng, file, self.originals))
        for _ in range(rng.choice((1, 1, 1, 3))):
            file = BYTE_MUTATIONS[rng.choice(list(BYTE_MUTATIONS))](rng, file, other) or b"\n"
        return Mutant(kind=kind, content=file)

    def try_out(self, mutant: Mutant) -> str:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "catalog"
            path.write_bytes(mutant.content)
            return _read(path, page_rows=50_000 if mutant.kind == "bomb" else 16)


def _read(path: Path, *, page_rows: int) -> str:
    n_rows = n_kept = 0
    pages = read_catalog_pages(path, page_rows=page_rows)
    # the first pages of a bomb are as large as any other
    for page in islice(pages, MOST_ROWS // page_rows):
        assert len(page) <= page_rows
        prepared = prepare_catalog(page, origin=f"catalog {path}", first_row=n_rows)
        assert len(prepared.rows) + len(prepared.rejected) == len(page)
        assert prepared.rows["object_id"].is_unique
        n_rows += len(page)
        n_kept += len(prepared.rows)
    if n_rows < MOST_ROWS:
        assert len(read_catalog_head(path)) == min(n_rows, HEAD_ROWS)
    return "kept" if n_kept == n_rows else "some rejected" if n_kept else "all rejected"


Originals = dict[str, list[bytes]]
PartEdit = Callable[[random.Random, bytes, Originals], bytes]

FIELDS = (
    "", " ", "nan", "NaN", "inf", "-inf", "1e39", "1e400", "-9999", "-9999.0", "0", "-1", "9223372036854775808", "text",
    "18446744073709551616", "1.2376487029734114e+18", "1237648702973411443.0", "12:30:45.6", "12h30m", '"', "+5",
    '"a,b"', "'", "#", "\x00", "\ufeff", "\uff11\uff12", "\u0663", "True", "None", "NULL", "2" * 5000, "1;2", "1\t2",
    "1_000", "0x1F",
)  # fmt: skip
UNITS = (
    "rad", "deg", "h", "mag", "Jy", "km/s", "%", "deg**0.3333333", "log(deg)",
    "dex(deg)", "mag(AB)", "(((((deg)))))", "(" * 500, "deg " * 50, "1e400 deg", "", "unknown", "\u00b0", "'deg'",
    "deg/0",
)  # fmt: skip


def _edit_csv(rng: random.Random, file: bytes, _: Originals) -> bytes:
    lines = [line.split(",") for line in file.decode().splitlines()]
    for _unused in range(rng.choice((1, 1, 5))):
        number = rng.choice((0, rng.randrange(len(lines))))
        what = rng.random()
        if what < 0.5:
            lines[number][rng.randrange(len(lines[number]))] = rng.choice(FIELDS)
        elif what < 0.7:
            lines[number] += [rng.choice(FIELDS)] * rng.choice((1, 2, 300))
        elif what < 0.8:
            lines[number] = lines[number][: rng.randrange(1, len(lines[number]) + 1)]
        elif what < 0.9:
            lines[number] = lines[rng.randrange(len(lines))]
        else:
            lines.insert(number, [rng.choice(("", "# a comment", "#", '"', " ", "\x0c"))])
    text = rng.choice(("\n", "\n", "\r\n", "\r")).join(
        rng.choice((",", ",", ";", "\t", " ")).join(line) for line in lines
    )
    return text.encode(rng.choice(("utf-8", "utf-8", "utf-8-sig", "utf-16", "latin-1")), errors="replace")


YAML_LINES = (
    "# a: &a [*a]",
    "# - !!python/object/apply:os.system ['true']",
    "# - *b",
    "# ---",
    "# " + "[" * 3000,
    "#",
    "# \x00",
    "# " + "{a: " * 500,
    "# delimiter: ','",
)


def _edit_ecsv(rng: random.Random, file: bytes, _: Originals) -> bytes:
    """Edit lines of the YAML header or fields of the rows."""
    lines = file.decode().splitlines()
    n_header = sum(line.startswith("#") for line in lines)
    number = rng.randrange(n_header)
    if rng.random() < 0.3:
        number = rng.randrange(n_header, len(lines))
        fields = lines[number].split(" ")
        fields[rng.randrange(len(fields))] = rng.choice(FIELDS)
        lines[number] = " ".join(fields)
    elif rng.random() < 0.3:
        lines.insert(number, rng.choice(YAML_LINES))
    elif rng.random() < 0.3:
        del lines[number]
    else:
        changed = rng.choice(
            (
                (
                    "int64",
                    rng.choice(("int8", "float128", "complex64", "string", "object", "bool", "int65", "decimal")),
                ),
                ("float64", rng.choice(("string", "int16", "datetime64", "float16", "!!float"))),
                ("deg", rng.choice(UNITS)),
                ("name:", rng.choice(("nome:", "name: [", "name: {", "name: !!binary"))),
                ("subtype", "subtyp"),
                ("[5]", rng.choice(("[6]", "[null]", "[-1]", "x"))),
            )
        )
        lines = [line.replace(*changed) if line.startswith("#") else line for line in lines]
    return "\n".join(lines).encode()


FITS_KEYS = tuple(b"NAXIS BITPIX PCOUNT GCOUNT TFIELDS TFORM TTYPE TUNIT TDIM TNULL XTENSION END".split())
FITS_VALUES = (
    *map(str, EXTREMES), "-1", "1.5", "T", "''", "'5E'", "'1PE(99999999)'", "'9999999999E'", "'26A'", "'0K'", "'K'",
    "'Z'", "'1K 1K'", "'(5,99999999)'", "'(-1)'", "'objID'", "'ra'", "1E400", "NaN", "9" * 60, "'x' / &", "",
    *(f"'{unit[:60]}'" for unit in UNITS),
)  # fmt: skip


def _edit_fits(rng: random.Random, file: bytes, _: Originals) -> bytes:
    """Edit values of header cards, or replace cards."""
    cards = [file[place : place + 80] for place in range(0, len(file) - 80, 80)]
    marked = [number for number, card in enumerate(cards) if card.startswith(FITS_KEYS)]
    for _unused in range(rng.choice((1, 1, 3))):
        number = rng.choice(marked)
        key = cards[number][:8].decode()
        if rng.random() < 0.2:
            digit = key.strip()[-1]
            further = (f"TNULL{digit}", f"TSCAL{digit}", f"TZERO{digit}", f"TDIM{digit}", "ZIMAGE", "GROUPS", "THEAP")
            key = rng.choice(further)
        cards[number] = f"{key:8}= {rng.choice(FITS_VALUES):>20}".encode(errors="replace")[:80].ljust(80)
    return b"".join(cards) + file[80 * len(cards) :]


VOTABLE_EDITS: dict[bytes, tuple[bytes, ...]] = {
    b'datatype="long"': (b'datatype="bit"', b'datatype="char"', b'datatype="quark"', b'datatype="double"'),
    b'datatype="double"': (b'datatype="floatComplex"', b'datatype="boolean"', b'datatype="unicodeChar"'),
    b"arraysize=": tuple(b'arraysize="%s" a=' % sides for sides in (b"9", b"*", b"3x*", b"-5", b"x", b"")),
    b"<FIELD": (b'<FIELD arraysize="9"', b"<PARAM", b'<FIELD width="x" precision="E99"', b'<FIELD ID="ra" '),
    b"nrows=": (b'nrows="99" a=', b'nrows="-1" a=', b'nrows="x" a='),
    b"<TABLE": (b'<TABLE nrows="999"', b'<TABLE ref="x"', b"<TABLE><TABLE", b"<GROUP"),
    b'unit="deg"': tuple(f'unit="{unit}"'.encode() for unit in UNITS),
    b'encoding="base64"': (
        b'encoding="gzip"',
        b'encoding="dynamic"',
        b'href="file:///dev/zero"',
        b'href="http://x.example"',
    ),
    b"<TD>": (b"<TD/><TD>", b"<TD>&amp;", b"<TD>&lol;", b"<TD><TD>", b"<TD ", b"<TD><![CDATA[]]>"),
    b"</TR>": (b"", b"</TR></TR>", b"<TD>1</TD></TR>"),
    b"<VOTABLE": (b"<VOTABLE version='9' ", b"<RESOURCE", b"<v:VOTABLE", b"<html><VOTABLE"),
    b"<RESOURCE": tuple(b"<RESOURCE" + b"><RESOURCE" * depth for depth in (1, 100, 5000)),
    b"<STREAM": (b'<STREAM encoding="none"', b"<FITS", b"<STREAM/><STREAM"),
    b"utf-8": (b"utf-16", b"ascii", b"latin-1", b"quark-8", b"utf-7"),
    b"<?xml": (b"", b"\xef\xbb\xbf<?xml", b" <?xml", b"<?xml?><?xml"),
    b"BINARY2": (b"BINARY",),
    b"TABLEDATA": (b"BINARY2",),
}
"""Parts of a VOTable with their replacements."""


def _edit_votable(rng: random.Random, file: bytes, _: Originals) -> bytes:
    """Replace attributes and elements."""
    old = rng.choice([part for part in VOTABLE_EDITS if part in file])
    return file.replace(old, rng.choice(VOTABLE_EDITS[old]), rng.choice((1, 1, -1)))


def _edit_parquet(rng: random.Random, file: bytes, _: Originals) -> bytes:
    """Edit integers of the footer and the page headers, which Thrift writes with variable length."""
    n_footer = struct.unpack("<I", file[-8:-4])[0]
    footer = bytearray(file[-8 - n_footer : -8])
    pages = bytearray(file[: -8 - n_footer])
    for _unused in range(rng.choice((1, 1, 2, 8))):
        part = rng.choice((footer, footer, pages))
        place = rng.randrange(4, len(part))
        value = rng.choice(EXTREMES)
        varint = bytearray()
        while value > 0x7F:
            varint.append(0x80 | value & 0x7F)
            value >>= 7
        varint.append(value)
        part[place : place + rng.choice((1, len(varint)))] = varint
    length = rng.choice((len(footer), len(footer), n_footer, *EXTREMES[:9]))
    return bytes(pages + footer) + struct.pack("<I", length) + b"PAR1"


def _edit_gzip(rng: random.Random, _: bytes, originals: Originals) -> bytes:
    """Compress a mutated file, or compress an intact file in two members, twice, or cut off."""
    name = rng.choice(("csv", "ecsv", "fits", "votable", "parquet"))
    file = rng.choice(originals[name])
    mutant = PART_EDITS[name](rng, file, originals)
    half = len(file) // 2
    packed = gzip.compress(file, 1)
    return rng.choice(
        (
            gzip.compress(mutant, 1),
            gzip.compress(file[:half], 1) + gzip.compress(file[half:], 1),
            packed[: rng.randrange(2, len(packed))],
            gzip.compress(packed, 1),
            packed + b"\x00" * 100,
            packed + b"trailing",
            packed[:-8] + rng.randbytes(8),
            gzip.compress(b""),
        )
    )


PART_EDITS: dict[str, PartEdit] = {
    "csv": _edit_csv,
    "ecsv": _edit_ecsv,
    "fits": _edit_fits,
    "votable": _edit_votable,
    "parquet": _edit_parquet,
    "gzip": _edit_gzip,
}


def _fits_bomb(rng: random.Random, originals: Originals) -> bytes:
    """Write a header that claims more than the memory, plain or in gzip."""
    file = originals["fits"][0]
    key = rng.choice((b"NAXIS2", b"NAXIS1", b"PCOUNT", b"TFIELDS"))
    place = file.index(key, 2880)
    value = str(rng.choice((10**7, 10**9, 10**12, 2**63 - 1))).encode()
    bomb = file[:place] + key.ljust(8) + b"= " + value.rjust(20) + file[place + 30 :]
    return rng.choice((bomb, gzip.compress(bomb, 1)))


def _parquet_bomb(rng: random.Random, _: Originals) -> bytes:
    """Write columns of one value or null, a few kB that are gigabytes in memory."""
    n = rng.choice((200_000, 3_000_000))
    places = pa.array(np.zeros(n, dtype="i4"))
    bulk = rng.choice(
        (
            pa.DictionaryArray.from_arrays(places, pa.array(["x" * rng.choice((1, 100))])),
            pa.nulls(n, pa.float64()),
            pa.nulls(n, pa.list_(pa.float64())),
            pa.array(np.zeros(n)),
        )
    )
    zeros = pa.array(np.zeros(n, dtype="i8"))
    file = io.BytesIO()
    # without Arrow's schema, dictionary entries are read as text
    table = pa.table({"objID": zeros, "ra": zeros, "dec": zeros, "bulk": bulk})
    pq.write_table(table, file, compression="zstd", store_schema=rng.random() < 0.5)
    return file.getvalue()


def _csv_bomb(rng: random.Random, _: Originals) -> bytes:
    return rng.choice(
        (
            b"objID,ra,dec\n1,2," + b"9" * 5_000_000,
            b'objID,ra,dec\n1,2,"' + b"x\n" * 2_000_000,
            b"objID,ra,dec," + b"c," * 20_000 + b"\n1,2,3",
            b"objID,ra,dec\n" + b"1,2,3," * 200_000,
            b"#" * 5_000_000,
            b"\n" * 5_000_000 + b"objID,ra,dec\n1,2,3",
            b"objID,ra,dec\r" * 200_000,
        )
    )


BOMBS: dict[str, Callable[[random.Random, Originals], bytes]] = {
    "fits": _fits_bomb,
    "parquet": _parquet_bomb,
    "csv": _csv_bomb,
}
"""Small files that are large in memory."""
