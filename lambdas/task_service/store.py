"""The table of tasks. Nothing else in the project calls DynamoDB."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from json.encoder import encode_basestring, encode_basestring_ascii
from typing import TYPE_CHECKING, Any, Final, cast

from boto3.dynamodb.types import TypeSerializer

from common.task import Task
from task_service.aws import translated
from task_service.errors import TaskNotFoundError, ThrottledError, VersionConflictError
from task_service.filters import EVERYTHING, TaskFilter

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

    from task_service.tokens import Listing

MOST_ITEMS: Final = 100
"""Items in one BatchGetItem:
https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/ServiceQuotas.html"""

MOST_CREATIONS: Final = 25
"""Statements in one BatchExecuteStatement:
https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_BatchExecuteStatement.html"""

MOST_SCANS: Final = 30
"""Scan pages that one call reads before it answers with what it has; at 1 MB a page a few seconds."""

MOST_PAGE_BYTES: Final = 3_000_000
"""Bytes of the tasks in one answer, as they are when they are escaped in it. It stays far below Lambda's 6 MB."""

LARGEST_SCAN: Final = 1_000_000
"""Items that one scan page asks for at the most; DynamoDB's Limit is a 32-bit integer."""

_SCAN_GROWTH: Final = 4
_attribute: Final[Callable[[Any], Any]] = TypeSerializer().serialize

Fields = Mapping[str, str | bool | None]
"""New values of a task's fields by their names in JSON; None removes a field."""


@dataclass(frozen=True, slots=True)
class Stored:
    """A task with the idempotency keys of its effects, which are internal.

    `create_key` is the key of the internal write that created it, `effect_key` that of the last one that changed it.
    """

    task: Task
    create_key: str | None = None
    effect_key: str | None = None


@dataclass(frozen=True, slots=True)
class Page:
    """Some tasks of a listing, each in compact JSON. `last_id` says where to go on; None: the listing has ended."""

    lines: list[str]
    last_id: str | None


@dataclass(frozen=True, slots=True)
class Create:
    """Write the task if there is none with its id. `key` is the effect's idempotency key; a user's write has none."""

    task: Task
    key: str | None = None

    @property
    def task_id(self) -> str:
        return self.task.id


@dataclass(frozen=True, slots=True)
class Update:
    """Give the task these fields if it is at `version`, and with a key only if that changes any of them."""

    task_id: str
    version: int
    fields: Fields
    key: str | None = None


@dataclass(eq=False)
class RefusedError(Exception):
    """The condition of a write failed on `stored`, which is there instead; None if there is nothing.

    `is_repeated`: the SDK sent the request more than once, so that it may have failed on its own effect.
    """

    stored: Stored | None
    is_repeated: bool


