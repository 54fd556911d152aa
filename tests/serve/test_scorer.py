"""No request is lost: workers are killed, hang, or get another model while clients wait; queues are full."""

import json
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import httpx
from tests.serve.fake_service import FakeService, request, service, wait_until
from tests.serve.fake_worker import HANGS, KILLS, write_export


def all_at_once(running: FakeService, num: int) -> tuple[ThreadPoolExecutor, list[Future[httpx.Response]]]:
    """Starts requests side by side."""
    pool = ThreadPoolExecutor(num)
    return pool, [pool.submit(running.score, item) for item in range(num)]


def test_a_worker_that_is_killed_loses_no_request(tmp_path: Path) -> None:
    with service(tmp_path, "watch_s=null", "batch.max_requests=4", delay_ms=150) as running:
        first = running.workers()
        pool, answers = all_at_once(running, 16)
        time.sleep(0.2)
        os.kill(first[0], signal.SIGKILL)

        scores = [answer.result().json()["scores"]["click"] for answer in answers]

        assert scores == [[12.0 + item] for item in range(16)]
        running.wait_for("recd_worker_restarts_total", 1)
        assert running.workers() != first
        pool.shutdown()


def test_a_request_that_kills_workers_is_given_up_and_others_are_scored(tmp_path: Path) -> None:
    with service(tmp_path, "watch_s=null", delay_ms=100) as running:
        pool = ThreadPoolExecutor(4)
        answers = [pool.submit(running.score, item) for item in (1, 2, KILLS, 3)]
        statuses = [answer.result().status_code for answer in answers]

        assert statuses == [200, 200, 500, 200]
        assert "workers have died of this request" in answers[2].result().text
        assert "workers died of a request of 1 candidates" in running.log.read_text()
        pool.shutdown()


def test_a_worker_that_hangs_is_replaced(tmp_path: Path) -> None:
    with service(tmp_path, "watch_s=null", "hang_s=0.5", "timeout_s=30") as running:
        pool = ThreadPoolExecutor(1)
        hanging = pool.submit(running.score, HANGS)
        running.wait_for("recd_worker_restarts_total", 2)  # with it alone, and once more

        assert hanging.result().status_code == 500
        assert running.score(5).status_code == 200
        pool.shutdown()


def test_a_worker_that_hangs_is_ended_when_another_model_has_taken_over(tmp_path: Path) -> None:
    with service(tmp_path, "watch_s=null", "hang_s=2") as running, ThreadPoolExecutor(1) as pool:
        (old,) = running.workers()
        hanging = pool.submit(running.score, HANGS)
        time.sleep(0.3)
        write_export(running.model, step=2)
        assert running.post("/v1/reload").json()["model"]["step"] == 2
        wait_until(lambda: not Path(f"/proc/{old}").exists(), "the hanging worker stays")
        assert hanging.result().status_code == 500  # a worker of the new model hangs with it, too


def test_a_worker_that_hangs_while_it_loads_is_replaced(tmp_path: Path) -> None:
    with service(tmp_path, "watch_s=null", "hang_s=0.5", "spare=false") as running:
        os.kill(running.workers()[0], signal.SIGKILL)
        wait_until(lambda: bool(running.workers()), "no worker in its place")
        (loading,) = running.workers()
        os.kill(loading, signal.SIGSTOP)
        wait_until(lambda: not Path(f"/proc/{loading}").exists(), "the worker that hangs stays")
        assert running.score(5).status_code == 200


def test_a_full_queue_and_a_deadline(tmp_path: Path) -> None:
    limits = ("limits.queue=2", "batch.max_requests=1", "watch_s=null")
    with service(tmp_path, *limits, delay_ms=700) as running:
        pool, answers = all_at_once(running, 8)
        late = running.score(5, headers={"X-Timeout-Ms": "100"})

        found = [answer.result() for answer in answers]
        refused = [answer for answer in [*found, late] if answer.status_code == 429]
        assert refused
        assert int(refused[0].headers["retry-after"]) >= 1
        assert refused[0].json()["error"]["code"] == "queue_full"
        assert [answer.status_code for answer in found].count(200) >= 2
        alone = running.score(5, headers={"X-Timeout-Ms": "100"})
        assert (alone.status_code, alone.json()["error"]["code"]) == (503, "deadline")
        pool.shutdown()


def test_requests_that_nobody_waits_for_are_not_scored(tmp_path: Path) -> None:
    with service(tmp_path, "batch.max_requests=1", "watch_s=null", delay_ms=900) as running:
        pool, busy = all_at_once(running, 2)
        time.sleep(0.2)
        for _ in range(5):
            running.hang_up(json.dumps(request(1)).encode())
        assert [answer.result().status_code for answer in busy] == [200, 200]
        wait_until(lambda: running.metric("recd_queue_requests") == 0, "hung up requests wait")
        assert running.score(5).status_code == 200

        assert running.metric("recd_candidates_total") == 3
        pool.shutdown()


