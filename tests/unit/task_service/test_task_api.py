"""The REST API of tasks, request by request."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from botocore.exceptions import ConnectTimeoutError, ReadTimeoutError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from task_service import store, task_api
from tests.support.events import api_event

from .conftest import SECRET, Api, Context, faults, fill, forget, refusal, response, stored, write_all
from .conftest import update as an_update

TIMEOUT = ReadTimeoutError(endpoint_url="https://dynamodb")


def test_a_task_is_created_from_a_request(api: Api) -> None:
    answer = api(
        "POST",
        "/tasks",
        {"title": "Fix “it”", "detail": "a\nb", "dueAt": "2026-05-17T11:00:00.5+02:00", "isComplete": True},
    )

    assert answer.status == 201
    task = answer.body
    assert answer.headers["Location"] == f"/v1/tasks/{task['id']}"
    assert answer.headers["Content-Type"] == "application/json"
    assert list(task) == ["id", "title", "detail", "dueAt", "isComplete", "createdAt", "updatedAt", "version"]
    assert task["title"] == "Fix “it”"
    assert task["detail"] == "a\nb"
    assert task["dueAt"] == "2026-05-17T09:00:00Z"
    assert task["isComplete"] is True
    assert task["createdAt"] == task["updatedAt"]
    assert task["version"] == 1
    assert api("GET", f"/tasks/{task['id']}").body == task


def test_a_task_without_optional_fields_is_answered_without_them(api: Api) -> None:
    assert api.make().keys() == {"id", "title", "isComplete", "createdAt", "updatedAt", "version"}


def test_putting_a_task_replaces_all_of_it(api: Api) -> None:
    task = api.make(detail="old", dueAt="2026-05-17T09:00:00Z", isComplete=True)

    answer = api("PUT", f"/tasks/{task['id']}", {"title": "New", "version": 1})

    assert answer.status == 200
    assert answer.body == {
        "id": task["id"],
        "title": "New",
        "isComplete": False,
        "createdAt": task["createdAt"],
        "updatedAt": answer.body["updatedAt"],
        "version": 2,
    }
    assert api("GET", f"/tasks/{task['id']}").body == answer.body


def test_a_put_of_an_old_version_is_a_conflict(api: Api) -> None:
    task = api.make()
    first = api("PUT", f"/tasks/{task['id']}", {"title": "Mine", "version": 1})

    second = api("PUT", f"/tasks/{task['id']}", {"title": "Theirs", "version": 1})

    assert second.status == 409
    assert second.problem["title"] == "VersionConflictError"
    assert "version is 1, but the task" in second.problem["detail"]
    assert api("GET", f"/tasks/{task['id']}").body == first.body


def test_the_same_put_twice_is_a_conflict(api: Api) -> None:
    task = api.make()
    sent = {"title": "Mine", "version": 1}

    assert [api("PUT", f"/tasks/{task['id']}", sent).status for _ in range(2)] == [200, 409]


def test_a_deleted_task_is_gone(api: Api) -> None:
    task = api.make()

    deleted = api("DELETE", f"/tasks/{task['id']}")

    assert (deleted.status, deleted.raw) == (204, "")
    for method, body in (("GET", None), ("DELETE", None), ("PUT", {"title": "x", "version": 1})):
        answer = api(method, f"/tasks/{task['id']}", body)
        assert answer.status == 404
        assert answer.problem == {
            "type": "/errors/task-not-found",
            "title": "TaskNotFoundError",
            "status": 404,
            "detail": f'No task has the id "{task["id"]}".',
            "instance": f"/tasks/{task['id']}",
        }


def test_a_user_edit_keeps_the_idempotency_key(api: Api, dynamodb: Any) -> None:
    task = api.make()
    write_all([an_update(task["id"], title="By a job", key="effect-1")])
    edited = api("PUT", f"/tasks/{task['id']}", {"title": "By a user", "version": 2})

    (again,) = write_all([an_update(task["id"], title="By a job", key="effect-1")])

    assert again == {"id": task["id"], "outcome": "unchanged", "repeated": True}
    assert api("GET", f"/tasks/{task['id']}").body == edited.body
    assert "effect-1" not in edited.raw


@pytest.mark.parametrize("task_id", ["a b", "a.b", "ä", "x" * 65, "a%20b", "a%2Fb", "a'b", "$a"])
@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
def test_an_invalid_task_id_is_refused_first(api: Api, method: str, task_id: str) -> None:
    answer = api(method, f"/tasks/{task_id}", {"title": "x", "version": 1})

    assert answer.status == 400
    assert answer.field == "id"
    assert "must be 1 to 64 characters out of" in answer.problem["detail"]


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/"), ("GET", "/task"), ("PATCH", "/tasks/a"), ("GET", "/tasks/a/b"), ("PUT", "/tasks")],
)
def test_an_operation_that_does_not_exist_is_not_found(api: Api, method: str, path: str) -> None:
    answer = api(method, path, {})

    assert answer.status == 404
    assert answer.problem["title"] == "RouteNotFoundError"


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        (None, "body is missing, but must be a JSON object in UTF-8."),
        ("", "body is missing"),
        ("  ", "body is missing"),
        ("{", 'body is "{", but must be a JSON object in UTF-8.'),
        ("[]", "body is [], but must be a JSON object"),
        ("null", "body is null"),
        ('"x"', 'body is "x"'),
        ("NaN", "must be a JSON object"),
        ('{"title": NaN}', "must be a JSON object"),
        ('{"title": -Infinity}', "must be a JSON object"),
        ('{"title": 1e999}', "must be a JSON object"),
        ('{"title": ' + "9" * 5_000 + "}", "must be a JSON object"),
        ("[" * 100_000, "must be a JSON object"),
        ('{"title": ' + "[" * 900 + "]" * 900 + "}", "title is [[["),
        ('{"title": "\\ud800"}', "must be a JSON object in UTF-8"),
        ('{"title": "x", "\\ud800": 1}', "must be a JSON object in UTF-8"),
    ],
)
def test_a_body_that_is_no_task_is_refused_in_plain_words(api: Api, raw: str | None, says: str) -> None:
    answer = api("POST", "/tasks", raw=raw)

    assert answer.status == 400
    assert says in answer.problem["detail"]
    assert len(answer.raw) < 3_000


def test_a_body_may_come_in_base64_and_with_a_byte_order_mark(api: Api) -> None:
    assert api("POST", "/tasks", {"title": "Grüße"}, encoded=True).body["title"] == "Grüße"
    assert api("POST", "/tasks", raw='\ufeff{"title": "x"}').status == 201


@pytest.mark.parametrize("text", ["%%%", "4pi", "w/8=", "Zm9v\n!"])
def test_a_base64_body_that_is_broken_is_refused(api: Api, text: str) -> None:
    event = api_event("POST", "/tasks", b"") | {"body": text}
    answer = api.send(event)
    assert (answer.status, answer.field) == (400, "body")


@pytest.mark.parametrize("encoded", [False, True])
def test_the_largest_body_is_read_and_one_byte_more_is_too_large(api: Api, encoded: bool) -> None:
    frame = len('{"title":"x"}')
    largest = '{"title":"x"' + " " * (task_api.LARGEST_BODY - frame) + "}"

    assert api("POST", "/tasks", raw=largest, encoded=encoded).status == 201
    refused = api("POST", "/tasks", raw=largest + " ", encoded=encoded)
    assert refused.status == 413
    assert refused.problem["title"] == "PayloadTooLargeError"
    assert "at most 262144 bytes" in refused.problem["detail"]
    assert api("POST", "/tasks", raw="ä" * task_api.LARGEST_BODY, encoded=encoded).status == 413
    assert api("POST", "/tasks", raw="x" * 5_000_000, encoded=encoded).status == 413


@pytest.mark.parametrize("content_type", [None, "application/json", "Application/JSON; charset=utf-8"])
def test_json_is_taken_however_it_is_declared(api: Api, content_type: str | None) -> None:
    assert api("POST", "/tasks", {"title": "x"}, content_type=content_type).status == 201


@pytest.mark.parametrize("content_type", ["text/csv", "application/x-www-form-urlencoded", "application/jsonx"])
def test_another_content_type_is_refused(api: Api, content_type: str) -> None:
    answer = api("POST", "/tasks", {"title": "x"}, content_type=content_type)

    assert answer.status == 415
    assert answer.problem["title"] == "UnsupportedMediaTypeError"
    assert "must be application/json" in answer.problem["detail"]


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(raw=st.text(st.characters()) | st.dictionaries(st.text(), st.none() | st.text() | st.integers()).map(json.dumps))
def test_no_body_whatever_makes_the_service_fail(api: Api, raw: str) -> None:
    answer = api("POST", "/tasks", raw=raw)

    assert answer.status in (201, 400)


@pytest.mark.parametrize("event", [{}, {"key1": "value1"}, {"httpMethod": "GET"}, {"path": "/tasks"}, None, [], 7])
def test_an_event_that_is_no_request_is_answered_and_not_raised(api: Api, event: Any) -> None:
    answer = api.send(event)

    assert answer.status in (404, 500)
    assert "Traceback" not in answer.raw


def test_an_unexpected_error_is_logged_not_answered(
    api: Api, dynamodb: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("the neighbour's task is 'Buy a ring'")

    monkeypatch.setattr(store.TaskStore, "get", broken)

    answer = api("GET", "/tasks/a")

    assert answer.status == 500
    assert answer.problem["title"] == "InternalError"
    assert answer.problem.keys() == {"type", "title", "status", "detail", "instance"}
    assert "ring" not in answer.raw
    assert "Traceback" not in answer.raw
    assert "Buy a ring" in caplog.text


def test_an_aws_error_is_answered_without_details(api: Api, dynamodb: Any) -> None:
    denied = refusal("AccessDeniedException", message="User: arn:aws:sts::123456789012:x is not authorized")
    with faults(dynamodb, "GetItem", denied):
        answer = api("GET", "/tasks/a")

    assert answer.status == 500
    assert "arn:" not in answer.raw


def test_a_missing_setting_is_an_internal_error(
    api: Api, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delenv("TASK_TABLE_NAME")
    forget()

    answer = api("GET", "/tasks/a")

    assert answer.status == 500
    assert "TASK_TABLE_NAME" not in answer.raw
    assert "The environment variable TASK_TABLE_NAME is missing." in caplog.text


OPERATIONS = [
    ("PutItem", "POST", "/tasks", {"title": "x"}),
    ("GetItem", "GET", "/tasks/a", None),
    ("Scan", "GET", "/tasks", None),
    ("UpdateItem", "PUT", "/tasks/a", {"title": "x", "version": 1}),
    ("DeleteItem", "DELETE", "/tasks/a", None),
]
PASSING = [
    refusal("ProvisionedThroughputExceededException"),
    refusal("ThrottlingException"),
    refusal("RequestLimitExceeded"),
    refusal("TransactionConflictException"),
    refusal("InternalServerError", 500),
    refusal("SomethingNew", 503),
    TIMEOUT,
    ConnectTimeoutError(endpoint_url="https://dynamodb"),
]


@pytest.mark.parametrize(("operation", "method", "path", "body"), OPERATIONS)
@pytest.mark.parametrize("trouble", range(len(PASSING)))
def test_a_passing_fault_is_answered_with_retry_after(
    api: Api,
    dynamodb: Any,
    naps: list[float],
    trouble: int,
    operation: str,
    method: str,
    path: str,
    body: Mapping[str, object] | None,
) -> None:
    fault = PASSING[trouble]
    repeat = fault if isinstance(fault, Exception) else lambda _: _copy(fault)
    with faults(dynamodb, operation, *[repeat] * 5) as made:
        answer = api(method, path, body)

    assert answer.status == 503
    assert answer.problem["title"] == "ThrottledError"
    assert answer.headers["Retry-After"] == "1"
    assert 1 <= len(made) <= 3


def _copy(fault: Any) -> Any:
    return response(fault.status_code, json.loads(fault.content))


def lost(call: Callable[..., object]) -> Callable[[Any], None]:
    """The operation takes effect, but its answer is lost."""
    is_inner = False

    def step(request: Any) -> None:
        nonlocal is_inner
        if not is_inner:
            is_inner = True
            call(**json.loads(request.body))
            raise TIMEOUT

    return step


def test_a_create_whose_answer_was_lost_makes_one_task(api: Api, dynamodb: Any, naps: list[float]) -> None:
    with faults(dynamodb, "PutItem", lost(dynamodb.put_item)) as made:
        answer = api("POST", "/tasks", {"title": "x"})

    assert answer.status == 201
    assert len(made) == 3
    assert [task["id"] for task in api("GET", "/tasks").body["tasks"]] == [answer.body["id"]]


def test_a_put_with_a_lost_answer_is_no_conflict(api: Api, dynamodb: Any, naps: list[float]) -> None:
    task = api.make()
    with faults(dynamodb, "UpdateItem", lost(dynamodb.update_item)):
        answer = api("PUT", f"/tasks/{task['id']}", {"title": "x", "version": 1})

    assert answer.status == 200
    assert answer.body["version"] == 2
    assert api("GET", f"/tasks/{task['id']}").body == answer.body


@pytest.mark.parametrize("operation", ["PutItem", "UpdateItem"])
def test_a_change_whose_every_answer_was_lost_is_known_to_stand(
    api: Api, dynamodb: Any, naps: list[float], operation: str
) -> None:
    """Told to come again, the caller would create the task twice, or meet its own change as a conflict."""
    task = api.make()
    send = dynamodb.put_item if operation == "PutItem" else dynamodb.update_item
    # The first try's request itself goes through.
    with faults(dynamodb, operation, lost(send), None, TIMEOUT, TIMEOUT):
        if operation == "PutItem":
            answer = api("POST", "/tasks", {"title": "x"})
        else:
            answer = api("PUT", f"/tasks/{task['id']}", {"title": "x", "version": 1})
    assert answer.status == (201 if operation == "PutItem" else 200)
    assert api("GET", f"/tasks/{answer.body['id']}").body == answer.body
    assert len(api("GET", "/tasks").body["tasks"]) == (2 if operation == "PutItem" else 1)


@pytest.mark.parametrize("operation", ["PutItem", "UpdateItem"])
def test_a_change_that_did_not_happen_is_to_be_asked_for_again(
    api: Api, dynamodb: Any, naps: list[float], operation: str
) -> None:
    task = api.make()
    with faults(dynamodb, operation, *[TIMEOUT] * 4):
        if operation == "PutItem":
            answer = api("POST", "/tasks", {"title": "x"})
        else:
            answer = api("PUT", f"/tasks/{task['id']}", {"title": "x", "version": 1})
    assert (answer.status, answer.problem["title"]) == (503, "ThrottledError")
    assert api("GET", "/tasks").body["tasks"] == [task]


def test_a_put_repeated_after_another_is_a_conflict(api: Api, dynamodb: Any, naps: list[float]) -> None:
    task = api.make()

    def overtaken(_: Any) -> Any:
        write_all([an_update(task["id"], title="Someone else's")])
        raise TIMEOUT

    with faults(dynamodb, "UpdateItem", overtaken):
        answer = api("PUT", f"/tasks/{task['id']}", {"title": "x", "version": 1})

    assert answer.status == 409


def test_a_deletion_whose_answer_was_lost_is_no_missing_task(api: Api, dynamodb: Any, naps: list[float]) -> None:
    task = api.make()
    with faults(dynamodb, "DeleteItem", lost(dynamodb.delete_item)):
        answer = api("DELETE", f"/tasks/{task['id']}")

    assert answer.status == 204
    assert stored(dynamodb, task["id"]) is None


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ({"limit": "0"}, "limit is 0, but must be a whole number from 1 to 10,000."),
        ({"limit": "10001"}, "limit"),
        ({"limit": "-1"}, "limit"),
        ({"limit": "1.5"}, "limit"),
        ({"limit": " 5"}, "limit"),
        ({"limit": "1_0"}, "limit"),
        ({"limit": "٣"}, "limit"),
        ({"limit": ""}, "limit"),
        ({"limit": "9" * 5_000}, "limit"),
        ({"limit": ["1", "2"]}, 'limit is "1, 2", but must be given once.'),
        ({"isComplete": "True"}, 'isComplete is "True", but must be true or false.'),
        ({"isComplete": "1"}, "isComplete"),
        ({"isComplete": ""}, "isComplete"),
        ({"dueBefore": "2026-05-17"}, "dueBefore"),
        ({"dueAfter": "2026-05-17T09:00:00 02:00"}, "dueAfter"),
        ({"dueAfter": ""}, "dueAfter"),
        (
            {"sort": "title"},
            'sort is "title", but there is no such field; a field must be one of isComplete, dueBefore, ',
        ),
        ({"pageToken": "x"}, "pageToken"),
        ({"pageToken": ""}, "pageToken"),
    ],
)
def test_a_query_outside_the_rules_is_refused_with_a_sentence(api: Api, query: Any, says: str) -> None:
    answer = api("GET", "/tasks", query=query)

    assert answer.status == 400
    assert answer.problem["detail"].startswith(says)
    assert answer.problem["title"] == ("InvalidPageTokenError" if "pageToken" in query else "InvalidRequestError")
    assert len(answer.raw) < 1_000


def test_tasks_are_listed_page_by_page_each_exactly_once(api: Api, dynamodb: Any) -> None:
    ids = fill(dynamodb, 25)

    pages = list(walk(api, limit="10"))

    assert [len(page) for page in pages] == [10, 10, 5]
    assert sorted(task["id"] for page in pages for task in page) == ids


def test_the_last_page_has_no_token_though_it_is_full(api: Api, dynamodb: Any) -> None:
    fill(dynamodb, 20)

    assert [len(page) for page in walk(api, limit="10")] == [10, 10]


def test_an_empty_service_lists_nothing_and_that_is_no_error(api: Api) -> None:
    assert api("GET", "/tasks").body == {"tasks": []}


def test_a_listing_is_filtered_by_completion_and_due_time(api: Api) -> None:
    tasks: dict[str, dict[str, Any]] = {
        "before": {"dueAt": "2026-05-17T08:59:59Z"},
        "at the start": {"dueAt": "2026-05-17T09:00:00Z"},
        "done": {"dueAt": "2026-05-17T10:00:00Z", "isComplete": True},
        "at the end": {"dueAt": "2026-05-17T11:00:00Z"},
        "undated": {},
    }
    for title, fields in tasks.items():
        api.make(title=title, **fields)

    def titles(**query: str) -> set[str]:
        return {task["title"] for page in walk(api, **query) for task in page}

    assert titles(dueAfter="2026-05-17T09:00:00Z") == {"at the start", "done", "at the end"}
    assert titles(dueBefore="2026-05-17T11:00:00Z") == {"before", "at the start", "done"}
    assert titles(dueAfter="2026-05-17T11:00+02:00", dueBefore="2026-05-17T11:00:00Z", isComplete="false") == {
        "at the start"
    }
    assert titles(isComplete="true") == {"done"}


def test_a_page_token_of_another_filter_is_refused(api: Api, dynamodb: Any) -> None:
    fill(dynamodb, 3)
    token = api("GET", "/tasks", query={"limit": "1", "isComplete": "false"}).body["nextPageToken"]

    assert api("GET", "/tasks", query={"isComplete": "false", "pageToken": token}).status == 200
    for query in ({}, {"isComplete": "true"}, {"isComplete": "false", "dueAfter": "2026-05-17T09:00:00Z"}):
        answer = api("GET", "/tasks", query={**query, "pageToken": token})
        assert answer.status == 400
        assert answer.problem["title"] == "InvalidPageTokenError"


def test_a_token_fits_the_same_filter_in_another_zone(api: Api, dynamodb: Any) -> None:
    fill(dynamodb, 3, dueAt="2026-05-17T09:00:00Z")
    token = api("GET", "/tasks", query={"limit": "1", "dueAfter": "2026-05-17T11:00+02:00"}).body["nextPageToken"]

    query = {"dueAfter": "2026-05-17T09:00:00Z", "pageToken": token}
    assert len(api("GET", "/tasks", query=query).body["tasks"]) == 2


def test_a_page_token_survives_a_cold_start_and_holds_no_secret(api: Api, dynamodb: Any) -> None:
    fill(dynamodb, 2)
    token = api("GET", "/tasks", query={"limit": "1"}).body["nextPageToken"]
    forget()

    assert len(api("GET", "/tasks", query={"pageToken": token}).body["tasks"]) == 1
    assert SECRET not in token


def test_a_page_of_the_largest_tasks_fits_into_an_answer(api: Api, dynamodb: Any) -> None:
    # Quotes are the worst: they are escaped in the body, and again when Lambda writes the body into its answer.
    fill(dynamodb, 1_000, title='"' * 100, detail='"' * 1_000, dueAt="2026-05-17T09:00:00Z")
    fill(dynamodb, 1_000, title="😀" * 100, detail="😀" * 1_000, dueAt="2026-05-17T09:00:00Z")

    pages = list(walk(api, limit="1000"))

    assert len(pages) > 1
    for page in pages:
        body = json.dumps({"tasks": page})
        assert len(json.dumps({"body": body})) < 6_291_456
    assert sum(len(page) for page in pages) == 1_000


def test_a_rest_listing_short_of_time_continues_by_token(api: Api, dynamodb: Any) -> None:
    ids = fill(dynamodb, 30, isComplete=False)
    api.context = Context(remaining_ms=10)

    pages = list(walk(api, limit="5", isComplete="false"))

    assert sorted(task["id"] for page in pages for task in page) == ids


def walk(api: Api, **query: str) -> Any:
    """The pages of a listing until its end."""
    token: dict[str, str] = {}
    for _ in range(1_000):
        answer = api("GET", "/tasks", query={**query, **token})
        assert answer.status == 200, answer.raw
        yield answer.body["tasks"]
        if "nextPageToken" not in answer.body:
            return
        token = {"pageToken": answer.body["nextPageToken"]}
    raise AssertionError("The listing does not end.")
