"""Service as users see it: commands, schedules, the inbox, overlapping runs, stopping."""

from __future__ import annotations

import http.server
import json
import logging
import os
import re
import socket
import subprocess
import sys
import threading
from pathlib import Path
from queue import Queue

import pandas as pd
import pytest

from flows.service.directory import ServiceDirectory, ServiceRecord
from flows.service.processes import service_processes
from flows.service.services import SERVER, running_service, server_answers
from tests.facts import facts_near
from tests.slow.operations.conftest import Service, eventually
from tests.support.browser import keep_screenshot, open_browser, open_page

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("operations"), pytest.mark.timeout(1800)]


def port_in(words: str) -> int:
    found = re.search(r"\bport (\d+)", words)
    assert found is not None, words
    return int(found[1])


@pytest.fixture(scope="module")
def trained(ingested: Service) -> Service:
    ingested.complete("train")
    return ingested


def test_the_documented_command_starts_an_ingest_that_completes(ingested: Service) -> None:
    ingested.assert_sound()
    assert ingested.stored() > 350


def test_the_ui_shows_the_run_as_completed_with_its_artifacts(ingested: Service) -> None:
    ingest = ingested.ask("/deployments/name/ingest/ingest")["id"]
    (run,) = [run["id"] for run in ingested.runs("COMPLETED") if run["deployment_id"] == ingest]
    artifacts = ingested.ask("/artifacts/filter", {"artifacts": {"flow_run_id": {"any_": [run]}}})
    with open_browser() as browser, open_page(browser, width=1280) as (page, _):
        page.goto(f"{ingested.api.removesuffix('/api')}/runs/flow-run/{run}")
        page.get_by_text("Completed").first.wait_for()
        keep_screenshot(page, "ui-run")
        page.get_by_text("Artifacts", exact=True).last.click()
        page.get_by_text(artifacts[0]["key"]).last.wait_for()
        keep_screenshot(page, "ui-run-artifacts")


def test_the_log_of_a_run_has_the_lines_of_our_packages(ingested: Service) -> None:
    ingest = ingested.ask("/deployments/name/ingest/ingest")["id"]
    (run,) = [run["id"] for run in ingested.runs("COMPLETED") if run["deployment_id"] == ingest]
    lines = ingested.ask("/logs/filter", {"logs": {"flow_run_id": {"any_": [run]}}})
    (counts,) = [line for line in lines if line["name"] == "flows.ingest" and "registered =" in line["message"]]
    assert counts["level"] == logging.INFO


@pytest.mark.long
def test_prefect_commands_take_parameters_and_report_unknown_names(ingested: Service) -> None:
    unknown = ingested.prefect("deployment run tomorrow")
    assert unknown.returncode == 1
    assert "Deployment 'tomorrow/tomorrow' not found" in unknown.stdout + unknown.stderr
    done = ingested.prefect("deployment run report -p recipe=nothing --watch --watch-timeout 200")
    assert "'recipe': 'nothing'" in done.stdout
    assert "finished in state 'Failed'" in done.stdout + done.stderr
    assert ingested.prefect("deployment inspect ingest/ingest").returncode == 0


def test_schedules_fire_and_train_has_none_active(service: Service) -> None:
    def fired() -> list[dict]:
        return [run for run in service.runs("COMPLETED") if run["auto_scheduled"]]

    run = eventually(fired, what="a run started by a schedule")[0]
    assert run["deployment_id"] == service.ask("/deployments/name/inbox/inbox")["id"]
    nightly = service.ask("/deployments/name/ingest/ingest")
    assert [(item["schedule"]["cron"], item["schedule"]["timezone"]) for item in nightly["schedules"]] == [
        ("0 1 * * *", "UTC")
    ]
    assert [item["active"] for item in service.ask("/deployments/name/train/train")["schedules"]] == [False]


@pytest.mark.long
def test_a_catalog_in_the_inbox_is_scored_and_a_bad_one_gets_its_reason_beside_it(trained: Service) -> None:
    folder = trained.folder / "demo"
    tonight = pd.read_csv(folder / "new_catalog.csv").iloc[:9]
    inbox = folder / "inbox"
    (inbox / "bad.csv").write_text("a,b\n1,2\n")
    tonight.to_csv(inbox / "tonight.csv", index=False)
    (scored,) = eventually(lambda: list((inbox / "done").glob("tonight-*.csv")), what="a scored catalog")
    predictions = pd.read_parquet(folder / "predictions" / f"{scored.stem}.parquet")
    assert predictions["object_id"].tolist() == tonight["object_id"].tolist()
    assert set(predictions["status"]) <= {"scored", "out_of_footprint"}
    (reason,) = eventually(lambda: list((inbox / "failed").glob("bad-*.csv.error.txt")), what="a refused catalog")
    assert "bad.csv" in reason.read_text()
    assert "object id" in reason.read_text()
    assert reason.with_name(reason.name.removesuffix(".error.txt")).read_text() == "a,b\n1,2\n"
    assert not [path for path in inbox.iterdir() if path.is_file()]
    assert not list((inbox / "under-way").iterdir())
    trained.assert_sound()


