"""Looking tasks up by their ids, for a job that goes over the failures of an earlier one."""

from __future__ import annotations

from typing import Any

import pytest

from common.errors import InvalidRequestError
from task_service.errors import ThrottledError

from .conftest import TABLE, faults, fill, item, list_page, response


def test_a_lookup_answers_what_exists_in_the_order_of_the_ids(dynamodb: Any) -> None:
    fill(dynamodb, 3)
    answer = list_page({"ids": ["task-00002", "gone", "task-00000"]})
    assert [task["id"] for task in answer["tasks"]] == ["task-00002", "task-00000"]


def test_a_lookup_leaves_out_what_no_longer_matches(dynamodb: Any) -> None:
    due: dict[str, Any] = {"dueAt": "2026-05-17T09:00:00Z"}
    tasks: dict[str, dict[str, Any]] = {"a": due, "b": {}, "c": due | {"isComplete": True}}
    for task_id, fields in tasks.items():
        dynamodb.put_item(TableName=TABLE, Item=item(task_id, **fields))
    dated = {"isComplete": False, "dueBefore": "2026-05-17T09:00:01Z", "dueAfter": "2026-05-17T09:00:00Z"}
    answer = list_page({"ids": ["a", "b", "c"], "filter": dated})
    assert [task["id"] for task in answer["tasks"]] == ["a"]
    assert list_page({"ids": ["a"], "filter": dated | {"dueBefore": dated["dueAfter"]}})["tasks"] == []


@pytest.mark.parametrize("ids", ["a", [1], ["not an id"], [f"t{n}" for n in range(101)], None])
def test_a_lookup_of_anything_but_ids_is_refused(dynamodb: Any, ids: Any) -> None:
    with pytest.raises(InvalidRequestError, match="a list of at most 100 ids of tasks"):
        list_page({"ids": ids})


def test_a_lookup_takes_no_fields_of_a_listing(dynamodb: Any) -> None:
    with pytest.raises(InvalidRequestError, match="segment"):
        list_page({"ids": [], "segment": 0})


def test_unprocessed_keys_are_read_again(dynamodb: Any) -> None:
    fill(dynamodb, 2)
    left = {TABLE: {"Keys": [{"id": {"S": "task-00000"}}, {"id": {"S": "task-00001"}}]}}
    partial = {TABLE: {"Keys": [{"id": {"S": "task-00001"}}]}}
    first = {"Responses": {TABLE: [item("task-00000")]}, "UnprocessedKeys": partial}
    with faults(dynamodb, "BatchGetItem", response(200, first)):
        answer = list_page({"ids": ["task-00000", "task-00001"]})
    assert [task["id"] for task in answer["tasks"]] == ["task-00000", "task-00001"]
    nothing = {"Responses": {}, "UnprocessedKeys": left}
    with faults(dynamodb, "BatchGetItem", response(200, nothing)), pytest.raises(ThrottledError):
        list_page({"ids": ["task-00000", "task-00001"]})
