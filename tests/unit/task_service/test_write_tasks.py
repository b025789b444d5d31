"""The internal writing: outcomes, effects once, and going on through trouble."""

from __future__ import annotations

import copy
import itertools
import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast

import pytest
from botocore.exceptions import ReadTimeoutError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from common.errors import InvalidRequestError
from task_service import aws, write_tasks
from task_service.rate_limiter import FASTEST
from task_service.store import MOST_CREATIONS, TaskStore
from task_service.writes import THREADS, Writer
from tests.support import statements
from tests.support.stand_ins import PassingTime

from .conftest import TABLE, Context, create, faults, refusal, stored, update, write_all

TIMEOUT = ReadTimeoutError(endpoint_url="https://dynamodb")
RUNS = itertools.count()
METHODS = {"BatchExecuteStatement": "batch_execute_statement", "PutItem": "put_item", "UpdateItem": "update_item"}
NOW = "2026-05-18T09:00:00Z"


@pytest.fixture
def dynamodb(dynamodb: Any) -> Any:
    """The client that writes, to stand in the way of."""
    return aws.dynamodb_without_retries()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> PassingTime:
    """The rate limiter's time."""
    passing = PassingTime()
    monkeypatch.setattr("task_service.rate_limiter.time", passing)
    return passing


def outcomes(writes: list[Any], context: Context | None = None) -> list[str]:
    return [each["outcome"] for each in write_all(writes, context)]


def field(client: Any, task_id: str, name: str) -> Any:
    found = stored(client, task_id)
    assert found is not None
    (value,) = found[name].values() if name in found else (None,)
    return value


def throttles(count: int = 1_000) -> list[Any]:
    return [refusal("ThrottlingException") for _ in range(count)]


def lost(operation: str) -> Callable[[Any], None]:
    """The request takes effect, past the client that has the faults, but its answer is lost."""

    def apply(request: Any) -> None:
        getattr(aws.dynamodb(), operation)(**json.loads(request.body))
        raise TIMEOUT

    return apply


def test_a_created_task_has_the_given_time(dynamodb: Any) -> None:
    sent = create("a", detail="More", dueAt="2026-05-17T11:00+02:00", isComplete=True)

    assert write_all([sent]) == [{"id": "a", "outcome": "created"}]

    assert stored(dynamodb, "a") == {
        "id": {"S": "a"},
        "title": {"S": "Task a"},
        "detail": {"S": "More"},
        "dueAt": {"S": "2026-05-17T09:00:00Z"},
        "isComplete": {"BOOL": True},
        "createdAt": {"S": "2026-05-17T09:00:00Z"},
        "updatedAt": {"S": "2026-05-17T09:00:00Z"},
        "version": {"N": "1"},
        "createKey": {"S": "create-a"},
        "effectKey": {"S": "create-a"},
    }


def test_an_update_changes_the_named_fields_alone(dynamodb: Any) -> None:
    write_all([create("a", detail="More", dueAt="2026-05-17T09:00:00Z")])

    assert write_all([update("a", title="New", dueAt=None)]) == [{"id": "a", "outcome": "updated"}]

    task = stored(dynamodb, "a")
    assert task is not None
    assert (task["title"], task["detail"], task["version"]) == ({"S": "New"}, {"S": "More"}, {"N": "2"})
    assert "dueAt" not in task
    assert task["createKey"] == {"S": "create-a"}


def test_outcomes_are_in_the_order_of_the_writes(dynamodb: Any) -> None:
    write_all([create("old"), create("same", dueAt="2026-05-17T09:00:00Z")])

    assert write_all(
        [
            update("missing", title="x"),
            create("new"),
            create("old", key="another"),
            update("old", title="New"),
            create("bad", title=""),
            update("same", dueAt="2026-05-17T11:00:00+02:00", isComplete=False, detail=None),
            update("same", title="x", version=7),
        ]
    ) == [
        {
            "id": "missing",
            "outcome": "missing",
            "error": {"name": "TaskNotFoundError", "message": 'No task has the id "missing".'},
        },
        {"id": "new", "outcome": "created"},
        {
            "id": "old",
            "outcome": "conflict",
            "error": {
                "name": "TaskExistsError",
                "message": 'A task with the id "old" exists already, and this write did not create it.',
            },
        },
        {"id": "old", "outcome": "updated"},
        {
            "id": "bad",
            "outcome": "invalid",
            "error": {
                "name": "InvalidTaskError",
                "message": 'title is "", but must be a text of 1 to 100 characters.',
            },
        },
        {"id": "same", "outcome": "unchanged"},
        {
            "id": "same",
            "outcome": "conflict",
            "error": {
                "name": "VersionConflictError",
                "message": 'version is 7, but the task "same" is at version 1: '
                "read it again, apply the change to that, and send its version.",
            },
        },
    ]


