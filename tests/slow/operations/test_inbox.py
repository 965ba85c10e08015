"""State of the inbox: a file is in exactly one folder at any time, and its content never changes."""

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
    MOST_ATTEMPTS,
    UNDER_WAY,
    InboxEntry,
    accept,
    arrived_files,
    files_in,
    finish,
    inbox_folder,
    is_temporary,
    read_entry,
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


def test_a_catalog_is_named_by_its_content_and_has_the_same_key_under_any_name(watched: Path) -> None:
    first = accept(watched, drop(watched))
    assert first.parent.name == UNDER_WAY
    assert first.name.startswith("tonight-")
    assert not (watched / "tonight.csv").exists()
    original = read_entry(first)
    copied = read_entry(accept(watched, drop(watched, "again.csv")))
    different = read_entry(accept(watched, drop(watched, "tonight.csv", "object_id,ra,dec\n2,2,3\n")))
    assert original is not None
    assert copied is not None
    assert different is not None
    assert original.key == copied.key == original.sha256
    assert different.key != original.key


def test_a_failed_catalog_has_its_reason_beside_it_and_gets_a_new_attempt_when_dropped_again(watched: Path) -> None:
    path = accept(watched, drop(watched))
    entry = read_entry(path)
    assert entry is not None
    failed_entry = InboxEntry(
        dropped_as=entry.dropped_as, sha256=entry.sha256, flow_run="f00d", message="Failed: no object id"
    )
    assert finish(watched, path, failed_entry, FAILED) == FAILED
    assert not list(files_in(watched / UNDER_WAY))
    (failed,) = files_in(watched / FAILED)
    reason = failed.with_name(f"{failed.name}.error.txt").read_text()
    assert "tonight.csv" in reason
    assert "no object id" in reason
    assert "f00d" in reason
    second = read_entry(accept(watched, drop(watched)))
    assert second is not None
    assert (second.attempt, second.key) == (2, f"{entry.sha256}-2")


def test_a_file_that_changed_while_it_was_scored_is_handled_as_a_new_one(watched: Path) -> None:
    path = accept(watched, drop(watched))
    entry = read_entry(path)
    assert entry is not None
    with path.open("a") as file:
        file.write("4,5,6\n")
    finish(watched, path, entry, DONE)
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
        path = accept(watched, drop(watched, "same.csv", text))
        entry = read_entry(path)
        assert entry is not None
        finish(watched, path, entry, (DONE, FAILED)[number % 2])
    contents = {path.read_text() for folder in (DONE, FAILED) for path in files_in(watched / folder)}
    assert contents == set(texts)
    assert not list(files_in(watched / UNDER_WAY))


@pytest.mark.parametrize(
    ("state", "expected"),
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
def test_only_temporary_failures_are_retried(state: object, expected: bool) -> None:
    assert is_temporary(state) == expected
    assert MOST_ATTEMPTS > 1


def test_the_inbox_is_in_the_recipe_s_output_folder_unless_another_is_named() -> None:
    assert inbox_folder("demo") == Path("demo/inbox")
    assert inbox_folder("sdss", ["output.folder='elsewhere'"]) == Path("elsewhere/inbox")
    assert inbox_folder("demo", folder="/data/new") == Path("/data/new")
