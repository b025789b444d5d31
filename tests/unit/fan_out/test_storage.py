from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError, ParamValidationError
from hypothesis import given
from hypothesis import strategies as st

from fan_out.aws import clients as aws
from fan_out.aws import storage
from fan_out.aws.storage import Bucket, JobStore
from fan_out.errors import AccountingError, ServiceUnavailableError, ThrottledError
from fan_out.model.documents import digest, encode
from tests.support.factories import RangedReads
from tests.support.machine import BUCKET, Machine

# The smallest part that S3 takes in the middle of a multipart upload.
SMALLEST_PART = 5 << 20


@pytest.fixture
def bucket(machine: Machine) -> Bucket:
    return Bucket(BUCKET)


def failing(code: str, status: int = 400) -> ClientError:
    answer: Any = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return ClientError(answer, "PutObject")


@given(
    lines=st.lists(st.binary(max_size=30).map(lambda text: text.replace(b"\n", b"")), max_size=20),
    is_ended=st.booleans(),
    block=st.integers(1, 60),
)
def test_lines_are_the_same_for_any_block_and_offset(lines: list[bytes], is_ended: bool, block: int) -> None:
    if not is_ended and lines and not lines[-1]:
        lines = [*lines, b"x"]
    body = b"\n".join(lines) + (b"\n" if is_ended and lines else b"")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(aws, "s3", lambda: RangedReads({"k": body}))
        patch.setattr(storage, "BLOCK", block)
        read = list(Bucket("b").lines("k"))
        assert [line.text for line in read] == lines
        for number, line in enumerate(read):
            assert line.end == len(b"\n".join(lines[: number + 1])) + (1 if is_ended or number < len(lines) - 1 else 0)
            assert [rest.text for rest in Bucket("b").lines("k", line.end)] == lines[number + 1 :]


