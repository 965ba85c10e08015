import io
import os
import re
import signal
import socket
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import requests
from astropy.table import Table
from astroquery.sdss import SDSS
from astroquery.sdss import conf as sdss_conf
from PIL import Image

from galstore.emulator.faults import Fault, FaultPlan
from galstore.emulator.server import emulate
from galstore.emulator.sky.simulated import SimulatedSky
from galstore.emulator.survey import CutoutQuery
from galstore.survey.responses import retry_after_s
from schemas.errors import ContractError
from schemas.recipes import EmulatorSection, FaultSection
from schemas.selection import QUERY_COLUMNS, QUERY_TABLES, SELECTIONS

FOOTPRINT_ONLY = {"ra": 200, "dec": 33.3}
OUTSIDE = {"ra": 10, "dec": -60}


def getjpeg(url: str, release: int = 14, **query: object) -> requests.Response:
    return requests.get(f"{url}/dr{release}/SkyServerWS/ImgCutout/getjpeg", params=query, timeout=60)


def search(url: str, cmd: str, style: str = "csv", **query: object) -> requests.Response:
    address = f"{url}/dr14/SkyServerWS/SearchTools/SqlSearch"
    return requests.get(address, params={"cmd": cmd, "format": style, **query}, timeout=60)


def size_of(response: requests.Response) -> tuple[int, int]:
    return Image.open(io.BytesIO(response.content)).size


def black_share(response: requests.Response) -> float:
    return float((np.asarray(Image.open(io.BytesIO(response.content))) == 0).mean())


def folder_section(folder: Path, *, n: int, **settings: object) -> EmulatorSection:
    """Write a folder of `n` noise images with a catalog and return its section."""
    object_ids = 1237648702973411443 + np.arange(n)
    labels = (8.5 + 0.1 * np.arange(n)).round(1)
    table = pd.DataFrame({"objID": object_ids, "ra": 10 + np.arange(n) / 4, "dec": -3.5, "oh_p50": labels})
    table.to_csv(folder / "catalog.csv", index=False)
    for object_id in object_ids:
        Image.effect_noise((128, 128), 40).convert("RGB").save(folder / f"{object_id}.jpg")
    return EmulatorSection(catalog=folder / "catalog.csv", cutouts=folder, **settings)


@pytest.fixture(scope="session")
def galaxy(sky_url: str, new_catalog: Path) -> dict[str, float]:
    """Return the position of a galaxy; the first drawing waits until the workers have loaded GalSim."""
    row = pd.read_csv(new_catalog).iloc[0]
    place = {"ra": float(row["ra"]), "dec": float(row["dec"])}
    assert getjpeg(sky_url, **place).status_code == 200
    return place


# the cutout service


def test_a_cutout_is_the_one_that_the_sky_draws(sky_url: str, galaxy: dict[str, float]) -> None:
    sky = SimulatedSky(seed=3, n_galaxies=600, n_new=20)
    response = getjpeg(sky_url, **galaxy, scale=0.296, width=128, height=128)
    query = CutoutQuery(position_deg=(0, 0), scale_arcsec=0.296, size_px=(128, 128))
    drawing = sky.cutout(sky.find(galaxy["ra"], galaxy["dec"]), query)
    assert response.headers["Content-Type"] == "image/jpeg"
    assert response.content == drawing()
    assert getjpeg(sky_url, **galaxy, scale=0.296, width=128, height=128).content == response.content


@pytest.mark.parametrize("release", range(14, 20))
def test_releases_14_to_19_send_cutouts(sky_url: str, galaxy: dict[str, float], release: int) -> None:
    assert size_of(getjpeg(sky_url, release, **galaxy)) == (128, 128)


def test_size_and_scale_are_clamped_silently(sky_url: str, galaxy: dict[str, float]) -> None:
    small = getjpeg(sky_url, **galaxy, width=1, height=70)
    assert small.status_code == 200
    assert size_of(small) == (64, 70)
    assert size_of(getjpeg(sky_url, **FOOTPRINT_ONLY, width=99_999, height=64)) == (2048, 64)
    tiny, smallest = (getjpeg(sky_url, **galaxy, scale=scale) for scale in (0.001, 0.015))
    assert tiny.content == smallest.content


def test_unknown_parameters_are_ignored(sky_url: str, galaxy: dict[str, float]) -> None:
    assert getjpeg(sky_url, **galaxy, opt="GS", quality=9).content == getjpeg(sky_url, **galaxy).content


@pytest.mark.parametrize(
    ("query", "facts"),
    [
        ({"ra": 1}, r"\bdec\b"),
        ({"dec": 1}, r"\bra\b"),
        ({"ra": "12h", "dec": 1}, r"(?=.*\bra\b)(?=.*'12h')"),
        ({"ra": "nan", "dec": 1}, r"\bnan\b"),
        ({"ra": 1, "dec": 91}, r"\b91\b"),
    ],
)
def test_a_missing_or_wrong_position_is_400_with_json(sky_url: str, query: dict[str, object], facts: str) -> None:
    response = getjpeg(sky_url, **query)
    assert response.status_code == 400
    assert response.json()["ErrorCode"] == 400
    assert re.search(facts, response.json()["ErrorMessage"])