@pytest.mark.parametrize("given", [{"title": "Task a"}, {"dueAt": None}, {"title": "Task a", "detail": "More"}])
def test_a_change_that_changes_nothing_is_not_written(dynamodb: Any, given: dict[str, Any]) -> None:
    write_all([create("a", detail="More")])
    before = stored(dynamodb, "a")

    assert write_all([update("a", **given)]) == [{"id": "a", "outcome": "unchanged"}]

    assert stored(dynamodb, "a") == before


@pytest.mark.parametrize("given", [{"detail": None}, {"title": "Task a", "dueAt": "2026-05-17T09:00:00Z"}])
def test_a_change_of_one_field_of_many_is_written(dynamodb: Any, given: dict[str, Any]) -> None:
    write_all([create("a", detail="More")])

    assert outcomes([update("a", **given)]) == ["updated"]


def test_repeated_writes_are_unchanged_and_take_effect_once(dynamodb: Any) -> None:
    sent = [create("a"), create("b"), update("a", title="New")]
    assert outcomes(sent) == ["created", "created", "updated"]
    before = copy.deepcopy([stored(dynamodb, task_id) for task_id in "ab"])

    again = write_all(sent)

    assert [each["outcome"] for each in again] == ["unchanged"] * 3
    assert all(each["repeated"] for each in again)
    assert [stored(dynamodb, task_id) for task_id in "ab"] == before


def test_a_repeated_create_keeps_later_changes(dynamodb: Any) -> None:
    write_all([create("a")])
    write_all([update("a", title="By another job", key="another-job")])

    assert outcomes([create("a")]) == ["unchanged"]
    assert field(dynamodb, "a", "title") == "By another job"


def test_a_hundred_creates_of_which_some_exist_create_the_others(dynamodb: Any) -> None:
    write_all([create(f"t{number}", key="theirs") for number in range(0, 100, 10)])
    write_all([create(f"t{number}") for number in range(1, 100, 10)])

    with faults(dynamodb, "BatchExecuteStatement") as made, faults(dynamodb, "PutItem") as puts:
        answer = outcomes([create(f"t{number}") for number in range(100)])

    assert answer == ["conflict", "unchanged", *["created"] * 8] * 10
    # Only what the statements did not create is looked at by itself.
    assert ([len(request["Statements"]) for request in made], len(puts)) == ([MOST_CREATIONS] * 4, 20)
    assert field(dynamodb, "t0", "createKey") == "theirs"


def test_nothing_is_read_for_writes(dynamodb: Any) -> None:
    write_all([create("old")])
    with faults(dynamodb, "BatchGetItem") as batches, faults(dynamodb, "GetItem") as reads:
        assert outcomes([create("a"), create("old"), update("old", title="New"), update("gone", title="x")]) == [
            "created",
            "unchanged",
            "updated",
            "missing",
        ]

    assert batches == reads == []


def test_a_single_creation_is_one_request_with_a_condition(dynamodb: Any) -> None:
    """A transaction would take two write units a task."""
    with faults(dynamodb, "TransactWriteItems") as transactions, faults(dynamodb, "PutItem") as puts:
        outcomes([create("a")])

    assert transactions == []
    assert [request["ConditionExpression"] for request in puts] == ["attribute_not_exists(#id)"]


@pytest.mark.parametrize("code", ["DuplicateItem", "ThrottlingError", "InternalServerError", "ValidationError"])
def test_what_a_batch_does_not_create_is_written_by_itself(
    dynamodb: Any, monkeypatch: pytest.MonkeyPatch, code: str
) -> None:
    codes = iter([None, code, None, code, None])
    monkeypatch.setattr(statements, "refuse", lambda: next(codes))

    with faults(dynamodb, "PutItem") as puts:
        assert outcomes([create(name) for name in "abcde"]) == ["created"] * 5

    assert [request["Item"]["id"]["S"] for request in puts] == ["b", "d"]