@pytest.mark.parametrize("block", [1, 2, 7, 1000])
def test_lines_of_a_stored_object_cross_blocks(bucket: Bucket, monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    lines = ["", "a", "", "ünïcödé 検討 🐛", "x" * 50, "\r"]
    bucket.put("k", "\n".join([*lines, ""]).encode())
    monkeypatch.setattr(storage, "BLOCK", block)
    read = list(bucket.lines("k"))
    assert [line.text.decode() for line in read] == lines
    for number, line in enumerate(read):
        assert [rest.text.decode() for rest in bucket.lines("k", line.end)] == lines[number + 1 :]


def test_an_empty_object_has_no_lines(bucket: Bucket) -> None:
    bucket.put("k", b"")
    assert list(bucket.lines("k")) == []


def test_lines_of_a_missing_object_are_an_error(bucket: Bucket) -> None:
    with pytest.raises(AccountingError, match="The object k is missing"):
        list(bucket.lines("k"))


def test_a_line_without_end_does_not_fill_the_memory(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    bucket.put("k", b"short\n" + b"x" * 10_000)
    monkeypatch.setattr(storage, "BLOCK", 100)
    monkeypatch.setattr(storage, "LONGEST_LINE", 1000)
    with pytest.raises(AccountingError, match="k has a line of more than"):
        list(bucket.lines("k"))


def test_a_read_object_is_held_a_block_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    body = (b"x" * 99 + b"\n") * 80_000
    whole = RangedReads({"k": body})
    monkeypatch.setattr(aws, "s3", lambda: whole)
    monkeypatch.setattr(storage, "BLOCK", 64 * 1024)
    tracemalloc.start()
    try:
        assert sum(1 for _ in Bucket("b").lines("k")) == 80_000
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()
    assert whole.requests == -(-len(body) // (64 * 1024))


def test_lines_are_written_with_their_ends(bucket: Bucket) -> None:
    body = b"a\n\n\xc3\xbc\n"
    assert bucket.put_lines("k", [b"a", b"", "ü".encode()]) == digest(body)
    assert bucket.get("k") == body
    assert bucket.put_lines("none", []) == digest(b"")
    assert bucket.get("none") == b""


def test_many_lines_go_up_in_parts_and_read_back_the_same(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "PART", SMALLEST_PART)
    lines = [b"%09d" % number * 100 for number in range(13_000)]
    written = bucket.put_lines("k", iter(lines))
    stored = bucket.get("k")
    assert stored == b"\n".join([*lines, b""])
    assert len(stored) == 13_000 * 901 > 2 * SMALLEST_PART
    assert written == digest(stored)
    assert aws.s3().head_object(Bucket=BUCKET, Key="k")["ETag"].endswith('-3"')


def test_lines_that_fill_their_parts_have_no_empty_part(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "PART", SMALLEST_PART)
    line = b"x" * ((1 << 20) - 1)
    bucket.put_lines("k", [line] * 10)
    assert aws.s3().head_object(Bucket=BUCKET, Key="k")["ETag"].endswith('-2"')


def test_writing_that_breaks_off_leaves_nothing(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "PART", SMALLEST_PART)
    bucket.put("k", b"what was there")

    def lines() -> Iterator[bytes]:
        yield b"x" * SMALLEST_PART
        raise RuntimeError("the source broke")

    with pytest.raises(RuntimeError, match="the source broke"):
        bucket.put_lines("k", lines())
    assert bucket.get("k") == b"what was there"
    assert "Uploads" not in aws.s3().list_multipart_uploads(Bucket=BUCKET)


def test_of_several_commits_the_first_one_counts(store: JobStore) -> None:
    assert store.put_once("x.json", {"n": 1}) == {"n": 1}
    assert store.put_once("x.json", {"n": 2}) == {"n": 1}
    assert store.require("x.json") == {"n": 1}


def test_a_plain_put_replaces(store: JobStore) -> None:
    store.put("x", {"n": 1})
    store.put("x", {"n": 2})
    assert store.get("x") == {"n": 2}


def test_commits_at_the_same_moment_are_tried_again(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    class Busy:
        def put_object(self, **_: Any) -> None:
            raise failing("ConditionalRequestConflict", 409)

    monkeypatch.setattr(aws, "s3", Busy)
    with pytest.raises(ServiceUnavailableError):
        bucket.put_once("k", b"")


def test_a_missing_object_is_none_unless_it_is_required(store: JobStore) -> None:
    assert store.get("x.json") is None
    assert not store.has("x.json")
    with pytest.raises(AccountingError, match=r"jobs/job-1/x\.json is missing"):
        store.require("x.json")


@pytest.mark.parametrize(
    ("raised", "seen"),
    [
        (failing("SlowDown", 503), ThrottledError),
        (failing("Whatever", 429), ThrottledError),
        (failing("ProvisionedThroughputExceededException"), ThrottledError),
        (failing("TooManyRequestsException"), ThrottledError),
        (failing("InternalError", 500), ServiceUnavailableError),
        (failing("RequestTimeout"), ServiceUnavailableError),
        (EndpointConnectionError(endpoint_url="https://s3"), ServiceUnavailableError),
        (failing("AccessDenied", 403), ClientError),
        (ParamValidationError(report="no such parameter"), ParamValidationError),
    ],
)
def test_what_aws_answers_is_told_apart_once(raised: Exception, seen: type[Exception]) -> None:
    with pytest.raises(seen), aws.translated():
        raise raised


def test_a_job_only_sees_objects_under_its_own_prefix(store: JobStore) -> None:
    store.put("digest.json", [1])
    assert JobStore(store.bucket, "job-10").get("digest.json") is None
    assert store.bucket.get("jobs/job-1/digest.json") == b"[1]"


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda x: st.lists(x) | st.dictionaries(st.text(), x),
    )
)
def test_a_stored_document_is_one_line(document: Any) -> None:
    try:
        text = encode(document)
    except UnicodeEncodeError:
        return
    assert b"\n" not in text