def test_outside_the_footprint_is_404_with_a_black_jpeg(sky_url: str) -> None:
    response = getjpeg(sky_url, **OUTSIDE)
    assert response.status_code == 404
    assert size_of(response) == (128, 128)
    assert 0.85 < black_share(response) < 0.97


def test_older_releases_reply_200_with_the_black_tile(sky_url: str) -> None:
    response = getjpeg(sky_url, 12, **OUTSIDE)
    assert response.status_code == 200
    assert black_share(response) > 0.85


def test_between_the_galaxies_there_is_sky(sky_url: str) -> None:
    response = getjpeg(sky_url, **FOOTPRINT_ONLY)
    assert response.status_code == 200
    assert black_share(response) < 0.5
    assert getjpeg(sky_url, **FOOTPRINT_ONLY).content == response.content


# the SQL search


def test_csv_is_table1_header_rows(sky_url: str) -> None:
    lines = search(sky_url, "SELECT TOP 2 objID, ra FROM Galaxy ORDER BY objID").text.splitlines()
    assert lines[:2] == ["#Table1", "objID,ra"]
    assert len(lines) == 4
    assert all(int(line.split(",")[0]) > 2**53 for line in lines[2:])


def test_an_empty_result_is_two_lines(sky_url: str) -> None:
    assert search(sky_url, "SELECT objID FROM Galaxy WHERE ra < 0").text == "#Table1\nobjID\n"


def test_json_names_its_table(sky_url: str) -> None:
    response = search(sky_url, "SELECT COUNT(*) AS n FROM Galaxy", "json").json()
    assert response == [{"TableName": "Table1", "Rows": [{"n": 600}]}]


def test_whole_numbers_are_printed_without_a_point(sky_url: str) -> None:
    text = search(sky_url, "SELECT MIN(oh_p50) AS missing, MIN(velDispErr) AS failed FROM galSpecExtra, SpecObj").text
    assert text.splitlines()[2] == "-9999,-3"


def test_wrong_sql_is_500_with_json(sky_url: str) -> None:
    response = search(sky_url, "SELECT brightness FROM Galaxy")
    assert response.status_code == 500
    assert response.json()["ErrorCode"] == 500
    assert "no such column: brightness" in response.json()["ErrorMessage"]


@pytest.mark.parametrize("command", ["DROP TABLE Galaxy", ""])
def test_a_refusal_is_200_with_the_column_error_message(sky_url: str, command: str) -> None:
    response = search(sky_url, command)
    assert response.status_code == 200
    assert response.text.splitlines()[:2] == ["#Table1", "error_message"]
    assert "SELECT" in response.text


def test_a_format_that_the_emulator_lacks_is_400(sky_url: str) -> None:
    assert re.search(r"(?=.*\bcsv\b)(?=.*\bjson\b)", search(sky_url, "SELECT 1", "votable").json()["ErrorMessage"])


def test_astroquery_reads_the_papers_query(sky_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sdss_conf, "skyserver_baseurl", sky_url)
    columns = ", ".join(QUERY_COLUMNS.values())
    command = f"SELECT TOP 500 {columns} FROM {QUERY_TABLES} WHERE {SELECTIONS['wu_boada_2019'].sql} ORDER BY G.objID"
    table = SDSS.query_sql(command, data_release=14, cache=False)
    assert isinstance(table, Table)
    assert len(table) == 500
    assert table.colnames == list(QUERY_COLUMNS)
    assert table["objID"].dtype.kind == "u"  # astroquery makes ids unsigned, and leaves them whole
    expected = SimulatedSky(seed=3, n_galaxies=600, n_new=20).catalog().set_index("specObjID")
    got = table.to_pandas().set_index("specObjID")
    for name in ("objID", "ra", "z", "modelMag_g", "oh_p50"):
        wanted = expected.loc[got.index, name]
        np.testing.assert_array_equal(got[name].astype(wanted.dtype), wanted)


def test_more_queries_than_allowed_are_refused(start_emulator, tmp_path: Path) -> None:
    with start_emulator(folder_section(tmp_path, n=5), queries_per_minute=2) as (url, _):
        texts = [search(url, "SELECT COUNT(*) AS n FROM Galaxy").text for _ in range(3)]
    assert texts[:2] == ["#Table1\nn\n5\n"] * 2
    assert re.search(r"error_message\n.*\b2\b", texts[2])


# faults


