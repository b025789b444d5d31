"""The embedded AWS's Scan answers byte for byte as ministack's own, whatever was written before."""

from __future__ import annotations

import functools
import json
import random
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from ministack.services import dynamodb

from fanout.local.gaps import table_scan

ORIGINAL = dynamodb._scan
TABLE = "things"
KEYS = {"id": "S", "sort": "N"}

Answer = tuple[int, dict[str, str], bytes]


@pytest.fixture(autouse=True)
def closed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The gap closed in this process; pages are small, so that a few items make several."""
    for name, make in (("_set_item", table_scan.set_item), ("_remove_item", table_scan.remove_item)):
        monkeypatch.setattr(dynamodb, name, functools.partial(make, getattr(dynamodb, name)))
    monkeypatch.setattr(dynamodb, "_DDB_PAGE_SIZE_BYTES", 300)
    yield
    dynamodb._delete_table({"TableName": TABLE})


def new_table(*keys: str) -> None:
    dynamodb._create_table(
        {
            "TableName": TABLE,
            "KeySchema": [
                {"AttributeName": name, "KeyType": kind} for name, kind in zip(keys, ("HASH", "RANGE"), strict=False)
            ],
            "AttributeDefinitions": [{"AttributeName": name, "AttributeType": KEYS[name]} for name in keys],
            "BillingMode": "PAY_PER_REQUEST",
        }
    )


def an_item(dice: random.Random, *keys: str) -> dict[str, Any]:
    values = {"id": f"{dice.choice(['', 'a', 'b'])}{dice.randrange(30)}", "sort": str(dice.randrange(12))}
    item: dict[str, Any] = {name: {KEYS[name]: values[name]} for name in keys}
    return item | {"n": {"N": str(dice.randrange(9))}, "text": {"S": "ü" * dice.randrange(80)}}


def write(dice: random.Random, *keys: str) -> None:
    """One write of a random operation."""
    item = an_item(dice, *keys)
    key = {name: item[name] for name in keys}
    puts = [an_item(dice, *keys) for _ in range(3)]
    unique = {json.dumps([put[name] for name in keys]): put for put in [*puts, item]}
    update = {"UpdateExpression": "SET n = :n", "ExpressionAttributeValues": {":n": {"N": "1"}}}
    taken = {"ConditionExpression": "attribute_not_exists(id)"}
    of_table = {"TableName": TABLE}
    transaction: list[dict[str, Any]] = [{"Put": of_table | {"Item": put}} for put in unique.values()]
    operations: list[Callable[[], Answer]] = [
        lambda: dynamodb._put_item(of_table | {"Item": item}),
        lambda: dynamodb._put_item(of_table | {"Item": item} | taken),
        lambda: dynamodb._delete_item(of_table | {"Key": key}),
        lambda: dynamodb._update_item(of_table | {"Key": key} | update),
        lambda: dynamodb._batch_write_item(
            {"RequestItems": {TABLE: [{"PutRequest": {"Item": put}} for put in unique.values()]}}
        ),
        lambda: dynamodb._batch_write_item({"RequestItems": {TABLE: [{"DeleteRequest": {"Key": key}}]}}),
        lambda: dynamodb._transact_write_items({"TransactItems": transaction}),
        lambda: dynamodb._transact_write_items({"TransactItems": [{"Delete": of_table | {"Key": key}}]}),
        lambda: dynamodb._execute_transaction(
            {
                "TransactStatements": [
                    {"Statement": f"INSERT INTO {TABLE} VALUE {{'id': 'new{dice.random()}', 'sort': 1}}"},
                    {"Statement": f"INSERT INTO {TABLE} VALUE {{'id': '{item['id']['S']}', 'sort': 1}}"},
                ]
            }
        ),
    ]
    dice.choice(operations)()


def a_scan(dice: random.Random) -> dict[str, Any]:
    below = {":n": {"N": "5"}}
    options: list[dict[str, Any]] = [
        {},
        {"Limit": dice.choice([1, 4, 100, 0, -1])},
        {"FilterExpression": "n < :n", "ExpressionAttributeValues": below, "Limit": 7},
        {"FilterExpression": "n <", "ExpressionAttributeValues": below},
        {"ProjectionExpression": "id, #n", "ExpressionAttributeNames": {"#n": "n"}},
        {"Select": "COUNT"},
        {"IndexName": "none"},
        {"Segment": 3, "TotalSegments": 3},
        {"Segment": 0},
        {"ExclusiveStartKey": {"id": {"S": "a1"}, "sort": {"N": "3"}}},
        {"ExclusiveStartKey": {"other": {"S": "a1"}}},
    ]
    total = dice.choice([0, 1, 3])
    segment = {"Segment": dice.randrange(total), "TotalSegments": total} if total else {}
    return {"TableName": TABLE, "ReturnConsumedCapacity": "TOTAL"} | dice.choice(options) | segment


@pytest.mark.parametrize("keys", [("id",), ("id", "sort")])
@pytest.mark.parametrize("seed", range(5))
def test_every_page_equals_the_originals(seed: int, keys: tuple[str, ...]) -> None:
    dice = random.Random(f"{seed}-{keys}")
    new_table(*keys)
    pages = 0
    for _ in range(45):
        for _ in range(dice.randrange(6)):
            write(dice, *keys)
        if dice.random() < 0.05:
            dynamodb._delete_table({"TableName": TABLE})
            new_table(*keys)
        request: dict[str, Any] | None = a_scan(dice)
        while request is not None:
            answer = table_scan.scan(ORIGINAL, dict(request))
            assert answer == ORIGINAL(dict(request)), request
            pages += 1
            if dice.random() < 0.3:
                write(dice, *keys)
            after = json.loads(answer[2]).get("LastEvaluatedKey")
            request = request | {"ExclusiveStartKey": after} if after else None
    assert pages > 80


def test_a_page_reads_only_its_own_items(monkeypatch: pytest.MonkeyPatch) -> None:
    new_table("id")
    for number in range(500):
        dynamodb._put_item({"TableName": TABLE, "Item": {"id": {"S": str(number)}}})
    read = []

    def paginate(items: list[Any], *rest: Any) -> Any:
        read.append(len(items))
        return original(items, *rest)

    original = dynamodb._paginate_evaluated_items
    monkeypatch.setattr(dynamodb, "_paginate_evaluated_items", paginate)
    request: dict[str, Any] = {"TableName": TABLE, "Limit": 10}
    first = json.loads(table_scan.scan(ORIGINAL, request)[2])
    table_scan.scan(ORIGINAL, request | {"ExclusiveStartKey": first["LastEvaluatedKey"]})
    assert read == [10, 10]
