"""BatchExecuteStatement on moto: creations alone, the only statements that are sent here.

moto's own reads the whole table for each statement, and cannot read parameters inside a map.
"""

from __future__ import annotations

import re
from typing import Any

from moto.dynamodb.exceptions import ConditionalCheckFailed, MockValidationException
from moto.dynamodb.models import DynamoDBBackend

INSERTION = re.compile(r"""INSERT INTO "([\w.-]+)" VALUE \{('\w+': \?(?:, '\w+': \?)*)\}""")


def refuse() -> str | None:
    """The code of a statement that is refused before it runs; tests put another function in this place."""
    return None


def batch_execute_statement(backend: DynamoDBBackend, statements: list[dict[str, Any]]) -> list[dict[str, Any]]:
    assert 1 <= len(statements) <= 25
    return [_run(backend, each) for each in statements]


def _run(backend: DynamoDBBackend, statement: dict[str, Any]) -> dict[str, Any]:
    if (code := refuse()) is not None:
        return {"Error": {"Code": code, "Message": "Refused."}}
    insertion = INSERTION.fullmatch(statement["Statement"])
    assert insertion is not None, statement
    names = re.findall(r"\w+", insertion[2])
    try:
        backend.put_item(
            insertion[1],
            dict(zip(names, statement["Parameters"], strict=True)),
            condition_expression="attribute_not_exists(#id)",
            expression_attribute_names={"#id": "id"},
        )
    except ConditionalCheckFailed:
        return {"Error": {"Code": "DuplicateItem", "Message": "Duplicate primary key exists in table"}}
    except MockValidationException as error:
        return {"Error": {"Code": "ValidationError", "Message": error.message}}
    return {"TableName": insertion[1]}


DynamoDBBackend.batch_execute_statement = batch_execute_statement  # type: ignore[assignment, method-assign]