def test_faults_follow_the_plan_and_are_logged(start_emulator, tmp_path: Path) -> None:
    shares = dict.fromkeys(("too_many_requests", "server_error", "outage_page", "truncated", "out_of_footprint"), 0.18)
    section = folder_section(tmp_path, n=60, seed=5, faults=shares)
    plan = FaultPlan(seed=5, section=FaultSection(**shares))
    catalog = pd.read_csv(tmp_path / "catalog.csv")
    with start_emulator(section) as (url, _):
        with ThreadPoolExecutor(4) as pool:
            for attempt in (1, 2, 3):
                responses = list(pool.map(lambda row: getjpeg(url, ra=row.ra, dec=row.dec), catalog.itertuples()))
                for object_id, response in zip(catalog["objID"], responses, strict=True):
                    _check_response(response, plan.object_fault(object_id).at(attempt))
        log = requests.get(f"{url}/emulator/log", timeout=10).json()
    planned = [plan.object_fault(object_id).at(attempt) for object_id in catalog["objID"] for attempt in (1, 2, 3)]
    assert log["requests"] == 180
    assert log["objects"] == 60
    assert log["faults"] == {str(fault): n for fault, n in Counter(planned).items() if fault}
    assert {event["object_id"] for event in log["spoiled"]} <= {str(object_id) for object_id in catalog["objID"]}


def _check_response(response: requests.Response, fault: Fault | None) -> None:
    whole = response.content[:2] == b"\xff\xd8" and response.content[-2:] == b"\xff\xd9"
    if fault is None:
        assert response.status_code == 200
        assert whole
        assert black_share(response) < 0.5
    elif fault is Fault.TOO_MANY_REQUESTS:
        assert response.status_code == 429
        wait_s = retry_after_s(response.headers["Retry-After"])
        assert wait_s is not None
        assert wait_s <= 2
    elif fault is Fault.SERVER_ERROR:
        assert response.status_code == 500
        assert whole
    elif fault is Fault.OUTAGE_PAGE:
        assert response.status_code == 503
        assert response.headers["Content-Type"].startswith("text/html")
        assert "<html>" in response.text
    elif fault is Fault.TRUNCATED:
        assert response.status_code == 200
        assert response.content[:2] == b"\xff\xd8"
        assert not whole
    else:
        assert response.status_code == 404
        assert black_share(response) > 0.85


# folders


def test_a_folder_is_served_byte_for_byte(start_emulator, tmp_path: Path) -> None:
    with start_emulator(folder_section(tmp_path, n=2)) as (url, process):
        for row in pd.read_csv(tmp_path / "catalog.csv").itertuples():
            for scale in (0.1, 0.396):
                response = getjpeg(url, ra=row.ra, dec=row.dec, scale=scale)
                assert response.content == (tmp_path / f"{row.objID}.jpg").read_bytes()
        assert getjpeg(url, ra=100, dec=0).status_code == 404
        text = search(
            url, f"SELECT G.objID, G.ra, E.oh_p50 FROM {QUERY_TABLES} WHERE E.oh_p50 <> -9999 ORDER BY G.objID"
        ).text
        process.terminate()
        assert process.wait(10) == 0
    assert text == "#Table1\nobjID,ra,oh_p50\n1237648702973411443,10,8.5\n1237648702973411444,10.25,8.6\n"


def test_the_real_demo_cutouts_are_served(start_emulator, shared_data: Path) -> None:
    demo = shared_data / "sdss_demo"
    section = EmulatorSection(catalog=demo / "catalog.csv", cutouts=demo / "cutouts")
    catalog = pd.read_csv(demo / "catalog.csv")
    with start_emulator(section) as (url, _):
        ((count,),) = [
            row.values() for row in search(url, "SELECT COUNT(*) AS n FROM Galaxy", "json").json()[0]["Rows"]
        ]
        assert count == len(catalog) == 400
        for row in catalog.head(40).itertuples():
            assert getjpeg(url, ra=row.ra, dec=row.dec).content == (demo / f"cutouts/{row.objID}.jpg").read_bytes()


# start and end of the server


def test_new_galaxies_are_listed_for_scoring(sky_url: str, new_catalog: Path) -> None:
    assert sky_url.startswith("http://127.0.0.1:")
    expected = SimulatedSky(seed=3, n_galaxies=600, n_new=20).new_catalog()
    pd.testing.assert_frame_equal(pd.read_csv(new_catalog), expected)


def test_a_taken_port_is_named() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ContractError, match=rf"(?=.*\b{port}\b)(?=.*127\.0\.0\.1)"):
            emulate(EmulatorSection(n_galaxies=1), port=port)


def workers_of(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def alive(pid: int) -> bool:
    status = Path(f"/proc/{pid}/stat")
    try:
        return status.read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="needs Linux's /proc to see child processes")
@pytest.mark.parametrize(("end", "code"), [(signal.SIGINT, 0), (signal.SIGKILL, -9)])
def test_no_drawing_process_outlives_the_server(start_emulator, tmp_path: Path, end: signal.Signals, code: int) -> None:
    section = EmulatorSection(seed=3, n_galaxies=1, n_new=1, new_catalog=tmp_path / "new.csv")
    with start_emulator(section) as (url, process):
        place = pd.read_csv(tmp_path / "new.csv").iloc[0]
        assert getjpeg(url, ra=place["ra"], dec=place["dec"]).status_code == 200
        workers = workers_of(process.pid)
        assert len(workers) >= 1
        os.kill(process.pid, end)
        assert process.wait(30) == code
        deadline = time.monotonic() + 10
        while any(alive(worker) for worker in workers) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not any(alive(worker) for worker in workers)
