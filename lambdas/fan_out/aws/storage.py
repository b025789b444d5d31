"""A job's objects in S3: JSON documents, commits that only the first writer makes, and streams of lines.

Nothing here holds more than a block of a stream in memory, whatever the size of the object.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from botocore.exceptions import ClientError

from fan_out.aws import clients as aws
from fan_out.errors import AccountingError, InvalidJobError, ServiceUnavailableError

# A block is one ranged GET. Reading by blocks instead of one long body survives a slow reader:
# S3 closes a connection that nobody reads from, and a merge leaves most of its streams waiting.
BLOCK = 1 << 20
# Parts of a multipart upload have at least 5 MiB, and an upload at most 10,000 of them, so 80 GiB here:
# https://docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html
PART = 8 << 20
# No line of ours comes near it; an uploaded object may be anything.
LONGEST_LINE = 16 << 20


# The account of a job: there is none while it runs, and one that stays once it has ended.
RECORD = "record.json"
# A line for each of its tasks that did not succeed.
FAILURES = "failures.jsonl"


def encode(document: Any) -> bytes:
    """The one JSON form that this project stores: compact, UTF-8, keys in the order they were put.

    Raises TypeError or ValueError for what is not JSON, such as a set, NaN, or a lone surrogate.
    """
    return json.dumps(document, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


@dataclass(frozen=True, slots=True)
class Line:
    """A line without its end, and the offset at which the next one begins."""

    text: bytes
    end: int


@dataclass(frozen=True, slots=True)
class Bucket:
    """The job bucket: objects by their whole key."""

    name: str

    def get(self, key: str) -> bytes | None:
        """The object's bytes, or None if there is no such object."""
        try:
            with aws.translated():
                return aws.s3().get_object(Bucket=self.name, Key=key)["Body"].read()
        except ClientError as error:
            if aws.error_code(error) in {"NoSuchKey", "404"}:
                return None
            raise

    def put(self, key: str, body: bytes) -> None:
        with aws.translated():
            aws.s3().put_object(Bucket=self.name, Key=key, Body=body)

    def put_once(self, key: str, body: bytes) -> bytes:
        """Write the object unless it exists; either way, the bytes that it holds now.

        This is how a step commits: of several attempts, however late, the first to get here decides.
        """
        try:
            with aws.translated():
                aws.s3().put_object(Bucket=self.name, Key=key, Body=body, IfNoneMatch="*")
        except ClientError as error:
            code = aws.error_code(error)
            if code == "ConditionalRequestConflict":
                # Another writer is at it this moment; S3 asks to try again.
                raise ServiceUnavailableError(
                    "Two attempts of one step committed at the same moment."
                ) from error
            if code not in {"PreconditionFailed", "412"}:
                raise
            stored = self.get(key)
            if stored is None:
                raise AccountingError(f"{key} exists and cannot be read.") from error
            return stored
        return body

    def etag(self, key: str) -> str | None:
        """What names this version of the object's content, or None if there is no such object."""
        try:
            with aws.translated():
                return aws.s3().head_object(Bucket=self.name, Key=key)["ETag"]
        except ClientError as error:
            if aws.error_code(error) in {"NoSuchKey", "404"}:
                return None
            raise

    def has(self, key: str) -> bool:
        return self.etag(key) is not None

    def keys(self, prefix: str) -> Iterator[str]:
        """The keys that begin with this prefix, a page of a thousand at a time."""
        pages = iter(aws.s3().get_paginator("list_objects_v2").paginate(Bucket=self.name, Prefix=prefix))
        while True:
            with aws.translated():
                page = next(pages, None)
            if page is None:
                return
            for item in page.get("Contents", []):
                yield item["Key"]

    def lines(
        self,
        key: str,
        start: int = 0,
        etag: str | None = None,
        *,
        step: int | None = None,
        is_cut: bool = False,
    ) -> Iterator[Line]:
        """The object's lines from offset `start` on, which must be the beginning of a line.

        With an `etag` they are the lines of that version. `step` is how many bytes are read at a time. Raises
        AccountingError if there is no such object, InvalidJobError if it is another version or a line is too
        long to be one; with `is_cut` the rest of such a line is left out instead.
        """
        step = step or BLOCK
        condition: dict[str, Any] = {} if etag is None else {"IfMatch": etag}
        position, rest, dropped, size = start, b"", 0, None
        while size is None or position < size:
            try:
                with aws.translated():
                    answer = aws.s3().get_object(
                        Bucket=self.name,
                        Key=key,
                        Range=f"bytes={position}-{position + step - 1}",
                        **condition,
                    )
                    block = answer["Body"].read()
            except ClientError as error:
                code = aws.error_code(error)
                if code in {"InvalidRange", "416"}:  # an empty object, or a start at its very end
                    break
                if code in {"NoSuchKey", "404"}:
                    raise AccountingError(f"The object {key} is missing.") from error
                if code in {"PreconditionFailed", "412"}:
                    raise InvalidJobError(
                        f"The object {key} was overwritten while the job read it."
                    ) from error
                raise
            size = int(answer.get("ContentRange", f"/{position + len(block)}").rpartition("/")[2])
            offset = position - len(rest) - dropped
            position += len(block)
            *whole, rest = (rest + block).split(b"\n")
            # A merge holds many streams open: none of them should hold its block twice.
            del answer, block
            for text in whole:
                offset += len(text) + dropped + 1
                dropped = 0
                yield Line(text, offset)
            if len(rest) > LONGEST_LINE:
                if not is_cut:
                    raise InvalidJobError(f"{key} has a line of more than 16 MiB.")
                dropped += len(rest) - LONGEST_LINE
                rest = rest[:LONGEST_LINE]
        if rest:
            yield Line(rest, position)

    def put_lines(self, key: str, lines: Iterable[bytes]) -> int:
        """Write lines, each given without its end, as one object; how many bytes it has.

        The object appears whole at the end or not at all.
        """
        upload: str | None = None
        parts: list[dict[str, Any]] = []
        buffer = bytearray()
        total = 0
        client = aws.s3()

        def send() -> None:
            nonlocal upload
            if upload is None:
                upload = client.create_multipart_upload(Bucket=self.name, Key=key)["UploadId"]
            number = len(parts) + 1
            answer = client.upload_part(
                Bucket=self.name, Key=key, UploadId=upload, PartNumber=number, Body=bytes(buffer)
            )
            parts.append({"PartNumber": number, "ETag": answer["ETag"]})
            buffer.clear()

        try:
            with aws.translated():
                for line in lines:
                    buffer += line
                    buffer += b"\n"
                    total += len(line) + 1
                    if len(buffer) >= PART:
                        send()
                if upload is None:
                    client.put_object(Bucket=self.name, Key=key, Body=bytes(buffer))
                else:
                    if buffer:
                        send()
                    client.complete_multipart_upload(
                        Bucket=self.name,
                        Key=key,
                        UploadId=upload,
                        MultipartUpload={"Parts": parts},  # type: ignore[typeddict-item]
                    )
        except BaseException:
            if upload is not None:
                client.abort_multipart_upload(Bucket=self.name, Key=key, UploadId=upload)
            raise
        return total