class TaskStore:
    """Tasks by id. Every method raises ThrottledError when it can succeed later."""

    def __init__(self, client: "DynamoDBClient", table: str) -> None:
        self._client = client
        self._table = table

    def write(self, effect: Create | Update, now: str) -> Task:
        """Apply one effect and return the task with it.

        Raises RefusedError, and ThrottledError, which leaves open whether the effect is applied.
        """
        request: dict[str, Any] = {"TableName": self._table, "ReturnValuesOnConditionCheckFailure": "ALL_OLD"}
        with translated():
            try:
                if isinstance(effect, Create):
                    self._client.put_item(**request, **_creation(effect))
                    return effect.task
                answer = self._client.update_item(**request, **_change(effect, now), ReturnValues="ALL_NEW")
                return _stored(answer["Attributes"]).task
            except self._client.exceptions.ConditionalCheckFailedException as refused:
                response: Any = refused.response
                stored = _stored(response["Item"]) if response.get("Item") else None
                raise RefusedError(stored, _is_repeated(response)) from None

    def create_many(self, creations: Sequence[Create]) -> list[str | None]:
        """Create up to MOST_CREATIONS tasks of different ids in one request: None for each that is, else why it is not.

        The reason is one of DynamoDB's codes. `write` finds out more: the task may be there by an earlier attempt.
        Raises ThrottledError, which leaves open which of them are created.
        """
        statements = [_insertion(self._table, each) for each in creations]
        with translated():
            answers = self._client.batch_execute_statement(Statements=statements)["Responses"]
        return [answer["Error"]["Code"] if "Error" in answer else None for answer in answers]

    def create(self, task: Task) -> None:
        """Store a new task under an id that is unique (a random UUID): whatever has it is this task."""
        self._write_for_user(Create(task), task.created_at, {"id": task.id})

    def replace(self, task_id: str, *, version: int, fields: Fields, now: str) -> Task:
        """Give the task these fields if it is at `version`, and return it.

        Raises TaskNotFoundError, VersionConflictError.
        """
        changed = {**fields, "version": version + 1, "updatedAt": now}
        try:
            return self._write_for_user(Update(task_id, version, fields), now, changed)
        except RefusedError as refused:
            if refused.stored is None:
                raise TaskNotFoundError(task_id) from None
            raise VersionConflictError(task_id, given=version, current=refused.stored.task.version) from None

    def _write_for_user(self, effect: Create | Update, now: str, fields: Mapping[str, Any]) -> Task:
        """Apply an effect without a key, which these fields of the task show; raises as `write` does.

        A user's retry after a lost answer would create a second task, or conflict with its own change. So the SDK's
        repeat of a write may meet its own effect, and if every answer was lost, a read decides.
        """
        try:
            return self.write(effect, now)
        except RefusedError as refused:
            error: Exception = refused
            found = refused.stored.task if refused.stored is not None and refused.is_repeated else None
        except ThrottledError as throttled:
            error, found = throttled, None
            with suppress(TaskNotFoundError, ThrottledError):
                # protection: a-look-after-a-lost-write
                found = self.get(effect.task_id)
        if found is None or not found.has(fields):
            raise error
        return found

    def get(self, task_id: str) -> Task:
        """Raises TaskNotFoundError."""
        with translated():
            answer = self._client.get_item(TableName=self._table, Key={"id": {"S": task_id}}, ConsistentRead=True)
        if "Item" not in answer:
            raise TaskNotFoundError(task_id)
        return _stored(answer["Item"]).task

    def delete(self, task_id: str) -> None:
        """Delete the task, at any version. Raises TaskNotFoundError."""
        with translated():
            answer = self._client.delete_item(TableName=self._table, Key={"id": {"S": task_id}}, ReturnValues="ALL_OLD")
        # After a repeat by the SDK it may have been deleted by this call; it is gone, as was asked.
        if not answer.get("Attributes") and not _is_repeated(answer):
            raise TaskNotFoundError(task_id)

    def page(
        self, listing: "Listing", *, after: str | None, limit: int, has_time: Callable[[], bool], consistent: bool
    ) -> Page:
        """Up to `limit` tasks of the listing, from behind the task `after` on.

        One call reads at most MOST_SCANS scan pages, stops when `has_time` says no, and answers at most MOST_PAGE_BYTES
        of tasks; so fewer tasks than `limit`, even none, do not mean that the listing has ended: only `last_id` None
        means that. A task that exists throughout a listing is in exactly one of its pages.
        """
        lines: list[str] = []
        size = 0
        growth = 1
        for scans in range(MOST_SCANS):
            if scans and not has_time():
                break
            most = (limit - len(lines)) * growth
            try:
                items, last_key = self._scan(listing, after=after, limit=most, consistent=consistent)
            except ThrottledError:
                if scans:
                    break
                raise
            for position, item in enumerate(items):
                line = _line(item)
                size += len(encode_basestring_ascii(line)) + 2
                if lines and size > MOST_PAGE_BYTES:
                    return Page(lines, after)
                after = item["id"]["S"]
                lines.append(line)
                if len(lines) == limit:
                    # What the scan has filtered out behind its last match need not be scanned again.
                    # protection: a-full-page-ends-at-a-key
                    return Page(lines, after if position + 1 < len(items) else last_key)
            # protection: an-empty-page-is-not-the-last
            if last_key is None:
                return Page(lines, None)
            after = last_key
            # A filter that lets little through makes for many empty pages: read more at once the longer it takes.
            if listing.filter != EVERYTHING:
                growth *= _SCAN_GROWTH
        return Page(lines, after)

    def size(self) -> tuple[int, int]:
        """About how many tasks there are, and their bytes: DynamoDB's own count, up to six hours old."""
        with translated():
            table = self._client.describe_table(TableName=self._table)["Table"]
        return table["ItemCount"], table["TableSizeBytes"]

    def read(self, task_ids: Iterable[str], *, has_time: Callable[[], bool]) -> dict[str, Task]:
        """The stored tasks of at most MOST_ITEMS ids."""
        found: dict[str, Task] = {}
        keys: Any = [{"id": {"S": task_id}} for task_id in dict.fromkeys(task_ids)]
        while keys:
            with translated():
                answer = self._client.batch_get_item(RequestItems={self._table: {"Keys": keys, "ConsistentRead": True}})
            tasks = [_stored(item).task for item in answer["Responses"].get(self._table, [])]
            found |= {task.id: task for task in tasks}
            # protection: unprocessed-keys-are-not-missing
            left = answer.get("UnprocessedKeys", {}).get(self._table, {"Keys": []})["Keys"]
            # protection: an-unprocessed-key-is-throttled
            if left and (len(left) == len(keys) or not has_time()):
                raise ThrottledError
            keys = left
        return found

    def _scan(
        self, listing: "Listing", *, after: str | None, limit: int, consistent: bool
    ) -> tuple[list[dict[str, Any]], str | None]:
        request: dict[str, Any] = {
            "TableName": self._table,
            "Segment": listing.segment,
            "TotalSegments": listing.total_segments,
            "ConsistentRead": consistent,
            # A megabyte ends a page long before.
            "Limit": min(limit, LARGEST_SCAN),
            **_filter_expression(listing.filter),
        }
        if after is not None:
            # protection: a-cursor-is-a-key
            request["ExclusiveStartKey"] = {"id": {"S": after}}
        with translated():
            answer = self._client.scan(**request)
        last_key = answer.get("LastEvaluatedKey")
        # protection: a-page-ends-at-a-key
        last_id = last_key["id"]["S"] if last_key else None
        return cast("list[dict[str, Any]]", answer["Items"]), last_id


