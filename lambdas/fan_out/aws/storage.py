"""A job's objects in S3: JSON documents, commits of which the first counts, and streams of lines.

A stream of any size takes one block of memory.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from botocore.exceptions import ClientError
from typing_extensions import TypeVar

from fan_out.aws import clients as aws
from fan_out.errors import AccountingError, InvalidJobError, ServiceUnavailableError
from fan_out.model.documents import decode, encode, named_digest, seal
from fan_out.model.shard import Shard
from fan_out.model.task import Row, Task, from_json

T = TypeVar("T", default=Any)

# A block is one ranged GET. Reading by blocks instead of one long body survives a slow reader:
# S3 closes a connection that nobody reads from, and a merge leaves most of its streams waiting.
BLOCK = 1 << 20
# Parts of a multipart upload have at least 5 MiB, and an upload at most 10,000 of them, so 80 GiB here:
# https://docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html
PART = 8 << 20
# No line of a job's own objects comes near it; an uploaded object may be anything.
LONGEST_LINE = 16 << 20

# Seconds. The credentials of the function that signs a link can expire before that.
LINK_SECONDS = 3600

# The job record: written once, when the job has ended.
RECORD = "record.json"
# A line for each of its tasks that did not succeed.
FAILURES = "failures.jsonl"
# What the job's steps alone need, beside all that is in folders.
WORK = {"manifest.jsonl", "excess.json"}
# Documents for people are plain JSON; all others are sealed.
PLAIN = {RECORD, "result.json", "digest.json"}


@dataclass(frozen=True, slots=True)
class Line:
    """A line without its end, and the offset at which the next one begins."""

    text: bytes
    end: int


@dataclass(frozen=True, slots=True)
class Head:
    """The ETag, which names this version of the object's content, and its length in bytes."""

    etag: str
    length: int


