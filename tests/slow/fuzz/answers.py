"""Mutated responses of SkyServer's SQL search, parsed and checked as a catalog."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from contextlib import suppress
from functools import cached_property
from typing import ClassVar
from unittest.mock import patch

import numpy as np

from galstore.survey import skyserver_sql
from galstore.survey.row_checks import prepare_catalog
from galstore.survey.skyserver import SkyServer
from galstore.survey.skyserver_sql import count_catalog, parse_table, query_catalog
from schemas.errors import ServiceError
from schemas.selection import QUERY_COLUMNS, SELECTIONS
from tests.conftest import SHARED_DATA
from tests.slow.fuzz.mutations import BYTE_MUTATIONS
from tests.slow.fuzz.target import Mutant, Target

SERVICE = SkyServer(base_url="http://survey.example")
FIRST_ID = 1237648702973411443

FIELDS = (
    "", " ", "null", "NaN", "inf", "-inf", "-9999", "0", "-1", "1e400", "1e39", "-1e300", "9223372036854775807",
    "9223372036854775808", "18446744073709551616", "-9223372036854775809", "1.2376487029734114e+18", "0x1F", "True",
    "1237648702973411443.0", "text", "'", '"', '""', '"a,b"', '"open', "a\x00b", "\ufeff1", "\u0663", "\uff11\uff12",
    "1\u20282", "1\x852", "1\x0b2", "\ud800", "=1+1", "#Table2", "2" * 5000, "x" * 200_000, "1;2", "1\t2", "1,2",
    "1\r2", "1\n2",
)  # fmt: skip
"""Replacements for a field."""

PAGE = """<!DOCTYPE html><html><head><title>Service unavailable</title></head><body><h1>503</h1><table><tr><td>#Table1
</td></tr></table></body></html>"""


def example_answers() -> list[str]:
    """Return responses of SkyServer: tables, refusals, errors, HTML pages."""
    rng = np.random.default_rng(7)
    names = ["objID", "specObjID", *(name for name in QUERY_COLUMNS if name not in ("objID", "specObjID"))]
    rows = [
        ",".join(
            [str(FIRST_ID + number), str(299491051364706304 + number), *rng.uniform(0, 20, len(names) - 2).astype(str)]
        )
        for number in range(5)
    ]
    ids = [f"{FIRST_ID + number},{number},{number * 7.25},{number - 40}.5" for number in range(12)]
    return [
        "\n".join(["#Table1", ",".join(names), *rows, ""]),
        "\r\n".join(["#Table1", "objID,specObjID,ra,dec", *ids]),
        "#Table1\nobjID,specObjID,ra,dec\n",
        "#Table1\nn_rows\n122386\n",
        "#Table1\nerror_message\nMaximum 60 queries allowed per minute. Rejected query: SELECT\n",
        json.dumps({"ErrorCode": 500, "ErrorType": "Internal Server Error", "ErrorMessage": "Invalid column 'x'."}),
        json.dumps([{"TableName": "Table1", "Rows": [{"objID": FIRST_ID, "ra": 1.5, "dec": 2.5}]}]),
        PAGE,
    ]


class Answers(Target):
    """Fuzzing target for texts with a status, mutated as bytes, as lines and fields, and as JSON."""

    name: ClassVar[str] = "answers"

    @cached_property
    def originals(self) -> list[str]:
        recorded = sorted((SHARED_DATA / "skyserver_recorded").glob("*.txt"))
        return [*example_answers(), *(file.read_text() for file in recorded)]

    @property
    def kinds(self) -> tuple[str, ...]:
        return (*BYTE_MUTATIONS, *TABLE_EDITS, "json", "refusal")

    def _make(self, rng: random.Random, kind: str) -> Mutant:
        # prefer tables, in which most can go wrong
        text, other = rng.choice((*self.originals, *self.originals[:2] * 3)), rng.choice(self.originals)
        status = rng.choice((200, 200, 200, 500, 503))
        if kind in BYTE_MUTATIONS:
            mutated = BYTE_MUTATIONS[kind](rng, text.encode(), other.encode())
            return Mutant(kind=kind, content=mutated, status=status)
        if kind in TABLE_EDITS:
            lines = rng.choice(self.originals[:5]).splitlines()
            text, status = "\n".join(TABLE_EDITS[kind](rng, lines)), 200
        else:
            text = _json_error(rng) if kind == "json" else _refusal(rng)
        return Mutant(kind=kind, content=text.encode(errors="surrogatepass"), status=status)

    def try_out(self, mutant: Mutant) -> str:
        # requests replaces invalid bytes and never fails
        text = mutant.content.decode("utf-8", errors="replace")
        outcome = _prepared(text, mutant.status)
        with patch.object(skyserver_sql, "query_sql", lambda *_: _parsed(text, mutant.status)):
            _count_rows()
            _follow_pages()
        return outcome


def _parsed(text: str, status: int) -> object:
    return parse_table(text, status=status, base_url=SERVICE.base_url)


def _prepared(text: str, status: int) -> str:
    page = _parsed(text, status)
    prepared = prepare_catalog(page, origin="the survey's catalog")
    assert len(prepared.rows) + len(prepared.rejected) == len(page)
    assert prepared.rows["object_id"].is_unique
    return "kept" if len(prepared.rows) == len(page) else "some rejected" if len(prepared.rows) else "all rejected"


def _count_rows() -> None:
    with suppress(ServiceError):
        assert count_catalog(SERVICE, SELECTIONS["labelled"]) >= 0


def _follow_pages() -> None:
    """Check that a service which always sends the same page is not queried forever."""
    with suppress(ServiceError):
        pages = query_catalog(SERVICE, SELECTIONS["labelled"], columns=["ra", "dec"], page_rows=2)
        assert all(number == 0 for number, _ in enumerate(pages))


def _edit_field(rng: random.Random, lines: list[str]) -> list[str]:
    number = rng.randrange(1, len(lines))
    fields = lines[number].split(",")
    for _ in range(rng.choice((1, 1, 3))):
        fields[rng.randrange(len(fields))] = rng.choice(FIELDS)
    return [*lines[:number], ",".join(fields), *lines[number + 1 :]]


def _edit_key(rng: random.Random, lines: list[str]) -> list[str]:
    """Replace objID or specObjID in some rows."""
    edited = list(lines)
    for number in range(2, len(lines)):
        if rng.random() < 0.4:
            fields = lines[number].split(",")
            fields[rng.randrange(min(2, len(fields)))] = rng.choice(FIELDS)
            edited[number] = ",".join(fields)
    return edited


def _edit_widths(rng: random.Random, lines: list[str]) -> list[str]:
    """Give a row more or fewer fields than the header."""
    number = rng.randrange(1, len(lines))
    fields = lines[number].split(",")
    first = rng.randrange(len(fields))
    # the input itself stays small, because memory is measured against it
    word = rng.choice([field for field in FIELDS if len(field) < 100])
    fields[first : first + rng.choice((0, 1, 2))] = [word] * rng.choice((0, 1, 2, 400))
    return [*lines[:number], ",".join(fields), *lines[number + 1 :]]


def _edit_header(rng: random.Random, lines: list[str]) -> list[str]:
    """Duplicate, rename or swap column names, or remove a name."""
    names = lines[1].split(",")
    first, second = rng.randrange(len(names)), rng.randrange(len(names))
    names[first] = rng.choice(
        (names[second], names[first].upper(), f" {names[first]} ", "", "object_id", "id", *FIELDS)
    )
    return [lines[0], ",".join(names), *lines[2:]]


def _edit_frame(rng: random.Random, lines: list[str]) -> list[str]:
    """Change the text around a table: byte order marks, further tables, blank lines, a missing first line."""
    return rng.choice(
        (
            [f"\ufeff{lines[0]}", *lines[1:]],
            [f"\ufeff\ufeff{lines[0]}", f"\ufeff{lines[1]}", *lines[2:]],
            ["", *lines],
            [lines[0], "", *lines[1:]],
            lines[1:],
            lines[:1],
            [*lines, "", "#Table2", *lines[1:]],
            [lines[0], *lines[2:]],
            [lines[0], f'"{lines[1]}', *lines[2:]],
            ["#table1", *lines[1:]],
            ["#Table1,objID,ra,dec", *lines[1:]],
            [*lines, *lines[2:]],
            [*lines[:2], *reversed(lines[2:])],
            [*lines[:2], *lines[2:3] * 5000],
            ["\x00".join(line) for line in lines],
        )
    )


TABLE_EDITS: dict[str, Callable[[random.Random, list[str]], list[str]]] = {
    "field": _edit_field,
    "key": _edit_key,
    "widths": _edit_widths,
    "header": _edit_header,
    "frame": _edit_frame,
}


def _json_error(rng: random.Random) -> str:
    message = rng.choice(
        (None, 5, [], {}, "", " ", "Invalid object name 'x'.", "x" * 100_000, "\x00\x1b[31m", "\ud800")
    )
    return rng.choice(
        (
            json.dumps({"ErrorMessage": message}),
            json.dumps([{"ErrorMessage": message}]),
            json.dumps({"errormessage": message, "ErrorCode": 500}),
            json.dumps({"ErrorMessage": message})[:-1],
            "[" * rng.choice((10, 100_000)),
            '{"a":' * 100_000,
            "1" * 5000,
            "NaN",
            "null",
            "\ufeff" + json.dumps({"ErrorMessage": message}),
        )
    )


def _refusal(rng: random.Random) -> str:
    message = rng.choice(FIELDS)
    first = rng.choice(("#Table1", "#Table1\r", "\ufeff#Table1", "#Table1,error_message"))
    name = rng.choice(("error_message", "Error_Message", " error_message", "error_message,objID", '"error_message"'))
    return "\n".join([first, name, *[message] * rng.choice((0, 1, 3))])
