from __future__ import annotations

import pandas as pd
import pytest

from galstore.survey.skyserver import SkyServer
from galstore.survey.skyserver_sql import build_query, count_catalog, parse_table, query_catalog, query_sql
from schemas.errors import QueryRefusedError, RecipeError, ServiceError
from schemas.selection import SELECTIONS

BASE = "http://127.0.0.1:1"
LABELLED = SELECTIONS["labelled"]


def test_the_papers_cuts_are_in_the_query() -> None:
    sql = build_query(SELECTIONS["wu_boada_2019"], ["ra"], top=5)
    for cut in (
        "G.petroMag_r > 10 AND G.petroMag_r < 18",
        "(G.modelMag_u - G.modelMag_r) > 0 AND (G.modelMag_u - G.modelMag_r) < 6",
        "G.modelMag_z > 10 AND G.modelMag_z < 25",
        "S.rChi2 < 2",
        "S.zErr > 0 AND S.zErr < 0.01",
        "S.z > 0.02",
        "E.oh_p50 <> -9999",
    ):
        assert cut in sql


def test_an_unknown_column_is_an_error() -> None:
    with pytest.raises(RecipeError, match=r"(?=.*survey\.columns)(?=.*'colour')"):
        build_query(LABELLED, ["colour"], top=1)


def test_recorded_tables_are_parsed_with_exact_ids(shared_data) -> None:
    text = (shared_data / "skyserver_recorded" / "xid_im.txt").read_text()
    table = parse_table(text, status=200, base_url=BASE)
    assert len(table) == 18
    assert table["objid"].iloc[0] == 1237653651835781245


@pytest.mark.parametrize(
    ("text", "status", "error", "message"),
    [
        ("#Table1\nerror_message\nMaximum 60 queries allowed per minute", 200, QueryRefusedError, "Maximum 60 queries"),
        ('{"ErrorCode": 500, "ErrorMessage": "Invalid column name"}', 500, QueryRefusedError, "Invalid column name"),
        ("<html>Service Unavailable</html>", 503, ServiceError, "503"),
        ("<html>maintenance</html>", 200, ServiceError, "table"),
        ("", 200, ServiceError, "table"),
    ],
)
def test_a_response_without_a_table_has_its_error(text, status, error, message) -> None:
    with pytest.raises(error, match=message):
        parse_table(text, status=status, base_url=BASE)


def test_a_table_may_be_empty() -> None:
    assert parse_table("#Table1\nobjID,ra\n", status=200, base_url=BASE).empty


def test_an_unreachable_survey_is_a_service_error() -> None:
    with pytest.raises(ServiceError, match=r"(?=.*http://127\.0\.0\.1:1\b)(?=.*survey\.base_url)"):
        query_sql(SkyServer(base_url=BASE), "SELECT 1")


@pytest.mark.parametrize("page_rows", [300, 1100, 5000])
def test_pages_have_every_row_once_and_in_order(folder_service, cutout_folder, page_rows: int) -> None:
    pages = list(query_catalog(folder_service, LABELLED, columns=["ra", "oh_p50"], page_rows=page_rows))
    ids = pd.concat(pages)["objID"]
    assert ids.tolist() == sorted(pd.read_csv(cutout_folder / "catalog.csv")["objID"])
    assert count_catalog(folder_service, LABELLED) == 1100


def test_limit_ends_the_pages(folder_service, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", logger="galstore.survey"):
        pages = list(query_catalog(folder_service, LABELLED, columns=["ra"], page_rows=40, limit=100))
    assert [len(page) for page in pages] == [40, 40, 20]
    assert [message.partition(": ")[2] for message in caplog.messages] == [f"{n} rows so far" for n in (40, 80, 100)]


def test_an_unknown_scale_is_omitted() -> None:
    service = SkyServer(base_url=BASE)
    assert "scale" not in service.cutout_params(ra_deg=1, dec_deg=2, scale_arcsec=float("nan"))
    assert service.cutout_params(ra_deg=1, dec_deg=2, scale_arcsec=0.296)["scale"] == "0.296"
