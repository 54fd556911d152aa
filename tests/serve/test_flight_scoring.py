"""A service asked over Arrow Flight: flat batches, and unique rows of users with a number for each candidate."""

from collections.abc import Iterator
from typing import Any

import orjson
import pyarrow as pa
import pytest
from pyarrow import flight
from tests.serve.fake_service import FakeService, service

SCORE = flight.FlightDescriptor.for_command(b"score")
FLAT = {
    "region": [1, 1, 2, 1],
    "history": [[7, 8], [7, 8], [], [7, 8]],
    "item": [5, 6, 5, 9],
    "price": [1.0, 1.0, 1.0, 1.0],
}
CLICKS = [17.0, 18.0, 26.0, 21.0]
LIMITS = ("watch_s=null", "limits.candidates=50", "limits.values=10")


@pytest.fixture(scope="module")
def fake(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeService]:
    with service(tmp_path_factory.mktemp("flight"), "--flight", "127.0.0.1:0", *LIMITS) as running:
        yield running


@pytest.fixture
def client(fake: FakeService) -> Iterator[flight.FlightClient]:
    with flight.FlightClient(fake.flight) as asking:
        yield asking


def batch(columns: dict[str, Any]) -> pa.RecordBatch:
    return pa.RecordBatch.from_pydict(columns)


def exchange(client: flight.FlightClient, *sent: tuple[pa.RecordBatch, bytes]) -> list[flight.FlightStreamChunk]:
    """Sends batches and takes the answers; a stream of Flight has one schema."""
    writer, reader = client.do_exchange(SCORE)
    with writer:
        writer.begin(sent[0][0].schema)
        for columns, mark in sent:
            writer.write_with_metadata(columns, mark)
        writer.done_writing()
        return list(reader)


def test_a_flat_batch_is_scored_in_its_order(fake: FakeService, client: flight.FlightClient) -> None:
    before = fake.metric("recd_candidates_total")
    first, second = exchange(client, (batch(FLAT), b""), (batch(FLAT).slice(1, 2), b""))

    assert first.data.to_pydict() == {"click": CLICKS, "buy": [-click for click in CLICKS]}
    assert second.data["click"].to_pylist() == CLICKS[1:3]
    assert orjson.loads(first.app_metadata.to_pybytes())["model"]["step"] == 1
    assert fake.metric("recd_candidates_total") == before + 6


def unique_rows(inverse: list[int | None]) -> pa.RecordBatch:
    """The same batch with unique rows of users and an inverse."""
    users = pa.StructArray.from_arrays([pa.array([1, 2]), pa.array([[7, 8], []])], names=["region", "history"])
    column = pa.DictionaryArray.from_arrays(pa.array(inverse, pa.int32()), users)
    return pa.RecordBatch.from_pydict({"user": column, "item": FLAT["item"], "price": FLAT["price"]})


def test_unique_rows_of_users_stand_for_candidates_in_any_order(fake: FakeService, client: flight.FlightClient) -> None:
    before = fake.metric("recd_request_seconds_count")
    (answer,) = exchange(client, (unique_rows([0, 0, 1, 0]), b""))

    assert answer.data["click"].to_pylist() == CLICKS
    assert fake.metric("recd_request_seconds_count") == before + 5  # total of one call; two stages of two requests
    with pytest.raises(pa.ArrowInvalid, match="without nulls"):
        exchange(client, (unique_rows([0, None, 1, 0]), b""))


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({**FLAT, "colour": [1, 2, 3, 4]}, "colour"),
        ({n: v for n, v in FLAT.items() if n != "price"}, "price"),
        ({**FLAT, "history": [list(range(11))] * 4}, "limits.values"),
        ({n: v[:1] * 51 for n, v in FLAT.items()}, "limits.candidates"),
        ({n: [v[0]] * 0 for n, v in FLAT.items()}, "empty"),
    ],
)
def test_what_is_wrong_is_said(client: flight.FlightClient, columns: dict[str, Any], said: str) -> None:
    with pytest.raises(pa.ArrowInvalid, match=said):
        exchange(client, (batch(columns), b""))
    assert exchange(client, (batch(FLAT), b""))


def test_lists_of_another_layout_are_lists(client: flight.FlightClient) -> None:
    columns = pa.record_batch(FLAT)
    for kind in (pa.large_list(pa.int32()), pa.list_view(pa.int64())):
        other = columns.set_column(1, "history", pa.array(FLAT["history"], kind))
        assert exchange(client, (other, b""))[0].data["click"].to_pylist() == CLICKS
        with pytest.raises(pa.ArrowInvalid, match=r"limits\.values"):
            exchange(client, (columns.set_column(1, "history", pa.array([list(range(11))] * 4, kind)), b""))


def test_columns_without_values_or_of_one_name_are_told_apart(client: flight.FlightClient) -> None:
    columns = pa.record_batch(FLAT)
    assert exchange(client, (columns.set_column(1, "history", pa.array([[]] * 4)), b""))
    for index, name, said in ((1, "history", "NoneType|null|missing|history"), (1, "region", "several of that name")):
        with pytest.raises(pa.ArrowException, match=said) as refused:
            exchange(client, (columns.set_column(index, name, pa.nulls(4)), b""))
        assert "no kernel" not in str(refused.value)


def test_the_model_is_described(client: flight.FlightClient) -> None:
    (told,) = client.do_action("model")

    assert orjson.loads(told.body.to_pybytes())["name"] == "fake"
    assert client.list_actions()[0].type == "model"
    with pytest.raises(pa.ArrowInvalid, match="knows 'model' alone"):
        list(client.do_action("drop"))
