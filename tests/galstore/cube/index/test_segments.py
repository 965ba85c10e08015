from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import numpy as np
import pandas as pd
import pytest
import zarr
from astropy.coordinates import SkyCoord
from hypothesis import example, given
from hypothesis import strategies as st

from galstore.cube import commits
from galstore.cube.commits import commit
from galstore.cube.index import lookup
from galstore.cube.index.lookup import entries_in_cone, index_entries
from galstore.cube.index.segments import ATTRIBUTE, SegmentIndex
from galstore.cube.layout import ensure_cube
from galstore.cube.reader import open_cube
from galstore.ingest import catalog_update
from galstore.ingest.catalog_update import CatalogUpdate, register_page
from galstore.integrity.rebuild import rebuild_index
from galstore.integrity.verify import verify_cube
from galstore.survey.row_checks import prepare_catalog
from schemas.cube import INDEX_CHUNK_ROWS, INDEX_COLUMNS
from schemas.errors import CatalogError, PositionError
from tests.galstore.conftest import SCALE, add_objects

IDS = st.integers(0, 2**63 - 1)


def empty_index(name: str = "id") -> zarr.Group:
    group = zarr.create_group({}, attributes={ATTRIBUTE: []})
    for column in INDEX_COLUMNS[name]:
        group.create_array(
            column.name, shape=(0,), chunks=(INDEX_CHUNK_ROWS,), dtype=column.dtype, fill_value=column.fill
        )
    return group


def grow(group: zarr.Group, entries: dict[str, Any]) -> SegmentIndex:
    for name, values in entries.items():
        array: Any = group[name]
        array.resize((array.shape[0] + len(values),))
    index = SegmentIndex(group)
    index.append({name: np.asarray(values) for name, values in entries.items()})
    return SegmentIndex(group)