def _filter_expression(wanted: TaskFilter) -> dict[str, Any]:
    bounds = (
        ("isComplete", "=", wanted.is_complete),
        ("dueAt", "<", wanted.due_before),
        ("dueAt", ">=", wanted.due_after),
    )
    given = [(f":v{number}", *bound) for number, bound in enumerate(bounds) if bound[2] is not None]
    if not given:
        return {}
    return {
        "FilterExpression": " AND ".join(f"#{name} {sign} {placeholder}" for placeholder, name, sign, _ in given),
        "ExpressionAttributeNames": {f"#{name}": name for _, name, _, _ in given},
        "ExpressionAttributeValues": {placeholder: _attribute(value) for placeholder, _, _, value in given},
    }


def _item(effect: Create) -> dict[str, Any]:
    keys = {} if effect.key is None else {"createKey": effect.key, "effectKey": effect.key}
    return {name: _attribute(value) for name, value in (effect.task.to_json() | keys).items()}


def _insertion(table: str, effect: Create) -> Any:
    """A PartiQL statement, which fails if there is a task with the id."""
    item = _item(effect)
    fields = ", ".join(f"'{name}': ?" for name in item)
    return {"Statement": f'INSERT INTO "{table}" VALUE {{{fields}}}', "Parameters": list(item.values())}


def _creation(effect: Create) -> dict[str, Any]:
    return {
        "Item": _item(effect),
        "ConditionExpression": "attribute_not_exists(#id)",
        "ExpressionAttributeNames": {"#id": "id"},
    }


def _change(effect: Update, now: str) -> dict[str, Any]:
    fields: dict[str, Any] = {**effect.fields, "updatedAt": now, "version": effect.version + 1}
    # protection: an-update-has-a-condition
    condition = "#version = :given"
    if effect.key is not None:
        fields["effectKey"] = effect.key
        same = (
            f"#{name} = :{name}" if value is not None else f"attribute_not_exists(#{name})"
            for name, value in effect.fields.items()
        )
        # protection: a-change-changes-something
        condition += f" AND NOT ({' AND '.join(same)})"
    kept = {name: value for name, value in fields.items() if value is not None}
    removed = [f"#{name}" for name, value in fields.items() if value is None]
    expression = "SET " + ", ".join(f"#{name} = :{name}" for name in kept)
    if removed:
        expression += " REMOVE " + ", ".join(removed)
    return {
        "Key": {"id": {"S": effect.task_id}},
        "UpdateExpression": expression,
        "ConditionExpression": condition,
        "ExpressionAttributeNames": {f"#{name}": name for name in fields},
        "ExpressionAttributeValues": {f":{name}": _attribute(value) for name, value in kept.items()}
        | {":given": _attribute(effect.version)},
    }


def _is_repeated(response: Any) -> bool:
    """Whether the SDK has sent the request more than once before this answer came."""
    return int(response["ResponseMetadata"].get("RetryAttempts", 0)) > 0


def _stored(item: Mapping[str, Mapping[str, Any]]) -> Stored:
    # boto3's TypeDeserializer takes twice as long, and answers numbers as Decimal.
    fields: dict[str, Any] = {}
    for name, attribute in item.items():
        ((kind, value),) = attribute.items()
        fields[name] = int(value) if kind == "N" else value
    return Stored(Task.from_json(fields), fields.get("createKey"), fields.get("effectKey"))


def _line(item: Mapping[str, Mapping[str, Any]]) -> str:
    """The stored task in compact JSON, the same as `Task.to_json` encoded.

    By hand, as every task of every job passes here: by way of a Task and a dictionary it takes six times as long.
    Raises KeyError if the item is no task.
    """
    text, optional = encode_basestring, ""
    for name in ("detail", "dueAt"):
        if name in item:
            optional += f',"{name}":{text(item[name]["S"])}'
    return (
        f'{{"id":{text(item["id"]["S"])},"title":{text(item["title"]["S"])}{optional},'
        f'"isComplete":{"true" if item["isComplete"]["BOOL"] else "false"},"createdAt":{text(item["createdAt"]["S"])},'
        f'"updatedAt":{text(item["updatedAt"]["S"])},"version":{int(item["version"]["N"])}}}'
    )
