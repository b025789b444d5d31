"""The internal listing: segments, cursors, limits, and listing on through trouble."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import boto3
import pytest
from boto3.dynamodb.types import TypeSerializer
from botocore.exceptions import ReadTimeoutError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from common.errors import InvalidRequestError
from common.task import Task
from fan_out.model.documents import encode
from task_service import store
from task_service.errors import ThrottledError

from .conftest import TABLE, Context, faults, fill, item, list_page, refusal, response, update, write_all


def walk(event: dict[str, Any], context: Context | None = None) -> list[list[dict[str, Any]]]:
    """The answers' tasks until the segment's end."""
    pages, cursor = [], None
    for _ in range(1_000):
        answer = list_page({**event, "cursor": cursor}, context)
        pages.append(tasks_of(answer))
        cursor = answer["cursor"]
        if cursor is None:
            return pages
    raise AssertionError("The segment does not end.")


def tasks_of(answer: dict[str, Any]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in answer["lines"]]


def ids_of(pages: list[list[dict[str, Any]]]) -> list[str]:
    return [task["id"] for page in pages for task in page]


def test_a_listing_answers_tasks_without_internal_fields(dynamodb: Any) -> None:
    fill(dynamodb, 1, detail="More", dueAt="2026-05-17T09:00:00Z", effectKey="internal", createKey="internal")

    answer = list_page({"filter": {}, "segment": 0, "totalSegments": 1, "cursor": None, "limit": 10})

    assert answer["cursor"] is None
    assert tasks_of(answer) == [
        {
            "id": "task-00000",
            "title": "Task task-00000",
            "detail": "More",
            "dueAt": "2026-05-17T09:00:00Z",
            "isComplete": False,
            "createdAt": "2026-05-17T09:00:00Z",
            "updatedAt": "2026-05-17T09:00:00Z",
            "version": 1,
        }
    ]


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(total=st.integers(1, 40), limit=st.integers(1, 70), is_complete=st.none() | st.booleans())
def test_all_segments_together_list_every_task_exactly_once(
    dynamodb: Any, total: int, limit: int, is_complete: bool | None
) -> None:
    open_ids = fill(dynamodb, 60)
    done_ids = [task_id for task_id in open_ids if int(task_id[-5:]) % 3 == 0]
    for task_id in done_ids:
        dynamodb.update_item(
            TableName=TABLE,
            Key={"id": {"S": task_id}},
            UpdateExpression="SET isComplete = :done",
            ExpressionAttributeValues={":done": {"BOOL": True}},
        )
    wanted = {None: open_ids, True: done_ids, False: sorted(set(open_ids) - set(done_ids))}[is_complete]

    listed = []
    for segment in range(total):
        event = {
            "filter": {} if is_complete is None else {"isComplete": is_complete},
            "segment": segment,
            "totalSegments": total,
            "limit": limit,
        }
        pages = walk(event)
        assert all(len(page) <= limit for page in pages)
        listed += ids_of(pages)

    assert sorted(listed) == wanted


def test_a_scan_page_that_is_empty_does_not_end_the_listing(dynamodb: Any) -> None:
    fill(dynamodb, 3)
    empty = {"Items": [], "Count": 0, "ScannedCount": 5_000, "LastEvaluatedKey": {"id": {"S": "task-00000"}}}

    with faults(dynamodb, "Scan", response(200, empty)) as made:
        answer = list_page({"filter": {"isComplete": False}, "limit": 10})

    assert ids_of([tasks_of(answer)]) == ["task-00001", "task-00002"]
    assert made[1]["ExclusiveStartKey"] == {"id": {"S": "task-00000"}}
    assert answer["cursor"] is None


def test_one_call_reads_a_bounded_number_of_scan_pages(dynamodb: Any) -> None:
    def empty(number: int) -> Any:
        key = {"id": {"S": f"key-{number}"}}
        return response(200, {"Items": [], "Count": 0, "ScannedCount": 1, "LastEvaluatedKey": key})

    with faults(dynamodb, "Scan", *[empty(number) for number in range(100)]) as made:
        first = list_page({"filter": {"isComplete": True}})
        asked = len(made)
        list_page({"filter": {"isComplete": True}, "cursor": first["cursor"]})

    assert asked == store.MOST_SCANS
    assert first["lines"] == []
    assert made[asked]["ExclusiveStartKey"] == {"id": {"S": f"key-{asked - 1}"}}


def test_a_selective_filter_scans_more_at_once(dynamodb: Any) -> None:
    fill(dynamodb, 60)

    with faults(dynamodb, "Scan") as made:
        answer = list_page({"filter": {"isComplete": True}, "limit": 2})

    assert answer == {"lines": [], "cursor": None}
    assert [request["Limit"] for request in made] == [2, 8, 32, 128]


def test_a_listing_without_filter_scans_what_it_answers(dynamodb: Any) -> None:
    fill(dynamodb, 20)

    with faults(dynamodb, "Scan") as made:
        list_page({"limit": 7})

    assert [request["Limit"] for request in made] == [7]


def test_a_listing_reads_consistently(dynamodb: Any) -> None:
    with faults(dynamodb, "Scan") as made:
        list_page({})

    assert made[0]["ConsistentRead"] is True


def test_a_look_up_reads_consistently(dynamodb: Any) -> None:
    fill(dynamodb, 2)
    with faults(dynamodb, "BatchGetItem") as made:
        list_page({"ids": ["task-0"]})

    assert [each["ConsistentRead"] for each in made[0]["RequestItems"].values()] == [True]


def test_a_scans_limit_stays_a_32_bit_integer(
    dynamodb: Any,
) -> None:
    fill(dynamodb, 45)
    with faults(dynamodb, "Scan", *[_one_item] * store.MOST_SCANS) as made:
        list_page({"filter": {"isComplete": True}, "limit": 10_000})

    assert len(made) == store.MOST_SCANS
    assert max(each["Limit"] for each in made) == store.LARGEST_SCAN < 2**31


def _one_item(request: Any) -> None:
    """A megabyte that holds one item."""
    request.body = json.dumps(json.loads(request.body) | {"Limit": 1}).encode()


def test_a_call_short_of_time_scans_one_page(dynamodb: Any) -> None:
    fill(dynamodb, 38)
    for number in range(2):
        dynamodb.put_item(TableName=TABLE, Item=item(f"done-{number}", isComplete=True))

    with faults(dynamodb, "Scan") as made:
        pages = walk({"filter": {"isComplete": True}, "limit": 4}, Context(remaining_ms=1))

    assert sorted(ids_of(pages)) == ["done-0", "done-1"]
    assert len(made) == len(pages) > 5


def test_one_answer_stays_below_three_megabytes(dynamodb: Any) -> None:
    ids = fill(dynamodb, 600, title="😀" * 100, detail="\n" * 1 + "😀" * 999)

    pages = walk({"limit": 10_000})

    assert len(pages) > 1
    assert all(len(json.dumps(page)) <= store.MOST_PAGE_BYTES for page in pages)
    assert sorted(ids_of(pages)) == ids


def test_a_throttled_listing_that_has_something_answers_it(dynamodb: Any, naps: list[float]) -> None:
    fill(dynamodb, 9)
    key = {"id": {"S": "task-00004"}}
    first = {"Items": [], "Count": 0, "ScannedCount": 1, "LastEvaluatedKey": key}
    throttles = [refusal("ProvisionedThroughputExceededException") for _ in range(3)]

    with faults(dynamodb, "Scan", response(200, first), *throttles):
        answer = list_page({"limit": 9})

    assert answer["lines"] == []
    assert len(list_page({"limit": 9, "cursor": answer["cursor"]})["lines"]) == 4


@pytest.mark.parametrize(
    "trouble",
    ["ProvisionedThroughputExceededException", "ThrottlingException", "InternalServerError", "timeout"],
)
def test_a_listing_that_gets_nowhere_says_that_it_is_throttled(dynamodb: Any, naps: list[float], trouble: str) -> None:
    timeout = ReadTimeoutError(endpoint_url="https://dynamodb")
    status = 500 if trouble == "InternalServerError" else 400
    plan = [timeout if trouble == "timeout" else refusal(trouble, status) for _ in range(3)]

    with faults(dynamodb, "Scan", *plan) as made, pytest.raises(ThrottledError):
        list_page({})

    assert len(made) == 3


def test_a_throttle_that_passes_is_not_seen_outside(dynamodb: Any, naps: list[float]) -> None:
    fill(dynamodb, 2)

    with faults(dynamodb, "Scan", refusal("ThrottlingException"), refusal("ThrottlingException")):
        assert len(list_page({})["lines"]) == 2


def test_a_changing_table_is_listed_exactly_once(
    dynamodb: Any,
) -> None:
    ids = fill(dynamodb, 60)
    gone = ids[5::10]

    listed, cursor = [], None
    for step in range(100):
        answer = list_page({"limit": 6, "cursor": cursor})
        listed += ids_of([tasks_of(answer)])
        cursor = answer["cursor"]
        if cursor is None:
            break
        # Each step's last task, where the cursor stands, is deleted; another one is made and one is changed.
        if step < len(gone):
            dynamodb.delete_item(TableName=TABLE, Key={"id": {"S": listed[-1]}})
            gone[step] = listed[-1]
            dynamodb.put_item(TableName=TABLE, Item=item(f"new-{step}"))
        write_all([update(listed[0], title=f"Changed {step}", version=step + 1, key=f"change-{step}")])

    throughout = [task_id for task_id in ids if task_id not in gone]
    assert [task_id for task_id in throughout if listed.count(task_id) != 1] == []


@pytest.mark.parametrize(
    ("event", "says"),
    [
        ({"limit": 0}, "limit is 0, but must be a whole number from 1 to 10,000."),
        ({"limit": 10_001}, "limit is 10001"),
        ({"limit": True}, "limit is true"),
        ({"limit": 1.0}, "limit is 1.0"),
        ({"limit": None}, "limit is null"),
        ({"segment": 1}, "segment is 1, but must be below totalSegments, which is 1."),
        ({"segment": -1}, "segment is -1"),
        ({"segment": "0"}, "segment is "),
        ({"segment": 4, "totalSegments": 4}, "segment is 4"),
        ({"totalSegments": 0}, "totalSegments is 0, but must be a whole number from 1 to 1,000,000."),
        ({"totalSegments": 1_000_001}, "totalSegments is 1000001"),
        ({"filter": []}, "filter is [], but must be an object"),
        ({"filter": {"isComplete": "no"}}, "filter.isComplete is "),
        ({"filter": {"dueBefore": "soon"}}, "filter.dueBefore is "),
        ({"filter": {"dueAfter": 7}}, "filter.dueAfter is 7"),
        ({"filter": {"title": "x"}}, 'filter.title is "x", but there is no such field'),
        ({"cursor": "x"}, 'cursor is "x", but must be the token of an earlier answer'),
        ({"cursor": 7}, "cursor is 7"),
        ({"cursor": ""}, 'cursor is ""'),
        ({"segments": 7}, "segments is 7, but there is no such field"),
        ({"size": False}, "size is false, but must be true."),
        ({"size": 1}, "size is 1"),
        ({"size": True, "segment": 0}, "segment is 0, but there is no such field"),
        ([], "event is []"),
        (None, "event is null"),
    ],
)
def test_a_wrong_request_is_refused_with_a_sentence(dynamodb: Any, event: Any, says: str) -> None:
    with pytest.raises(InvalidRequestError) as refused:
        list_page(event)

    assert type(refused.value).__name__ == "InvalidRequestError"
    assert str(refused.value).startswith(says)
    assert len(refused.value.faults) == 1


def test_a_cursor_belongs_to_its_filter_and_its_segment(dynamodb: Any) -> None:
    fill(dynamodb, 50)
    own = {"filter": {"isComplete": False}, "segment": 1, "totalSegments": 4, "limit": 1}
    cursor = list_page(own)["cursor"]

    list_page({**own, "limit": 5, "cursor": cursor})
    others: list[dict[str, Any]] = [{"filter": {}}, {"segment": 2}, {"totalSegments": 5}]
    for other in others:
        with pytest.raises(InvalidRequestError, match=r"^cursor is"):
            list_page({**own, **other, "cursor": cursor})


@pytest.mark.parametrize(
    ("module", "unwanted"),
    [
        ("list_tasks", "pydantic, aws_lambda_powertools.event_handler, aws_xray_sdk"),
        ("write_tasks", "aws_lambda_powertools.event_handler, aws_xray_sdk"),
    ],
)
def test_an_internal_function_imports_nothing_of_rest(module: str, unwanted: str) -> None:
    program = f"import sys, task_service.{module}; print([n for n in '{unwanted}'.split(', ') if n in sys.modules])"

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)


@given(
    title=TEXTS, detail=st.none() | TEXTS, due_at=st.none() | TEXTS, is_complete=st.booleans(), version=st.integers()
)
def test_a_line_is_its_task_in_the_form_of_shards(
    title: str, detail: str | None, due_at: str | None, is_complete: bool, version: int
) -> None:
    """Byte for byte what `encode` makes of it: shards do not tell by which way a task came into them."""
    task = Task("a-1", title, is_complete, "2026-05-17T09:00:00Z", "2026-05-18T09:00:00Z", version, detail, due_at)
    fields = task.to_json() | {"effectKey": "internal"}
    item: Any = {name: TypeSerializer().serialize(value) for name, value in fields.items() if name != "version"}
    assert store._line(item | {"version": {"N": str(version)}}).encode() == encode(task.to_json())


@pytest.mark.parametrize("name", ["id", "title", "isComplete", "createdAt", "updatedAt", "version"])
def test_an_item_that_is_no_task_is_not_listed_as_one(name: str) -> None:
    with pytest.raises(KeyError):
        store._line({key: value for key, value in item("a").items() if key != name})


def test_a_page_is_decoded_as_the_sdk_would(dynamodb: Any) -> None:
    fill(dynamodb, 7, detail='日本 \n "quoted"', dueAt="2026-05-17T09:00:00Z")
    asked: dict[str, Any] = {"TableName": TABLE, "Limit": 5}
    answers = [client.scan(**asked) for client in (dynamodb, boto3.client("dynamodb"))]
    for answer in answers:
        assert answer.pop("ResponseMetadata")["HTTPStatusCode"] == 200
    assert answers[0] == answers[1]
    assert answers[0]["LastEvaluatedKey"]


@pytest.mark.parametrize("is_cut", [False, True])
def test_a_page_damaged_on_its_way_is_read_again(dynamodb: Any, naps: list[float], is_cut: bool) -> None:
    """The SDK finds that by the checksum that DynamoDB sends."""
    fill(dynamodb, 2)
    damaged = response(200, {"Items": [item("garbage")], "Count": 1, "ScannedCount": 1})
    damaged.headers["x-amz-crc32"] = "1"
    if is_cut:
        damaged._content = damaged.content[:-9]

    with faults(dynamodb, "Scan", damaged) as made:
        answer = list_page({})

    assert ids_of([tasks_of(answer)]) == ["task-00000", "task-00001"]
    assert len(made) == 2


def test_a_table_says_how_large_it_is(dynamodb: Any) -> None:
    fill(dynamodb, 3)
    assert list_page({"size": True}) == {"count": 3, "bytes": 0}
