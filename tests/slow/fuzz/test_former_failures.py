"""Regression tests for inputs that once escaped, hung or were silently damaged."""

from __future__ import annotations

from pathlib import Path
from unittest.mock import patch

import pytest

from galstore.survey import skyserver_sql
from galstore.survey.catalog_files.reader import read_catalog_pages
from galstore.survey.skyserver import SkyServer
from galstore.survey.skyserver_sql import count_catalog, parse_table, query_catalog
from schemas.errors import CatalogError, ServiceError
from schemas.selection import SELECTIONS

BASE_URL = "http://survey.example"
FIRST_ID = 1237648702973411443


def parsed(*lines: str, status: int = 200) -> object:
    return parse_table("\n".join(lines), status=status, base_url=BASE_URL)


@pytest.mark.parametrize("written", [f"{FIRST_ID}.0", "1.237648702973411443e18", "inf", "", str(2**63), str(2**64)])
def test_an_invalid_id_is_an_error_for_the_whole_table(written: str) -> None:
    with pytest.raises(ServiceError, match="table"):
        parsed("#Table1", "objID,specObjID,ra,dec", f"{FIRST_ID},1,2,3", f"{written},1,2,3")


def test_rows_longer_than_the_header_are_an_error() -> None:
    with pytest.raises(ServiceError, match="table"):
        parsed("#Table1", "objID,specObjID,ra,dec", "1,2,3,4,5", "6,7,8,9,10")


@pytest.mark.parametrize("text", ["[" * 100_000, "1" * 5000, '{"a":' * 100_000])
def test_endless_json_is_an_outage(text: str) -> None:
    with pytest.raises(ServiceError, match=r"\b500\b"):
        parsed(text, status=500)


def test_a_field_may_hold_unicode_line_separators() -> None:
    table = parsed("#Table1", "objID,specObjID,name", "1,2,a\x85b\u2028c")
    assert table["name"].tolist() == ["a\x85b\u2028c"]


def test_a_repeated_page_is_an_error() -> None:
    page = parsed("#Table1", "objID,specObjID,ra,dec", "1,2,3,4", "5,6,7,8")
    with patch.object(skyserver_sql, "query_sql", lambda *_: page):
        pages = query_catalog(SkyServer(base_url=BASE_URL), SELECTIONS["labelled"], columns=["ra", "dec"], page_rows=2)
        next(pages)
        with pytest.raises(ServiceError, match=r"objID 5\b"):
            next(pages)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (("n_rows",), r"\[\]"),
        (("n_rows", "-1"), r"\[-1\]"),
        (("n", "5"), r"(?=.*'n_rows')(?=.*\bn\b)"),
    ],
)
def test_an_invalid_count_is_an_error_that_shows_it(lines: tuple[str, ...], message: str) -> None:
    with (
        patch.object(skyserver_sql, "query_sql", lambda *_: parsed("#Table1", *lines)),
        pytest.raises(ServiceError, match=message),
    ):
        count_catalog(SkyServer(base_url=BASE_URL), SELECTIONS["labelled"])


@pytest.mark.timeout(60)
def test_a_header_of_thousands_of_equal_names_is_rejected_quickly(tmp_path: Path) -> None:
    file = tmp_path / "catalog"
    file.write_text("objID,ra,dec" + ",c" * 100_000 + "\n1,2,3\n")
    with pytest.raises(CatalogError, match=r"(?=.*\b100,003 columns)(?=.*\b5,000\b)"):
        next(read_catalog_pages(file))
