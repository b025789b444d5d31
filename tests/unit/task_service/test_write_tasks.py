"""The internal writing: outcomes, effects once, and going on through trouble."""

from __future__ import annotations

import copy
import itertools
import json
from collections.abc import Callable
from typing import Any, cast

import pytest
from botocore.exceptions import ReadTimeoutError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from common.errors import InvalidRequestError
from task_service import aws, write_tasks
from task_service.store import TaskStore
from task_service.writes import Budget, write

from .conftest import TABLE, Context, create, faults, refusal, response, stored, update, write_all

TIMEOUT = ReadTimeoutError(endpoint_url="https://dynamodb")
RUNS = itertools.count()
NOW = "2026-05-18T09:00:00Z"


def outcomes(writes: list[Any], context: Context | None = None) -> list[str]:
    return [each["outcome"] for each in write_all(writes, context)]


def field(client: Any, task_id: str, name: str) -> Any:
    found = stored(client, task_id)
    assert found is not None
    (value,) = found[name].values() if name in found else (None,)
    return value


def cancelled(*codes: str) -> Any:
    return refusal("TransactionCanceledException", CancellationReasons=[{"Code": code} for code in codes])


def lost(call: Callable[..., object], times: int = 1) -> list[Callable[[Any], None]]:
    """The first request takes effect, but its answer and those of the next `times - 1` repeats are lost."""
    sent: list[int] = []

    def apply(request: Any) -> None:
        if sent:
            return
        sent.append(1)
        call(**json.loads(request.body))
        raise TIMEOUT

    def lose(_: Any) -> None:
        raise TIMEOUT

    # The call within `apply` meets the next planned step: it is let through.
    return [apply, lambda _: None, *[lose] * (times - 1)]


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


def test_a_change_that_changes_nothing_is_not_written(dynamodb: Any) -> None:
    write_all([create("a")])

    with faults(dynamodb, "TransactWriteItems") as made:
        assert outcomes([update("a", title="Task a", dueAt=None)]) == ["unchanged"]

    assert made == []
    assert field(dynamodb, "a", "version") == "1"


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

    with faults(dynamodb, "TransactWriteItems") as made:
        answer = outcomes([create(f"t{number}") for number in range(100)])

    assert answer == ["conflict", "unchanged", *["created"] * 8] * 10
    assert [len(request["TransactItems"]) for request in made] == [100, 80]
    assert field(dynamodb, "t0", "createKey") == "theirs"


def test_nothing_is_read_for_creates_that_are_new(dynamodb: Any) -> None:
    with faults(dynamodb, "BatchGetItem") as made:
        assert outcomes([create("a"), create("b")]) == ["created", "created"]

    assert made == []


def test_a_concurrent_update_is_never_overwritten(dynamodb: Any, naps: list[float]) -> None:
    write_all([create("a"), create("b")])

    def overtaken(_: Any) -> None:
        dynamodb.update_item(
            TableName=TABLE,
            Key={"id": {"S": "a"}},
            UpdateExpression="SET title = :title, version = :version",
            ExpressionAttributeValues={":title": {"S": "By a user"}, ":version": {"N": "2"}},
        )

    with faults(dynamodb, "TransactWriteItems", overtaken):
        answer = outcomes([update("a", title="By a job"), update("b", title="By a job")])

    assert answer == ["conflict", "updated"]
    assert field(dynamodb, "a", "title") == "By a user"


def test_a_transaction_with_lost_answers_applies_once(dynamodb: Any, naps: list[float]) -> None:
    write_all([create("old")])
    sent = [create("new"), update("old", title="New")]

    with faults(dynamodb, "TransactWriteItems", *lost(dynamodb.transact_write_items, times=3)):
        answer = write_all(sent)

    assert answer == [
        {"id": "new", "outcome": "unchanged", "repeated": True},
        {"id": "old", "outcome": "unchanged", "repeated": True},
    ]
    assert (field(dynamodb, "new", "version"), field(dynamodb, "old", "version")) == ("1", "2")
    assert outcomes(sent) == ["unchanged", "unchanged"]


def test_a_repeat_by_the_sdk_carries_the_same_request_token(dynamodb: Any, naps: list[float]) -> None:
    with faults(dynamodb, "TransactWriteItems", TIMEOUT, None) as made:
        assert outcomes([create("a")]) == ["created"]

    assert made[0]["ClientRequestToken"] == made[1]["ClientRequestToken"]


