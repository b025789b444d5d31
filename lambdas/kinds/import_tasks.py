"""import-tasks: the rows of a CSV object become tasks. A row is imported once, however often its job is retried."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID, uuid5

from fan_out import JSON, WRITES_PER_CALL, Examples, Failure, Job, Kind, Params, Row

# Any fixed UUID: with it a task's id depends on the first job of a chain of retries and on the row alone.
_NAMESPACE = UUID("8e3b8f0e-6a0c-4f5a-9a53-3f1d3ff0a1c7")
_BOOLEANS = {"": False, "false": False, "no": False, "0": False, "true": True, "yes": True, "1": True}


class ImportTasks(Kind[Params, Row]):
    name = "import-tasks"
    params = Params
    sources = frozenset({"csv"})
    batch = WRITES_PER_CALL
    writes = True
    # A million rows are imported for at most $0.80: docs/cost.md.
    shard_size = 2_000
    seconds_per_task = 0.002
    examples = Examples(results=["created", "unchanged"])

    def process_many(self, tasks: Sequence[Row], job: Job[Params]) -> list[JSON | Failure]:
        outcomes = job.write([_create(row, job) for row in tasks])
        return [_answer(row, outcome) for row, outcome in zip(tasks, outcomes, strict=True)]

    def zero(self) -> JSON:
        return {"created": 0, "unchanged": 0}

    def fold(self, partial: JSON, task: Row, result: JSON, job: Job[Params]) -> JSON:
        partial[result] += 1
        return partial

    def merge(self, left: JSON, right: JSON, job: Job[Params]) -> JSON:
        return {name: left[name] + right[name] for name in left}

    def summary(self, partial: JSON, job: Job[Params]) -> dict[str, JSON]:
        # Whether a row was created by this attempt or found from an earlier one differs from run to run.
        return {"imported": partial["created"] + partial["unchanged"]}


def _create(row: Row, job: Job[Params]) -> dict[str, Any]:
    fields: dict[str, Any] = dict(row.fields)
    if "isComplete" in fields:
        text = fields["isComplete"].strip().lower()
        # What is no boolean goes on as it is, for the Task Service to refuse in its own words.
        fields["isComplete"] = _BOOLEANS.get(text, fields["isComplete"])
    return {
        "op": "create",
        "id": str(uuid5(_NAMESPACE, job.effect_key(row))),
        "key": job.effect_key(row),
        "createdAt": job.started_at,
        "task": fields,
    }


def _answer(row: Row, outcome: dict[str, Any]) -> JSON | Failure:
    if outcome["outcome"] in ("created", "unchanged"):
        return outcome["outcome"]
    return Failure.of_write(outcome, f"Row {row.number}: ")


KIND = ImportTasks()