@dataclass(frozen=True, slots=True)
class JobStore:
    """The objects of one job, by their names under `jobs/{jobId}/`."""

    bucket: Bucket
    job_id: str

    def key(self, name: str) -> str:
        return f"jobs/{self.job_id}/{name}"

    def get(self, name: str) -> Any | None:
        """The JSON document, or None if there is none."""
        body = self.bucket.get(self.key(name))
        return None if body is None else json.loads(body)

    def require(self, name: str) -> Any:
        """The JSON document. Raises AccountingError if it is missing."""
        document = self.get(name)
        if document is None:
            raise AccountingError(f"The object {self.key(name)} is missing.")
        return document

    def put(self, name: str, document: Any) -> None:
        self.bucket.put(self.key(name), encode(document))

    def put_once(self, name: str, document: Any) -> Any:
        """Commit the document unless one is there already; either way, the one that counts."""
        return json.loads(self.bucket.put_once(self.key(name), encode(document)))

    def has(self, name: str) -> bool:
        return self.bucket.has(self.key(name))

    def names(self, prefix: str) -> Iterator[str]:
        """The names of the job's objects that begin with this prefix."""
        return (key.removeprefix(self.key("")) for key in self.bucket.keys(self.key(prefix)))

    def lines(self, name: str, start: int = 0) -> Iterator[Line]:
        return self.bucket.lines(self.key(name), start)

    def put_lines(self, name: str, lines: Iterable[bytes]) -> int:
        return self.bucket.put_lines(self.key(name), lines)
