"""Batches of what waits: sizes, suspects, those for whom nobody waits; and user rows that are kept."""

import asyncio

import pytest

from recd_dist.serve.body_columns import RequestColumns
from recd_dist.serve.refused import DEADLINE, RefusedError
from recd_dist.serve.user_rows import UserRows
from recd_dist.serve.waiting_requests import WaitingRequest, WaitingRequests


@pytest.fixture
def loop() -> asyncio.AbstractEventLoop:
    return asyncio.new_event_loop()


def requests(loop: asyncio.AbstractEventLoop, *sizes: int) -> list[WaitingRequest]:
    return [WaitingRequest(RequestColumns(b"", b"", size), loop.create_future()) for size in sizes]


def batches(waiting: WaitingRequests) -> list[list[int]]:
    found = []
    while batch := waiting.take():
        found.append([request.columns.num_candidates for request in batch])
    return found


def test_a_batch_is_what_fits(loop: asyncio.AbstractEventLoop) -> None:
    waiting = WaitingRequests(most=10, max_candidates=100, max_requests=3)
    for request in requests(loop, 40, 60, 1, 200, 5, 6, 7, 8):
        waiting.put(request)

    assert batches(waiting) == [[40, 60], [1], [200], [5, 6, 7], [8]]


def test_what_is_under_suspicion_is_scored_alone(loop: asyncio.AbstractEventLoop) -> None:
    waiting, all_of_them = WaitingRequests(10, 100, 10), requests(loop, 1, 2, 3, 4)
    waiting.put(all_of_them[3])
    for request in all_of_them[1:3]:
        request.is_suspect = True
    waiting.put_back(all_of_them[:3])

    assert batches(waiting) == [[1], [2], [3], [4]]


def test_nobody_waits_for_what_was_answered(loop: asyncio.AbstractEventLoop) -> None:
    waiting, all_of_them = WaitingRequests(3, 100, 10), requests(loop, 1, 2, 3, 4)
    for request in all_of_them[:3]:
        waiting.put(request)
    with pytest.raises(RefusedError, match="3 requests wait already") as refused:
        waiting.put(all_of_them[3])
    assert refused.value.headers == {"Retry-After": "1"}
    all_of_them[0].answer.cancel()
    all_of_them[1].fail(RefusedError(DEADLINE, "late"))
    waiting.put(all_of_them[3])

    assert batches(waiting) == [[3, 4]]
    assert isinstance(all_of_them[1].answer.exception(), RefusedError)


def test_user_rows_that_were_not_used_for_longest_make_room() -> None:
    rows = UserRows(2000)
    for key in ("a", "b", "c"):
        rows.keep(key, 1, b"x" * 300)
    rows.find("a", 1)
    rows.keep("d", 1, b"x" * 300)

    assert [key for key in "abcd" if _is_kept(rows, key, 1)] == ["a", "c", "d"]
    rows.keep("a", 2, b"y")
    assert bytes(rows.find("a", 2)) == b"y"
    assert not _is_kept(rows, "a", 1)
    rows.keep("large", 1, b"x" * 3000)
    assert len(rows) == 3
    rows.clear()
    assert len(rows) == 0


def _is_kept(rows: UserRows, key: str, version: int) -> bool:
    try:
        rows.find(key, version)
    except RefusedError:
        return False
    return True