def test_keys_that_were_not_processed_are_asked_for_again(dynamodb: Any, naps: list[float]) -> None:
    write_all([create(f"t{number}") for number in range(4)])
    keys = [{"id": {"S": f"t{number}"}} for number in range(4)]
    partial = response(
        200,
        {"Responses": {TABLE: [stored(dynamodb, "t0")]}, "UnprocessedKeys": {TABLE: {"Keys": keys[1:]}}},
    )
    nothing = response(200, {"Responses": {TABLE: []}, "UnprocessedKeys": {TABLE: {"Keys": keys[1:]}}})

    with faults(dynamodb, "BatchGetItem", partial, nothing) as made:
        answer = outcomes([update(f"t{number}", title="New") for number in range(4)])

    assert answer == ["updated"] * 4
    assert [len(request["RequestItems"][TABLE]["Keys"]) for request in made] == [4, 3, 3]
    assert len(naps) == 2


def test_a_cancelled_transaction_is_sent_again_in_part(dynamodb: Any, naps: list[float]) -> None:
    with faults(dynamodb, "TransactWriteItems", cancelled("None", "TransactionConflict", "ThrottlingError")) as made:
        assert outcomes([create("a"), create("b"), create("c")]) == ["created"] * 3

    assert len(naps) == 1
    assert [len(request["TransactItems"]) for request in made] == [3, 3]


def test_transactions_get_smaller_while_they_are_throttled(dynamodb: Any, naps: list[float]) -> None:
    busy = [cancelled(*["ThrottlingError"] * size) for size in (100, 50)]
    with faults(dynamodb, "TransactWriteItems", *busy) as made:
        answer = outcomes([create(f"t{number}") for number in range(100)])

    assert answer == ["created"] * 100
    assert [len(request["TransactItems"]) for request in made] == [100, 50, 25, 25, 25, 25]


def test_a_cancellation_without_reasons_is_retried_in_bounds(dynamodb: Any, naps: list[float]) -> None:
    none_given = [refusal("TransactionCanceledException") for _ in range(3)]
    none_meant = [cancelled("None") for _ in range(100)]

    with faults(dynamodb, "TransactWriteItems", *none_given):
        assert outcomes([create("a")]) == ["created"]
    with faults(dynamodb, "TransactWriteItems", *none_meant):
        assert outcomes([create("b")]) == ["throttled"]


def test_an_unexplained_refusal_is_retried_in_bounds(dynamodb: Any, naps: list[float]) -> None:
    with faults(dynamodb, "TransactWriteItems", *[cancelled("ConditionalCheckFailed") for _ in range(100)]) as made:
        assert outcomes([create("a")]) == ["throttled"]

    assert len(made) == 9


def test_an_item_that_dynamodb_refuses_is_invalid_alone(dynamodb: Any) -> None:
    with faults(dynamodb, "TransactWriteItems", cancelled("ValidationError", "None")):
        assert outcomes([create("a"), create("b")]) == ["invalid", "created"]


def test_lasting_throttling_ends_in_throttled_outcomes(dynamodb: Any, naps: list[float]) -> None:
    with faults(dynamodb, "TransactWriteItems", *[cancelled("ThrottlingError") for _ in range(100)]) as made:
        (answer,) = write_all([create("a")])

    assert answer["outcome"] == "throttled"
    assert answer["error"]["name"] == "ThrottledError"
    assert len(made) == 9
    assert len(naps) == 8
    assert all(0 <= nap <= Budget.LONGEST for nap in naps)
    assert stored(dynamodb, "a") is None


def test_throttling_while_reading_is_bounded_too(dynamodb: Any, naps: list[float]) -> None:
    write_all([create("a")])
    throttles = [refusal("ProvisionedThroughputExceededException") for _ in range(100)]

    with faults(dynamodb, "BatchGetItem", *throttles) as made:
        assert outcomes([update("a", title="x")]) == ["throttled"]

    assert len(made) <= 27