@given(st.lists(st.lists(IDS, max_size=40), max_size=8), st.sampled_from([2, 5, 4096]))
def test_ids_are_found_at_their_rows_in_whatever_pages_they_came(pages: list[list[int]], chunk_rows: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        # few objects, many chunks
        patch.setattr("galstore.cube.index.segments.INDEX_CHUNK_ROWS", chunk_rows)
        group, expected = empty_index(), dict[int, int]()
        for page in pages:
            new = [key for key in dict.fromkeys(page) if key not in expected]
            rows = np.arange(len(expected), len(expected) + len(new))
            expected |= dict(zip(new, rows.tolist(), strict=True))
            if new:
                grow(group, {"key": np.array(new, dtype=np.int64), "row": rows})
            asked = np.array([5, *expected, 2**62 + 1, *reversed(expected)], dtype=np.int64)
            assert SegmentIndex(group).rows_of(asked).tolist() == [expected.get(int(key), -1) for key in asked]


@pytest.mark.parametrize("order", ["ascending", "descending", "shuffled", "interleaved"])
@pytest.mark.parametrize("page_rows", [1, 977, 5000])
def test_segments_stay_few_and_ascending_ids_make_one(order: str, page_rows: int, monkeypatch) -> None:
    n = 300 if page_rows == 1 else 60_000
    chunk_rows = 4 if page_rows == 1 else INDEX_CHUNK_ROWS
    monkeypatch.setattr("galstore.cube.index.segments.INDEX_CHUNK_ROWS", chunk_rows)
    ids = {
        "ascending": np.arange(n),
        "descending": np.arange(n)[::-1],
        "shuffled": np.random.default_rng(0).permutation(n),
        "interleaved": np.arange(n).reshape(2, -1).T.ravel(),
    }[order]
    group = empty_index()
    for first in range(0, n, page_rows):
        page = ids[first : first + page_rows]
        index = grow(group, {"key": page, "row": first + np.arange(page.size)})
        sizes = [segment.size for segment in index.segments]
        assert sum(sizes) == first + page.size
        # sizes at least halve up to the last but one, which fills a chunk
        assert len(sizes) <= 2 + max(0, np.log2(sum(sizes) / chunk_rows))
        assert order != "ascending" or len(sizes) == 1
    assert index.rows_of(np.arange(n)).tolist() == np.argsort(ids).tolist()


def test_a_lookup_reads_the_chunks_that_may_hold_its_keys_alone(monkeypatch) -> None:
    group = empty_index()
    n = 20 * INDEX_CHUNK_ROWS
    index = grow(group, {"key": 10 * np.arange(n), "row": np.arange(n)})
    read: list[tuple[str, int]] = []
    from galstore.cube import columns

    inner = columns.read_chunks
    monkeypatch.setattr(
        columns, "read_chunks", lambda wanted: read.extend((a.path, n) for a, n in wanted) or inner(wanted)
    )
    assert index.rows_of(np.array([-1, 10 * n])).tolist() == [-1, -1]
    assert not read
    assert index.rows_of(np.array([70, 75, 10 * (n - 1)])).tolist() == [7, -1, n - 1]
    assert read == [(name, chunk) for name in ("key", "row") for chunk in (0, 19)]


RA = st.one_of(st.floats(0, 360), st.sampled_from([0.0, 1e-9, 45.0, 180.0, 360 - 1e-9, 360.0]))
DEC = st.one_of(st.floats(-90, 90), st.sampled_from([-90.0, -90 + 1e-9, -41.8103, 0.0, 41.8103, 90 - 1e-9, 90.0]))
RADIUS = st.one_of(
    st.floats(0, 180), st.floats(0, 2), st.sampled_from([0.0, 1e-10, 1e-6, 60.0, 90.0, 90.1, 150.0, 179.9, 180.0])
)


def sky_of(places: list[tuple[float, float]], n_pages: int = 3) -> SegmentIndex:
    table = pd.DataFrame(places, columns=["ra", "dec"]).assign(object_id=range(len(places)))
    group, first = empty_index("sky"), 0
    for page in np.array_split(np.arange(len(places)), n_pages):
        if page.size:
            index = grow(group, index_entries(table.iloc[page], first)["sky"])
            first += page.size
    return index


def require_brute_force(index: SegmentIndex, places: list[tuple[float, float]], cone: tuple[float, ...]) -> int:
    """Count the objects in the cone with astropy's SkyCoord."""
    ra, dec = np.array(places).T
    separation = SkyCoord(cone[0], cone[1], unit="deg").separation(SkyCoord(ra, dec, unit="deg")).deg
    entries = entries_in_cone(index, *cone)
    rows, found = entries["row"], entries["separation"]
    assert np.array_equal(entries["object_id"], rows)
    # one ulp of a boundary may fall on either side, since SkyCoord keeps radians
    sure, possible = separation <= cone[2] - 1e-12, separation <= cone[2] + 1e-12
    assert set(np.flatnonzero(sure)) <= set(rows.tolist()) <= set(np.flatnonzero(possible))
    assert len(set(rows.tolist())) == rows.size
    assert np.all(np.diff(found) >= 0)
    assert np.allclose(found, separation[rows], rtol=0, atol=1e-11)
    assert np.all(found <= cone[2])
    return int(rows.size)


@given(st.lists(st.tuples(RA, DEC), min_size=1, max_size=40), RA, DEC, RADIUS)
@example([(360.0, 0.0), (0.0, 0.0), (0.0, 90.0), (200.0, 90.0)], 0.0, 0.0, 0.0)
def test_a_cone_has_what_brute_force_finds(places: list, ra: float, dec: float, radius: float) -> None:
    index = sky_of(places)
    require_brute_force(index, places, (ra, dec, radius))
    # the cone ends exactly at another object
    (ra, dec), other = places[0], places[-1]
    both = SkyCoord(ra, dec, unit="deg").separation(SkyCoord(*other, unit="deg")).deg
    assert require_brute_force(index, places, (ra, dec, min(180.0, both + 1e-11))) >= 1


@pytest.mark.parametrize("radius", [0.001, 0.3, 5.0, 40.0, 89.9, 90.0, 120.0, 150.0, 179.0, 180.0])
def test_cones_among_many_objects_miss_none(radius: float) -> None:
    rng = np.random.default_rng(1)
    n = 30_000
    # a third of them crowd around ra = 0, a third around the poles
    ra, dec = rng.uniform(0, 360, n), np.degrees(np.arcsin(rng.uniform(-1, 1, n)))
    ra[: n // 3] = rng.normal(0, 0.5, n // 3) % 360
    dec[: n // 3] = rng.normal(0, 0.5, n // 3)
    dec[-n // 3 :] = rng.choice([-1, 1], n // 3) * (90 - np.abs(rng.normal(0, 0.5, n // 3)))
    places = list(zip(ra.tolist(), dec.tolist(), strict=True))
    index = sky_of(places)
    for place in ((0.0, 0.0), (360.0, 0.1), (10.0, 90.0), (10.0, -90.0), (359.99, -0.05), (200.0, 30.0)):
        require_brute_force(index, places, (*place, radius))


@pytest.mark.parametrize(
    ("cone", "facts"),
    [
        ((-0.1, 0, 1), r"(?=.*ra_deg)(?=.*\b360\b)(?=.*-0\.1\b)"),
        ((float("nan"), 0, 1), r"(?=.*ra_deg)(?=.*\b360\b)(?=.*\bnan\b)"),
        ((0, 90.1, 1), r"(?=.*dec_deg)(?=.*-90\b)(?=.*\b90\.1\b)"),
        ((0, 0, 181), r"(?=.*radius_deg)(?=.*\b180\b)(?=.*\b181\b)"),
    ],
)
def test_a_place_out_of_range_is_an_error(cone: tuple, facts: str) -> None:
    with pytest.raises(PositionError, match=facts):
        entries_in_cone(SegmentIndex(empty_index("sky")), *cone)


def objects(ids: range) -> pd.DataFrame:
    return pd.DataFrame({"object_id": list(ids), "ra": np.linspace(0, 360, len(ids)), "dec": 10.0})


def overtaken_once(monkeypatch: pytest.MonkeyPatch, overtake: Callable[[], None]) -> list[int]:
    """Without the lock, as on S3: another writer commits after the next change was applied and before its commit."""
    monkeypatch.setattr(commits, "write_lock", lambda _: nullcontext())
    inner, n_calls = lookup.index_objects, []

    def index_then_overtake(*given: Any) -> None:
        inner(*given)
        n_calls.append(1)
        if len(n_calls) == 1:
            overtake()

    monkeypatch.setattr(catalog_update, "index_objects", index_then_overtake)
    return n_calls


def test_an_overtaken_registration_indexes_every_object_once(cube_path, monkeypatch) -> None:
    ensure_cube(cube_path, survey="a", scale=SCALE)
    add_objects(cube_path, objects(range(100, 110)), catalog="a")
    page = prepare_catalog(objects(range(105, 125)), origin="b")
    n_calls = overtaken_once(monkeypatch, lambda: add_objects(cube_path, objects(range(90, 108)), catalog="c"))
    done = register_page(cube_path, CatalogUpdate(catalog="b"), page)
    cube = open_cube(cube_path)
    # our change, the other writer's, and ours on top of it
    assert len(n_calls) == 3
    assert (done.n_new, cube.n_objects) == (15, 35)
    ids = cube.read_catalog(["object_id"])["object_id"].to_numpy()
    assert cube.rows_of(ids).tolist() == list(range(35))
    assert sorted(cube.objects_in_cone(0, 10, 180)["row"]) == list(range(35))
    assert verify_cube(cube).problems == ()


def test_a_rebuilt_index_finds_what_a_damaged_one_does_not(cube_path) -> None:
    ensure_cube(cube_path, survey="a", scale=SCALE)
    for first in (50, 10, 30):
        add_objects(cube_path, objects(range(first, first + 10)), catalog="a")

    def damage(session: Any) -> None:
        root = zarr.open_group(session.store, mode="a")
        key: Any = root["index/id/key"]
        key[3] = 7

    commit(cube_path, damage, message="plant", metadata={})
    assert not verify_cube(open_cube(cube_path)).is_sound
    assert rebuild_index(cube_path) == 30
    cube = open_cube(cube_path)
    assert verify_cube(cube).ok
    assert cube.rows_of(np.array([55, 10, 39])).tolist() == [5, 10, 29]
    with pytest.raises(CatalogError, match=r"(?=.*\b1 objects)(?=.*\b7\b)"):
        cube.rows_of(np.array([7]))


def test_an_index_of_no_objects_is_searched_and_rebuilt(cube_path) -> None:
    ensure_cube(cube_path, survey="a", scale=SCALE)
    cube = open_cube(cube_path)
    assert cube.objects_in_cone(0, 0, 180).empty
    assert rebuild_index(cube_path) == 0
    assert verify_cube(open_cube(cube_path)).ok