@pytest.mark.long
def test_an_overlapping_run_waits_or_is_left_out_as_set(trained: Service) -> None:
    slow = ["survey.requests_per_second=40", "emulator.n_galaxies=450"]
    first = trained.start("ingest", overrides=[*trained.overrides, *slow])
    trained.await_state(first, "Running")
    second = trained.start("ingest", overrides=[*trained.overrides, *slow])
    trained.await_state(second, "AwaitingConcurrencySlot")
    training = trained.start("train", overrides=[*trained.overrides, "train.seed=8", "train.epochs=12"])
    trained.await_state(training, "Running")
    left_out = trained.start("train")
    assert trained.await_state(left_out)["type"] == "CANCELLED"
    assert trained.await_state(first)["type"] == "COMPLETED"
    assert trained.await_state(training)["type"] == "COMPLETED"
    assert trained.await_state(second)["type"] == "COMPLETED"
    assert trained.ask(f"/flow_runs/{second}")["start_time"] >= trained.ask(f"/flow_runs/{first}")["end_time"]
    trained.assert_sound()


@pytest.mark.long
def test_a_run_that_hangs_ends_as_timed_out(service: Service) -> None:
    found = service.ask("/deployments/name/ingest/ingest")
    environment = {**found["job_variables"]["env"], "GALSTORE_TIME_LIMIT_S": "15"}
    # a socket that accepts connections and never answers
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        hanging = {
            "overrides": [
                *service.overrides,
                f"store.path='{service.folder / 'hanging' / 'cube'}'",
                f"survey.base_url='{address}'",
                "survey.read_timeout_s=600",
            ]
        }
        run = service.ask(
            f"/deployments/{found['id']}/create_flow_run",
            {"parameters": hanging, "job_variables": {"env": environment}},
        )["id"]
        state = service.await_state(run)
    assert (state["type"], state["name"]) == ("FAILED", "TimedOut")


@pytest.mark.long
def test_a_failure_is_posted_to_a_webhook(service: Service) -> None:
    messages: Queue[dict] = Queue()

    class Listener(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            messages.put(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Listener) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_address[1]}/"
        done = service.galstore("notify", address)
        assert done.returncode == 0, done.stdout + done.stderr
        run = service.start("report", recipe="nothing")
        service.await_state(run, "FAILED")
        message = messages.get(timeout=120)
        server.shutdown()
    assert message["flow"] == "report"
    assert message["state"] == "Failed"
    assert facts_near(message["message"], "'nothing'", "recipe")
    assert message["url"].endswith(run)


@pytest.mark.long
def test_a_second_up_finds_everything_running_and_restarts_dead_services(service: Service) -> None:
    processes = {name: service.record(name).pid for name in ("server", "worker", "supervisor")}
    second = service.up()
    assert processes.keys() <= {line.partition(":")[0] for line in second.stdout.splitlines()}
    assert {name: service.record(name).pid for name in processes} == processes
    service.record("supervisor").kill()
    service.directory.record_file("worker").unlink()  # as on a full disk
    third = service.up()
    assert service.record("supervisor").pid != processes["supervisor"]
    assert {"supervisor", "worker"} <= {line.partition(":")[0] for line in third.stdout.splitlines()}
    assert service.record("worker").pid == processes["worker"]
    assert service.galstore("status").returncode == 0
    assert f"export PREFECT_API_URL={service.api}" in service.galstore("status", "--env").stdout


def test_a_port_in_use_is_reported(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        done = Service(folder=tmp_path).galstore("up", "--port", str(port))
    assert done.returncode == 1
    assert facts_near(done.stderr, f"port {port}", "127.0.0.1")


@pytest.mark.long
def test_a_port_taken_before_the_server_listens_is_replaced_by_another(tmp_path: Path, service: Service) -> None:
    late = Service(folder=tmp_path)
    command = [sys.executable, "-m", "flows.cli", "up"]
    with subprocess.Popen(
        command, cwd=tmp_path, env=late.environment_of_a_shell, stdout=subprocess.PIPE, text=True
    ) as up:
        port = port_in(up.stdout.readline())
        with socket.create_server(("127.0.0.1", port)):
            output = up.stdout.read()
        assert up.wait() == 0, output
    try:
        assert port_in(output.splitlines()[0]) != port
        assert json.loads(late.directory.record_file("server").read_text())["port"] != port
        assert not server_answers(late.directory, int(service.api.split(":")[2].split("/")[0])), (
            "the port belongs to another service"
        )
    finally:
        assert late.galstore("down", "--wait", "0").returncode == 0
        assert not list(service_processes(late.directory))


def test_a_reused_process_id_is_not_taken_for_the_service(tmp_path: Path) -> None:
    directory = ServiceDirectory(folder=tmp_path)
    ServiceRecord(pid=os.getpid(), started_at=0.0, port=4200).write(directory.record_file("server"))
    assert running_service(directory, SERVER) is None
    directory.record_file("server").write_text('{"pid": 1')
    assert ServiceRecord.read(directory.record_file("server")) is None
    done = Service(folder=tmp_path).galstore("down", "--home", str(tmp_path))
    assert done.returncode == 0
    assert "running" in done.stdout