def test_outcomes_survive_the_end_of_the_budget(dynamodb: Any, naps: list[float]) -> None:
    write_all([create("a")])

    with faults(dynamodb, "TransactWriteItems", *[cancelled("ThrottlingError") for _ in range(100)]):
        assert outcomes([update("a", title="Task a"), create("b", title=""), create("c")]) == [
            "unchanged",
            "invalid",
            "throttled",
        ]


def test_no_call_is_begun_that_the_function_has_no_time_for(dynamodb: Any, naps: list[float]) -> None:
    context = Context(remaining_ms=aws.LONGEST_CALL_SECONDS * 1_000 - 1)

    with faults(dynamodb, "TransactWriteItems") as made:
        assert outcomes([create("a")], context) == ["throttled"]

    assert made == []


def test_the_budget_ends_when_the_time_runs_out_between_pauses(dynamodb: Any) -> None:
    context = Context(remaining_ms=26_000)

    def age(seconds: float) -> None:
        context.remaining_ms -= max(1, int(seconds * 1_000))

    budget = Budget(
        has_time=aws.time_for_one_more_call(context),  # type: ignore[arg-type]
        pauses=1_000_000,
        sleep=age,
        draw=lambda: 1.0,
    )
    with faults(dynamodb, "TransactWriteItems", *[cancelled("ThrottlingError") for _ in range(100)]) as made:
        (outcome,) = write([create("a")], TaskStore(dynamodb, TABLE), now=NOW, budget=budget)

    assert outcome.outcome == "throttled"
    assert 1 < len(made) < 10


def test_pauses_grow_to_a_bound_and_are_drawn_below_it() -> None:
    naps: list[float] = []
    budget = Budget(has_time=lambda: True, pauses=8, sleep=naps.append, draw=lambda: 1.0)

    assert [budget.pause() for _ in range(9)] == [True] * 8 + [False]
    assert naps == [0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 2.0]
    assert Budget(has_time=lambda: False, sleep=naps.append).pause() is False
    assert len(naps) == 8
    lucky = Budget(has_time=lambda: True, sleep=naps.append, draw=lambda: 0.25)
    lucky.pause()
    assert naps[-1] == 0.0125


@pytest.mark.parametrize("code", ["AccessDeniedException", "ResourceNotFoundException", "ValidationException"])
def test_a_lasting_error_is_raised_not_throttled(dynamodb: Any, code: str) -> None:
    with (
        faults(dynamodb, "TransactWriteItems", refusal(code)),
        pytest.raises(dynamodb.exceptions.ClientError, match=code),
    ):
        write_all([create("a")])


def test_many_writes_to_one_task_take_effect_in_their_order(dynamodb: Any) -> None:
    sent = [
        create("a"),
        *[update("a", version=number, key=f"k{number}", title=f"V{number}") for number in range(1, 50)],
    ]

    assert outcomes(sent) == ["created", *["updated"] * 49]
    assert (field(dynamodb, "a", "version"), field(dynamodb, "a", "title")) == ("50", "V49")


def test_a_write_behind_a_throttled_one_is_throttled_too(dynamodb: Any, naps: list[float]) -> None:
    with faults(dynamodb, "TransactWriteItems", *[cancelled("ThrottlingError") for _ in range(9)]):
        answer = outcomes([create("a"), update("a", title="New"), create("b"), create("c", title="")])

    assert answer == ["throttled", "throttled", "throttled", "invalid"]


def test_a_hundred_equal_creates_make_one_task(dynamodb: Any, naps: list[float]) -> None:
    assert outcomes([create("a")] * 100) == ["created", *["unchanged"] * 99]
    assert naps == []


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
    naps: list[float] = []

    def attempt() -> list[str]:
        plan = data.draw(st.lists(st.sampled_from(["through", "timeout", "throttle", "lost"]), max_size=4))
        steps: list[Any] = []
        for step in plan:
            if step == "lost":
                steps += lost(dynamodb.transact_write_items)
            else:
                fault = {"through": None, "timeout": TIMEOUT, "throttle": refusal("ThrottlingException")}[step]
                steps.append(fault)
        budget = Budget(has_time=lambda: True, sleep=naps.append)
        with faults(dynamodb, "TransactWriteItems", *steps):
            decided = write(sent, TaskStore(dynamodb, TABLE), now=NOW, budget=budget)
        return [each.outcome for each in decided]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("time.sleep", naps.append)
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