@dataclass(frozen=True, slots=True)
class Bucket:
    """The job bucket: objects by their whole key."""

    name: str

    def get(self, key: str) -> bytes | None:
        """The object's bytes, or None if there is no such object."""
        found = self._get(key)
        return None if found is None else found[0]

    def _get(self, key: str) -> tuple[bytes, str] | None:
        """The object's bytes and ETag, or None if there is no such object."""
        try:
            with aws.translated():
                answer = aws.s3().get_object(Bucket=self.name, Key=key)
                return answer["Body"].read(), answer["ETag"]
        except ClientError as error:
            if aws.error_code(error) in {"NoSuchKey", "404"}:
                return None
            raise

    def put(self, key: str, body: bytes) -> None:
        with aws.translated():
            aws.s3().put_object(Bucket=self.name, Key=key, Body=body)

    def put_once(self, key: str, body: bytes, is_fit: Callable[[bytes], bool] = lambda stored: True) -> bytes:
        """Write the object unless a fit one exists; either way, the bytes that it holds now.

        This is how a step commits: of several attempts, however late, the first to get here decides.
        """
        # protection: first-commit-counts
        if self._put_if(key, body, IfNoneMatch="*"):
            return body
        found = self._get(key)
        if found is None:
            raise AccountingError(f"{key} exists and cannot be read.")
        stored, etag = found
        # protection: an-unreadable-object-is-no-commit
        if is_fit(stored):
            return stored
        # The condition lets one of several attempts replace what cannot be read.
        if self._put_if(key, body, IfMatch=etag):
            return body
        raise ServiceUnavailableError("Two attempts of one step replaced an unreadable object at the same moment.")

    def _put_if(self, key: str, body: bytes, **condition: Any) -> bool:
        """Write the object if the condition holds; whether it did."""
        try:
            with aws.translated():
                aws.s3().put_object(Bucket=self.name, Key=key, Body=body, **condition)
        except ClientError as error:
            code = aws.error_code(error)
            if code == "ConditionalRequestConflict":
                # Another writer is at it this moment; S3 asks to try again.
                raise ServiceUnavailableError("Two attempts of one step committed at the same moment.") from error
            # protection: a-commit-that-exists-is-read
            if code not in {"PreconditionFailed", "412"}:
                raise
            return False
        return True

    def head(self, key: str) -> Head | None:
        """What S3 tells of the object, or None if there is no such object."""
        try:
            with aws.translated():
                answer = aws.s3().head_object(Bucket=self.name, Key=key)
        except ClientError as error:
            if aws.error_code(error) in {"NoSuchKey", "404"}:
                return None
            raise
        return Head(answer["ETag"], answer["ContentLength"])

    def link(self, operation: str, key: str, **parameters: Any) -> str:
        """A presigned link, for LINK_SECONDS: whoever has it may do this one operation on this one object."""
        place = {"Bucket": self.name, "Key": key, **parameters}
        return aws.s3().generate_presigned_url(operation, Params=place, ExpiresIn=LINK_SECONDS)

    def tasks(self, shard: Shard) -> list[Task | Row]:
        """The shard's tasks. Raises AccountingError if they cannot be read or are not all there."""
        try:
            tasks = [from_json(json.loads(line.text)) for line in self.lines(shard.key)]
        except (KeyError, TypeError, ValueError, RecursionError) as error:
            raise AccountingError(f"The object {shard.key} cannot be read: {error}.") from error
        if len(tasks) != shard.count:
            raise AccountingError(f"The object {shard.key} has {len(tasks)} of {shard.count} tasks.")
        return tasks

    def lines(
        self,
        key: str,
        start: int = 0,
        etag: str | None = None,
        *,
        digest: str | None = None,
        step: int | None = None,
        is_cut: bool = False,
    ) -> Iterator[Line]:
        """The object's lines from offset `start` on, which must be the beginning of a line.

        `step` is how many bytes are read at a time. With an `etag` the lines are those of that version: raises
        InvalidJobError if it is overwritten. An object that is read whole is checked, behind its last line, against
        `digest` or the digest in its key. Raises AccountingError if it differs, if there is no such object, or if a
        line is too long; with `is_cut` the rest of such a line is left out instead.
        """
        step = step or BLOCK
        digest = digest or (named_digest(key) if not start else None)
        content = hashlib.sha256()
        # protection: version-of-a-source
        condition: dict[str, Any] = {} if etag is None else {"IfMatch": etag}
        position, rest, dropped, size = start, b"", 0, None
        while size is None or position < size:
            try:
                with aws.translated():
                    answer = aws.s3().get_object(
                        Bucket=self.name, Key=key, Range=f"bytes={position}-{position + step - 1}", **condition
                    )
                    block = answer["Body"].read()
            except ClientError as error:
                code = aws.error_code(error)
                if code in {"InvalidRange", "416"}:  # an empty object, or a start at its very end
                    break
                if code in {"NoSuchKey", "404"}:
                    raise AccountingError(f"The object {key} is missing.") from error
                if code in {"PreconditionFailed", "412"}:
                    raise InvalidJobError(f"The object {key} was overwritten while the job read it.") from error
                raise
            size = int(answer.get("ContentRange", f"/{position + len(block)}").rpartition("/")[2])
            offset = position - len(rest) - dropped
            position += len(block)
            if digest is not None:
                content.update(block)
            *whole, rest = (rest + block).split(b"\n")
            # A merge holds many streams open: none of them should hold its block twice.
            del answer, block
            for text in whole:
                offset += len(text) + dropped + 1
                dropped = 0
                yield Line(text, offset)
            if len(rest) > LONGEST_LINE:
                if not is_cut:
                    raise AccountingError(f"The object {key} has a line of more than 16 MiB.")
                dropped += len(rest) - LONGEST_LINE
                rest = rest[:LONGEST_LINE]
        if rest:
            yield Line(rest, position)
        # protection: digest-of-lines
        if digest is not None and content.hexdigest()[: len(digest)] != digest:
            raise AccountingError(f"The object {key} is not what was committed.")

    def put_lines(self, key: str, lines: Iterable[bytes]) -> str:
        """Write lines, each given without its end, as one object; the digest of its content.

        The object appears whole at the end or not at all.
        """
        client = aws.s3()
        # With the UploadId of a multipart upload once one is begun.
        place: dict[str, Any] = {"Bucket": self.name, "Key": key}
        parts: list[Any] = []
        buffer, content = bytearray(), hashlib.sha256()

        def send() -> None:
            content.update(buffer)
            if not parts:
                place["UploadId"] = client.create_multipart_upload(**place)["UploadId"]
            number = len(parts) + 1
            answer = client.upload_part(**place, PartNumber=number, Body=bytes(buffer))
            parts.append({"PartNumber": number, "ETag": answer["ETag"]})
            buffer.clear()

        try:
            with aws.translated():
                for line in lines:
                    buffer += line
                    buffer += b"\n"
                    if len(buffer) >= PART:
                        send()
                if not parts:
                    content.update(buffer)
                    client.put_object(**place, Body=bytes(buffer))
                else:
                    if buffer:
                        send()
                    client.complete_multipart_upload(**place, MultipartUpload={"Parts": parts})
        except BaseException:
            if "UploadId" in place:
                client.abort_multipart_upload(**place)
            raise
        return content.hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class JobStore:
    """The objects of one job, by their names.

    What is needed to look at the job and to retry it is below `jobs/{jobId}/`; all else is below `work/{jobId}/`, where
    it expires early.
    """

    bucket: Bucket
    job_id: str

    def key(self, name: str) -> str:
        # protection: what-a-retry-needs-is-kept
        folder = "work" if "/" in name or name in WORK else "jobs"
        return f"{folder}/{self.job_id}/{name}"

    def get(self, name: str, shape: type[T] = Any) -> T | None:  # type: ignore[assignment]
        """The document in its shape, or None if there is none.

        An object that cannot be read, has another shape or belongs to another job is lost: raises AccountingError.
        """
        body = self.bucket.get(self.key(name))
        return None if body is None else self._decode(name, body, shape)

    def find(self, name: str, shape: type[T] = Any) -> T | None:  # type: ignore[assignment]
        """The document in its shape, or None if there is none or it is lost."""
        try:
            return self.get(name, shape)
        except AccountingError:
            return None

    def require(self, name: str, shape: type[T] = Any) -> T:  # type: ignore[assignment]
        """The document in its shape. Raises AccountingError if it is missing or lost."""
        document = self.get(name, shape)
        if document is None:
            raise AccountingError(f"The object {self.key(name)} is missing.")
        return document

    def put(self, name: str, document: Any) -> None:
        self.bucket.put(self.key(name), self._encode(name, document))

    def put_once(self, name: str, document: Any, shape: type[T] = Any) -> T:  # type: ignore[assignment]
        """Commit the document unless a readable one is there already; either way, the one that counts."""

        def is_fit(stored: bytes) -> bool:
            try:
                self._decode(name, stored, shape)
            except AccountingError:
                return False
            return True

        return self._decode(name, self.bucket.put_once(self.key(name), self._encode(name, document), is_fit), shape)

    def _encode(self, name: str, document: Any) -> bytes:
        return encode(document) if name in PLAIN else seal(self.key(name), document)

    def _decode(self, name: str, body: bytes, shape: type[T]) -> T:
        key = self.key(name)
        try:
            document: T = decode(body, shape, key=None if name in PLAIN else key)
        except ValueError as error:
            raise AccountingError(f"The object {key} cannot be read: {error}.") from error
        owner = document.get("jobId") if isinstance(document, dict) else getattr(document, "job_id", None)
        # protection: another-jobs-object
        if owner not in (None, self.job_id):
            raise AccountingError(f"The object {key} belongs to job {owner}.")
        return document

    def has(self, name: str) -> bool:
        return self.bucket.head(self.key(name)) is not None

    def names(self, prefix: str) -> Iterator[str]:
        """The names of the job's objects that begin with this prefix, a page of a thousand at a time."""
        pages = iter(
            aws.s3().get_paginator("list_objects_v2").paginate(Bucket=self.bucket.name, Prefix=self.key(prefix))
        )
        while True:
            with aws.translated():
                page = next(pages, None)
            if page is None:
                return
            for item in page.get("Contents", []):
                yield prefix + item["Key"].removeprefix(self.key(prefix))

    def lines(self, name: str, start: int = 0, *, digest: str | None = None) -> Iterator[Line]:
        return self.bucket.lines(self.key(name), start, digest=digest)

    def put_lines(self, name: str, lines: Iterable[bytes]) -> str:
        return self.bucket.put_lines(self.key(name), lines)