@pytest.mark.parametrize("code", ["ThrottlingError", "RequestLimitExceeded", "ProvisionedThroughputExceeded"])
def test_a_throttled_statement_slows_the_writer_down(dynamodb: Any, monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    codes = iter([None, code, code])
    monkeypatch.setattr(statements, "refuse", lambda: next(codes))
    writer = Writer(TaskStore(dynamodb, TABLE))

    writer.write([create(name) for name in "abc"], now=NOW, seconds_left=lambda: 60.0)

    assert FASTEST / 2 < writer._limiter.rate < FASTEST / 2 + 1


@pytest.mark.parametrize("fault", [refusal("ThrottlingException"), TIMEOUT, refusal("InternalServerError", 500)])
def test_a_batch_that_fails_as_a_whole_is_written_one_by_one(dynamodb: Any, clock: PassingTime, fault: Any) -> None:
    with faults(dynamodb, "BatchExecuteStatement", fault) as made, faults(dynamodb, "PutItem") as puts:
        assert outcomes([create("a"), create("b")]) == ["created"] * 2

    assert (len(made), len(puts)) == (1, 2)


def test_a_batch_with_a_lost_answer_creates_once(dynamodb: Any, clock: PassingTime) -> None:
    with faults(dynamodb, "BatchExecuteStatement", lost("batch_execute_statement")):
        answer = write_all([create("a"), create("b")])

    assert [(each["outcome"], each["repeated"]) for each in answer] == [("unchanged", True)] * 2
    assert [field(dynamodb, name, "version") for name in "ab"] == ["1", "1"]


def test_a_batch_never_overwrites_a_task(dynamodb: Any) -> None:
    write_all([create("a"), create("b")])
    write_all([update("a", title="By a user")])

    assert outcomes([create("a", key="other"), create("b", key="other"), create("c")]) == ["conflict"] * 2 + ["created"]
    assert field(dynamodb, "a", "title") == "By a user"


def test_a_concurrent_update_is_never_overwritten(dynamodb: Any) -> None:
    write_all([create("a"), create("b")])

    def overtaken(_: Any) -> None:
        aws.dynamodb().update_item(
            TableName=TABLE,
            Key={"id": {"S": "a"}},
            UpdateExpression="SET title = :title, version = :version",
            ExpressionAttributeValues={":title": {"S": "By a user"}, ":version": {"N": "2"}},
        )

    with faults(dynamodb, "UpdateItem", overtaken):
        answer = outcomes([update("a", title="By a job"), update("b", title="By a job")])

    assert answer == ["conflict", "updated"]
    assert field(dynamodb, "a", "title") == "By a user"


def test_a_write_with_lost_answers_applies_once(dynamodb: Any, clock: PassingTime) -> None:
    write_all([create("old")])
    sent = [create("new"), update("old", title="New")]

    with (
        faults(dynamodb, "PutItem", lost("put_item"), TIMEOUT, TIMEOUT),
        faults(dynamodb, "UpdateItem", lost("update_item"), TIMEOUT),
    ):
        answer = write_all(sent)

    assert answer == [
        {"id": "new", "outcome": "unchanged", "repeated": True},
        {"id": "old", "outcome": "unchanged", "repeated": True},
    ]
    assert (field(dynamodb, "new", "version"), field(dynamodb, "old", "version")) == ("1", "2")
    assert outcomes(sent) == ["unchanged", "unchanged"]


def test_a_throttled_write_cancels_no_other(dynamodb: Any, clock: PassingTime) -> None:
    whole = faults(dynamodb, "BatchExecuteStatement", *throttles(1))
    with whole, faults(dynamodb, "PutItem", None, *throttles(2)) as made:
        assert outcomes([create("a"), create("b"), create("c")]) == ["created"] * 3

    assert [request["Item"]["id"]["S"] for request in made] == ["a", "b", "b", "b", "c"]


def test_an_item_that_dynamodb_refuses_is_invalid_alone(dynamodb: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    codes = iter(["ValidationError", None])
    monkeypatch.setattr(statements, "refuse", lambda: next(codes))

    with faults(dynamodb, "PutItem", refusal("ValidationException")):
        assert outcomes([create("a"), create("b")]) == ["invalid", "created"]


def test_lasting_throttling_ends_in_throttled_outcomes(dynamodb: Any, clock: PassingTime) -> None:
    with faults(dynamodb, "PutItem", *throttles()) as made:
        (answer,) = write_all([create("a")], Context(clock.remaining(60)))

    assert answer["outcome"] == "throttled"
    assert answer["error"]["name"] == "ThrottledError"
    assert stored(dynamodb, "a") is None
    # It is tried for as long as there is time, and not more often than the table can be asked.
    assert 50 < clock.passed <= 60 - aws.LONGEST_ATTEMPT_SECONDS
    assert 40 < len(made) < 120


def test_throttling_that_passes_is_outwaited(dynamodb: Any, clock: PassingTime) -> None:
    with faults(dynamodb, "PutItem", *throttles(40)) as made:
        assert outcomes([create("a")], Context(clock.remaining(60))) == ["created"]

    assert len(made) == 41


def test_a_call_starts_at_the_rate_that_the_last_one_found(dynamodb: Any, clock: PassingTime) -> None:
    with faults(dynamodb, "PutItem", *throttles(8)):
        outcomes([create("a")], Context(clock.remaining(60)))
    clock.naps.clear()

    outcomes([create("b"), create("c")], Context(clock.remaining(60)))

    assert max(clock.naps) > 0.03


def test_outcomes_survive_the_end_of_the_time(dynamodb: Any, clock: PassingTime) -> None:
    write_all([create("a")])

    with faults(dynamodb, "PutItem", *throttles()):
        assert outcomes(
            [update("a", title="Task a"), create("b", title=""), create("c")], Context(clock.remaining(10))
        ) == ["unchanged", "invalid", "throttled"]


def test_no_call_is_begun_that_the_function_has_no_time_for(dynamodb: Any) -> None:
    context = Context(remaining_ms=aws.LONGEST_ATTEMPT_SECONDS * 1_000 - 1)

    with faults(dynamodb, "PutItem") as made:
        assert outcomes([create("a")], context) == ["throttled"]

    assert made == []


def test_writes_to_many_tasks_are_under_way_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("task_service.writes.ThreadPoolExecutor", ThreadPoolExecutor)
    together = threading.Barrier(THREADS)

    class Store:
        def write(self, *_: object) -> None:
            together.wait(timeout=10)

    answer = Writer(cast("TaskStore", Store())).write(
        [update(f"t{number}", title="x") for number in range(2 * THREADS)], now=NOW, seconds_left=lambda: 60.0
    )

    assert [each.outcome for each in answer] == ["updated"] * 2 * THREADS


def test_batches_are_under_way_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("task_service.writes.ThreadPoolExecutor", ThreadPoolExecutor)
    together = threading.Barrier(4)

    class Store:
        def create_many(self, creations: list[Any]) -> list[None]:
            together.wait(timeout=10)
            return [None] * len(creations)

    answer = Writer(cast("TaskStore", Store())).write(
        [create(f"t{number}") for number in range(4 * MOST_CREATIONS)], now=NOW, seconds_left=lambda: 60.0
    )

    assert [each.outcome for each in answer] == ["created"] * 4 * MOST_CREATIONS


@pytest.mark.parametrize("code", ["AccessDeniedException", "ResourceNotFoundException"])
def test_a_lasting_error_is_raised_not_throttled(dynamodb: Any, code: str) -> None:
    with faults(dynamodb, "PutItem", refusal(code)), pytest.raises(dynamodb.exceptions.ClientError, match=code):
        write_all([create("a")])


def test_many_writes_to_one_task_take_effect_in_their_order(dynamodb: Any) -> None:
    sent = [
        create("a"),
        *[update("a", version=number, key=f"k{number}", title=f"V{number}") for number in range(1, 50)],
    ]

    assert outcomes(sent) == ["created", *["updated"] * 49]
    assert (field(dynamodb, "a", "version"), field(dynamodb, "a", "title")) == ("50", "V49")


def test_a_write_behind_a_throttled_one_is_throttled_too(dynamodb: Any, clock: PassingTime) -> None:
    batches = faults(dynamodb, "BatchExecuteStatement", *throttles())
    with batches, faults(dynamodb, "PutItem", *throttles()), faults(dynamodb, "UpdateItem") as updates:
        answer = outcomes(
            [create("a"), update("a", title="New"), create("b"), create("c", title="")], Context(clock.remaining(10))
        )

    assert answer == ["throttled", "throttled", "throttled", "invalid"]
    assert updates == []


def test_a_write_behind_a_late_success_is_throttled_too(dynamodb: Any, clock: PassingTime) -> None:
    """The first update has its last attempt lost: the next would conflict with what is not known yet."""
    write_all([create("a")])
    sent = [update("a", title="1", key="k1"), update("a", version=2, title="2", key="k2")]
    # The clock is no promise: what counts is that the first is undecided.
    remaining = iter([8_000, 0, 60_000, 60_000])

    with faults(dynamodb, "UpdateItem", lost("update_item")):
        assert outcomes(sent, Context(lambda: next(remaining))) == ["throttled", "throttled"]

    assert [each["outcome"] for each in write_all(sent)] == ["unchanged", "updated"]


def test_a_hundred_equal_creates_make_one_task(dynamodb: Any) -> None:
    assert outcomes([create("a")] * 100) == ["created", *["unchanged"] * 99]


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_effects_apply_once_under_repeats_and_losses(dynamodb: Any, data: st.DataObject) -> None:
    """Against a plain dictionary: each call may lose its answer after taking effect, and is then sent again."""
    run = f"run{next(RUNS)}"
    sent = [create(f"{run}-{number}") for number in range(data.draw(st.integers(1, 6)))]
    sent += [
        update(each["id"], title="New", key=f"change-{each['id']}")
        for each in sent
        if data.draw(st.booleans(), label="is updated")
    ]

    def planned(operation: str) -> Any:
        steps = {"through": None, "timeout": TIMEOUT, "throttle": refusal("ThrottlingException"), "lost": None}
        plan = data.draw(st.lists(st.sampled_from(list(steps)), max_size=4))
        method = METHODS[operation]
        return faults(dynamodb, operation, *[lost(method) if step == "lost" else steps[step] for step in plan])

    def attempt() -> list[str]:
        with planned("BatchExecuteStatement"), planned("PutItem"), planned("UpdateItem"):
            decided = Writer(TaskStore(dynamodb, TABLE)).write(sent, now=NOW, seconds_left=lambda: 60.0)
        return [each.outcome for each in decided]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("task_service.rate_limiter.time", PassingTime())
        attempts = [attempt() for _ in range(data.draw(st.integers(1, 3)))]

    assert set(attempts[-1]) <= {"created", "updated", "unchanged"}
    for each in sent:
        updated = any(other["op"] == "update" and other["id"] == each["id"] for other in sent)
        assert field(dynamodb, each["id"], "version") == ("2" if updated else "1")


@pytest.mark.parametrize(
    ("sent", "says"),
    [
        (7, "write is 7, but must be an object."),
        ({}, "op is missing"),
        ({"op": "delete"}, 'op is "delete", but must be one of "create" and "update".'),
        ({"op": ["create"]}, 'op is ["create"]'),
        ({"op": {}}, "op is {}"),
        ({**create("a"), "id": "a b"}, 'id is "a b", but must be 1 to 64 characters'),
        ({**create("a"), "id": "x" * 65}, "id is "),
        ({**create("a"), "id": 7}, "id is 7"),
        ({**create("a"), "id": "\ud800"}, "id is "),
        ({**create("a"), "key": "x" * 257}, "key is "),
        ({**create("a"), "key": ""}, 'key is ""'),
        ({**create("a"), "key": "a b"}, 'key is "a b"'),
        ({**create("a"), "key": None}, "key is null"),
        ({**create("a"), "createdAt": "today"}, 'createdAt is "today"'),
        ({"op": "create", "id": "a", "key": "k", "task": {"title": "x"}}, "createdAt is missing"),
        ({**create("a"), "version": 1}, "version is 1, but there is no such field"),
        ({**create("a"), "task": None}, "task is null, but must be an object with title"),
        ({**create("a"), "task": {"title": "x", "id": "y"}}, 'id is "y", but there is no such field'),
        (update("a"), "changes is {}, but must be an object with a field of a task"),
        ({**update("a", title="x"), "changes": []}, "changes is []"),
        (update("a", title=None), "title is null"),
        (update("a", isComplete=None), "isComplete is null"),
        (update("a", version=0, title="x"), "version is 0"),
        (update("a", dueAt="soon"), 'dueAt is "soon"'),
        (
            update("a", createdAt="2026-05-17T09:00:00Z"),
            'createdAt is "2026-05-17T09:00:00Z", but there is no such field',
        ),
        ({**update("a", title="x"), "version": True}, "version is true"),
        ({**update("a", title="x"), "task": {}}, "task is {}, but there is no such field"),
    ],
)
def test_an_invalid_write_is_an_outcome_of_its_own(dynamodb: Any, sent: Any, says: str) -> None:
    wrong, good = write_all([sent, create("good")])

    assert wrong["outcome"] == "invalid"
    assert wrong["error"]["message"].startswith(says)
    assert good == {"id": "good", "outcome": "created"}
    json.dumps(wrong, ensure_ascii=False).encode()


@pytest.mark.parametrize(
    ("event", "says"),
    [
        ({}, "writes is missing, but must be a list of at most 100 writes."),
        ({"writes": {}}, "writes is {}"),
        (
            {"writes": [create("a")] * 101},
            'writes is "a list of 101", but must be a list of at most 100 writes.',
        ),
        ({"writes": [], "more": 1}, "more is 1, but there is no such field"),
        ([], "event is []"),
    ],
)
def test_a_wrong_event_is_refused_as_a_whole(dynamodb: Any, event: Any, says: str) -> None:
    with pytest.raises(InvalidRequestError) as refused:
        write_tasks.handler(event, cast("Any", Context()))

    assert str(refused.value).startswith(says)


def test_no_writes_are_no_error(dynamodb: Any) -> None:
    assert write_all([]) == []