def keep_asking(running: FakeService, until: threading.Event) -> list[httpx.Response]:
    """Asks one request after the other."""
    answers = []
    with running.client() as client:
        while not until.is_set():
            body = {"user": {"region": 1, "history": [7, 8]}, "candidates": {"item": [5], "price": [1.0]}}
            answers.append(client.post("/v1/score", json=body))
    return answers


def while_asking(running: FakeService, change: Callable[[], None]) -> list[int]:
    """The steps of the models that answer while something changes; every request is answered."""
    until = threading.Event()
    with ThreadPoolExecutor(4) as pool:
        asking = [pool.submit(keep_asking, running, until) for _ in range(4)]
        try:
            time.sleep(0.3)
            change()
            time.sleep(0.3)
        finally:
            until.set()
        answers = [answer for client in asking for answer in client.result()]
    assert {answer.status_code for answer in answers} == {200}
    for answer in answers:
        assert answer.json()["scores"]["click"] == [answer.json()["model"]["step"] + 16.0]
    return sorted({answer.json()["model"]["step"] for answer in answers})


def test_another_export_takes_over_without_a_lost_request(tmp_path: Path) -> None:
    with service(tmp_path, "watch_s=null", "workers=2", delay_ms=20) as running:
        new = write_export(tmp_path / "new", step=2, delay_ms=20)
        old = running.workers()

        def change() -> None:
            answer = running.post("/v1/reload", {"model": str(new)})
            assert (answer.status_code, answer.json()["model"]["step"]) == (200, 2)

        assert while_asking(running, change) == [1, 2]
        assert running.get("/v1/model").json()["step"] == 2
        wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in old), "old workers stay")
        outside = running.post("/v1/reload", {"model": "/"})
        assert (outside.status_code, "lies outside" in outside.text) == (422, True)


def test_a_broken_export_leaves_the_old_one(tmp_path: Path) -> None:
    with service(tmp_path, "watch_s=null") as running:
        (running.model / "export.json").write_text("{")
        answer = running.post("/v1/reload")

        assert (answer.status_code, answer.json()["error"]["code"]) == (422, "reload_failed")
        assert "step 1 of fake goes on" in answer.json()["error"]["message"]
        assert running.score(5).json()["model"]["step"] == 1
        assert running.metric("recd_reloads_total") == 1


def test_a_link_that_is_turned_and_a_signal_change_the_model(tmp_path: Path) -> None:
    link = tmp_path / "now"
    link.symlink_to(tmp_path / "export")
    with service(tmp_path, "watch_s=0.1", model=link) as running:
        write_export(tmp_path / "second", step=2)
        (tmp_path / "next").symlink_to(tmp_path / "second")
        (tmp_path / "next").replace(link)
        running.wait_for("recd_model_step", 2)
        shutil.rmtree(tmp_path / "export")
        os.kill(running.workers()[0], signal.SIGKILL)  # its successor has the new model, too
        running.wait_for("recd_worker_restarts_total", 1)
        assert running.score(5).json()["model"]["step"] == 2

    with service(tmp_path, "watch_s=null") as running:
        write_export(running.model, step=3)
        running.process.send_signal(signal.SIGHUP)
        running.wait_for("recd_model_step", 3)


def test_a_service_that_ends_answers_what_has_come(tmp_path: Path) -> None:
    with service(tmp_path, "watch_s=null", "batch.max_requests=2", delay_ms=300) as running:
        workers = running.workers()
        pool, answers = all_at_once(running, 8)
        time.sleep(0.6)

        assert json.loads((tmp_path / "serve.json").read_text())["http"] == running.url
        assert running.end() == 0
        assert [answer.result().status_code for answer in answers] == [200] * 8
        assert not (tmp_path / "serve.json").exists()
        assert f"ready at {running.url}: fake, step 1" in (tmp_path / "log").read_text()
        assert not any(Path(f"/proc/{pid}").exists() for pid in workers)
        pool.shutdown()


def test_workers_end_with_a_front_that_is_killed(tmp_path: Path) -> None:
    with service(tmp_path, "watch_s=null", "workers=2") as running:
        workers = running.workers()
        running.process.kill()
        wait_until(lambda: not any(is_running(pid) for pid in workers), "workers stay")


def is_running(pid: int) -> bool:
    """Whether a process runs; one that has ended and was not waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_waiting_for_company_makes_larger_batches(tmp_path: Path) -> None:
    with service(tmp_path, "watch_s=null", "batch.max_wait_ms=300", "batch.max_requests=8") as running:
        pool, answers = all_at_once(running, 8)
        assert [answer.result().status_code for answer in answers] == [200] * 8

        assert running.metric("recd_batch_requests_count") < 8
        pool.shutdown()
