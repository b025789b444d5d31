from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fan_out.aws.storage import Line
from fan_out.errors import InvalidJobError
from fan_out.model.task import Row
from fan_out.sources.csv import COLUMNS, LONGEST_ROW, Position, read

HEADER = b"title,detail,dueAt,isComplete\n"


def lines(body: bytes, start: int = 0) -> Iterator[Line]:
    """The lines of an object, as the bucket gives them."""
    end = start
    texts = body[start:].split(b"\n")
    for number, text in enumerate(texts):
        is_last = number == len(texts) - 1
        end += len(text) + (0 if is_last else 1)
        if text or not is_last:
            yield Line(text, end)


def read_all(body: bytes, position: Position | None = None) -> list[tuple[Row, Position]]:
    position = position or Position()
    return list(read(lines(body, position.offset), position))


def rows(body: bytes) -> list[dict[str, str] | str]:
    """Each row's fields, or its problem."""
    return [row.problem or row.fields for row, _ in read_all(body)]


# What a CSV writer keeps apart. Python's leaves a lone carriage return unquoted, so it has a test of its own.
texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\r"), max_size=20) | st.sampled_from(
    ['"', '""', ",", "\n", "\r\n", "a\nb", 'say "hi", ok', "\ufeff", " ", "\n\n", "’", "\u2028", "🐛"]
)


@given(
    table=st.lists(st.tuples(texts, texts, texts, texts), max_size=12),
    order=st.permutations(COLUMNS),
    ending=st.sampled_from(["\n", "\r\n"]),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
    has_bom=st.booleans(),
    is_ended=st.booleans(),
)
def test_any_written_table_reads_back_from_any_row(
    table: list[tuple[str, ...]], order: list[str], ending: str, quoting: Any, has_bom: bool, is_ended: bool
) -> None:
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator=ending, quoting=quoting)
    writer.writerow(order)
    writer.writerows(table)
    body = (b"\xef\xbb\xbf" if has_bom else b"") + text.getvalue().encode()
    if not is_ended:
        body = body.removesuffix(ending.encode())
    found = read_all(body)
    expected = [
        {column: value for column, value in zip(order, row, strict=True) if value or column == "title"} for row in table
    ]
    assert [row.problem for row, _ in found] == [None] * len(table)
    assert [row.fields for row, _ in found] == expected
    assert [row.number for row, _ in found] == list(range(2, len(table) + 2))
    for index, (_, after) in enumerate(found):
        assert read_all(body, after) == found[index + 1 :]


GOOD = st.tuples(texts.filter(lambda text: '"' not in text and "\n" not in text and "\r" not in text)).map(
    lambda cells: f'"{cells[0]}",ok\n'.encode()
)
BAD = st.sampled_from(
    [
        b"\xff\xfe,x\n",
        b"a,\xc3\n",
        b'"a"b,x\n',
        b"a,b,c,d,e\n",
        b"nul\0nul,x\n",
        b'"' + b"x" * LONGEST_ROW + b'",x\n',
        b"x" * (LONGEST_ROW + 1) + b"\n",
    ]
)


@given(st.lists(st.tuples(st.booleans(), GOOD, BAD), min_size=1, max_size=8))
def test_bad_rows_never_take_their_neighbours_along(parts: list[tuple[bool, bytes, bytes]]) -> None:
    body = HEADER + b"".join(good if is_good else bad for is_good, good, bad in parts)
    found = read_all(body)
    assert [row.problem is None for row, _ in found] == [is_good for is_good, _, _ in parts]
    assert [row.fields["title"] for row, _ in found if row.problem is None] == [
        good.decode().removesuffix('",ok\n')[1:] for is_good, good, _ in parts if is_good
    ]
    for index, (_, after) in enumerate(found):
        assert read_all(body, after) == found[index + 1 :]


@given(st.binary(max_size=300))
def test_any_bytes_become_rows_or_problems_from_any_row(tail: bytes) -> None:
    body = HEADER + tail
    found = read_all(body)
    assert [row.number for row, _ in found] == list(range(2, len(found) + 2))
    for index, (row, after) in enumerate(found):
        assert bool(row.problem) != bool(row.fields)
        assert read_all(body, after) == found[index + 1 :]


def test_an_unclosed_quote_does_not_swallow_the_rows_behind_it() -> None:
    assert rows(HEADER + b'one\n"two\nthree\nfour\n') == [
        {"title": "one"},
        "a quote is opened and never closed",
        {"title": "three"},
        {"title": "four"},
    ]
    found = read_all(HEADER + b'one\n"two\nthree\nfour\n')
    for number, (_, after) in enumerate(found):
        # Whoever goes on behind a row finds the ones that its quote had swallowed.
        assert read_all(HEADER + b'one\n"two\nthree\nfour\n', after) == found[number + 1 :]


