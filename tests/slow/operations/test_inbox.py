"""The watched folder's bookkeeping: a file is in one place, whatever happens, and comes to no harm."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prefect.states import Cancelled, Completed, Crashed, Failed

from flows.service.inbox import (
    DONE,
    FAILED,
    MOST_TRIES,
    UNDER_WAY,
    Note,
    arrived_files,
    files_in,
    inbox_folder,
    may_pass,
    put_away,
    read_note,
    take_in,
)


@pytest.fixture
def watched(tmp_path: Path) -> Path:
    for name in (UNDER_WAY, DONE, FAILED):
        (tmp_path / name).mkdir()
    return tmp_path


def drop(watched: Path, name: str = "tonight.csv", text: str = "object_id,ra,dec\n1,2,3\n") -> Path:
    (watched / name).write_text(text)
    return watched / name


def test_a_file_that_grows_or_is_not_finished_is_left_until_it_is(watched: Path) -> None:
    growing, finished = drop(watched, "growing.csv"), drop(watched)
    for name in (".hidden.csv", "copy.csv.part", "copy.csv.tmp"):
        drop(watched, name)
    stop = threading.Event()

    def grow() -> None:
        while not stop.wait(0.02):
            with growing.open("a") as file:
                file.write("4,5,6\n")

    writer = threading.Thread(target=grow)
    writer.start()
    try:
        assert arrived_files(watched, settle_s=0.5) == [finished]
    finally:
        stop.set()
        writer.join()
    assert arrived_files(watched, settle_s=0.1) == [growing, finished]


def test_a_catalog_is_named_by_its_content_and_keeps_one_key_whatever_it_is_called(watched: Path) -> None:
    first = take_in(watched, drop(watched))
    assert first.parent.name == UNDER_WAY
    assert first.name.startswith("tonight-")
    assert not (watched / "tonight.csv").exists()
    one = read_note(first)
    other = read_note(take_in(watched, drop(watched, "again.csv")))
    different = read_note(take_in(watched, drop(watched, "tonight.csv", "object_id,ra,dec\n2,2,3\n")))
    assert one is not None
    assert other is not None
    assert different is not None
    assert one.key == other.key == one.sha256
    assert different.key != one.key


def test_what_failed_has_its_reason_beside_it_and_gets_another_try_when_it_comes_again(watched: Path) -> None:
    path = take_in(watched, drop(watched))
    note = read_note(path)
    assert note is not None
    told = Note(dropped_as=note.dropped_as, sha256=note.sha256, flow_run="f00d", told="Failed: no object id")
    assert put_away(watched, path, told, FAILED) == FAILED
    assert not list(files_in(watched / UNDER_WAY))
    (failed,) = files_in(watched / FAILED)
    reason = failed.with_name(f"{failed.name}.error.txt").read_text()
    assert "tonight.csv" in reason
    assert "no object id" in reason
    assert "f00d" in reason
    again = read_note(take_in(watched, drop(watched)))
    assert again is not None
    assert (again.attempt, again.key) == (2, f"{note.sha256}-2")


def test_a_file_that_was_written_to_while_it_was_scored_goes_back_as_a_new_one(watched: Path) -> None:
    path = take_in(watched, drop(watched))
    note = read_note(path)
    assert note is not None
    with path.open("a") as file:
        file.write("4,5,6\n")
    put_away(watched, path, note, DONE)
    assert not list((watched / DONE).iterdir())
    assert not list((watched / UNDER_WAY).iterdir())
    assert (watched / "tonight.csv").read_text().endswith("4,5,6\n")


@given(texts=st.lists(st.text(alphabet="012,\n", min_size=1, max_size=8), min_size=1, max_size=5))
def test_no_content_is_lost_between_the_inbox_and_where_it_ends(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str]
) -> None:
    watched = tmp_path_factory.mktemp("inbox")
    for name in (UNDER_WAY, DONE, FAILED):
        (watched / name).mkdir()
    for number, text in enumerate(texts):
        path = take_in(watched, drop(watched, "same.csv", text))
        note = read_note(path)
        assert note is not None
        put_away(watched, path, note, (DONE, FAILED)[number % 2])
    kept = {path.read_text() for folder in (DONE, FAILED) for path in files_in(watched / folder)}
    assert kept == set(texts)
    assert not list(files_in(watched / UNDER_WAY))


@pytest.mark.parametrize(
    ("state", "passes"),
    [
        (Crashed(message="its process is gone"), True),
        (Failed(name="TimedOut", message="Flow run exceeded timeout"), True),
        (Failed(message="Flow run encountered an exception: ServiceDownError: no answer"), True),
        (Failed(message="Flow run encountered an exception: CatalogError: no object id"), False),
        (Failed(message="Flow run encountered an exception: WeightsError: no model"), False),
        (Cancelled(message="by hand"), False),
        (Completed(), False),
    ],
)
def test_only_what_may_pass_is_tried_again(state: object, passes: bool) -> None:
    assert may_pass(state) == passes
    assert MOST_TRIES > 1


def test_the_inbox_is_in_the_recipe_s_output_folder_unless_another_is_named() -> None:
    assert inbox_folder("demo") == Path("demo/inbox")
    assert inbox_folder("sdss", ["output.folder='elsewhere'"]) == Path("elsewhere/inbox")
    assert inbox_folder("demo", folder="/data/new") == Path("/data/new")