def test_an_unclosed_quote_far_from_the_end_costs_one_row() -> None:
    many = b"".join(b"row %d,%s\n" % (number, b"x" * 500) for number in range(300))
    found = rows(HEADER + b'"broken\n' + many)
    assert found[0] == "the row is longer than 64 KiB; is a quote not closed?"
    assert len(found) == 301
    assert all(isinstance(row, dict) for row in found[1:])


def test_a_quoted_row_that_is_too_long_is_a_problem() -> None:
    found = rows(HEADER + b'"' + (b"y" * 600 + b"\n") * 120 + b'",x\nlast\n')
    assert found[-1] == {"title": "last"}
    assert isinstance(found[0], str)


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        (b"\xff,x", "the row is not UTF-8"),
        (b'"multi\n\xe4\nline",x', "the row is not UTF-8"),
        (b"a\0b", "the row holds a NUL character"),
        (b"a,b,c,d,e", "the row has 5 fields, but the header has 4"),
        (b'"a"b,c', "a closing quote must be followed by a comma or the end of the line"),
        (b"x" * (LONGEST_ROW + 1), "the row is longer than 64 KiB"),
    ],
)
def test_a_bad_row_says_what_is_wrong_with_it(row: bytes, problem: str) -> None:
    assert rows(HEADER + b"before\n" + row + b"\nafter\n") == [
        {"title": "before"},
        problem,
        {"title": "after"},
    ]


def test_only_a_quoted_carriage_return_is_kept() -> None:
    assert rows(HEADER + b'"a\rb",x\r\na\rb,x\nlast\n') == [
        {"title": "a\rb", "detail": "x"},
        "a carriage return inside a field must be in quotes",
        {"title": "last"},
    ]


def test_a_short_row_lacks_its_last_columns() -> None:
    assert rows(HEADER + b"a\nb,d\nc,d,2026-01-01T00:00:00Z\n") == [
        {"title": "a"},
        {"title": "b", "detail": "d"},
        {"title": "c", "detail": "d", "dueAt": "2026-01-01T00:00:00Z"},
    ]


def test_an_empty_title_is_kept_for_the_task_service_to_refuse() -> None:
    assert rows(HEADER + b",only a detail,,\n") == [{"title": "", "detail": "only a detail"}]


def test_empty_lines_are_no_rows_and_have_no_number() -> None:
    found = read_all(b"\n\r\ntitle\n\nA\n\r\n\nB\n\n")
    assert [(row.number, row.fields) for row, _ in found] == [
        (2, {"title": "A"}),
        (3, {"title": "B"}),
    ]


@pytest.mark.parametrize(
    ("header", "fields"),
    [
        (b"title", {"title": "1"}),
        (b"dueAt,title", {"dueAt": "1", "title": "2"}),
        (b"TITLE, Detail ,dueat", {"title": "1", "detail": "2", "dueAt": "3"}),
        (b'"title","isComplete"', {"title": "1", "isComplete": "2"}),
        (b"\xef\xbb\xbftitle,detail", {"title": "1", "detail": "2"}),
        (b'\xef\xbb\xbf"title",detail', {"title": "1", "detail": "2"}),
        (b"title\r", {"title": "1"}),
    ],
)
def test_columns_may_come_in_any_order_and_case(header: bytes, fields: dict[str, str]) -> None:
    row = ",".join(str(number + 1) for number in range(len(fields))).encode()
    assert rows(header + b"\n" + row + b"\n") == [fields]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "The CSV object is empty"),
        (b"\xef\xbb\xbf", "The CSV object is empty"),
        (b"\n\r\n\n", "The CSV object is empty"),
        (b"detail,dueAt\nx,y\n", 'The CSV header is "detail,dueAt"'),
        (b"title,title\nx,y\n", 'The CSV header is "title,title"'),
        (b"title,Title\nx,y\n", 'The CSV header is "title,Title"'),
        (b"title,priority\nx,y\n", 'has a column "priority"'),
        (b"title,\nx,y\n", 'has a column ""'),
        (b"title;detail\nx;y\n", 'has a column "title;detail"'),
        (b"Buy milk\nx\n", 'has a column "Buy milk"'),
        (b'"title\nx\n', "cannot be read: a quote is opened and never closed"),
        (b"title\xff\nx\n", "cannot be read: the row is not UTF-8"),
        ("title\n".encode("utf-16"), "cannot be read"),
        (b"title,detail\rA,B\r", "cannot be read"),
        (b"x" * 100_000, "cannot be read: the row is longer than 64 KiB"),
    ],
)
def test_a_wrong_header_is_refused_with_what_it_must_be(body: bytes, said: str) -> None:
    with pytest.raises(InvalidJobError) as caught:
        read_all(body)
    assert said in str(caught.value)
    assert "title" in str(caught.value)
    assert len(str(caught.value)) < 400


def test_a_header_alone_is_a_source_of_no_tasks() -> None:
    assert rows(HEADER) == rows(HEADER.strip()) == []
