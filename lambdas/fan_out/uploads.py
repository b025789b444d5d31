"""Uploads of CSV objects by presigned links: one PUT for a small one, parts for a large one."""

import base64
import binascii
import re
from dataclasses import dataclass
from typing import Annotated, Any, Final

from botocore.exceptions import ClientError
from pydantic import Field

from common.errors import Fault, InvalidRequestError
from common.models import Sent
from fan_out.aws import clients as aws
from fan_out.aws.storage import LINK_SECONDS, Bucket
from fan_out.errors import UploadNotFoundError
from fan_out.model.job_input import UPLOADS, new_id

# A larger object is uploaded in parts, of which a failed one is sent again alone.
LARGEST_PUT: Final = 64 << 20
# https://docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html
LARGEST_OBJECT: Final = 5 << 40
MOST_PARTS: Final = 10_000
PART: Final = 16 << 20
_MIB: Final = 1 << 20
# Links in one answer; each takes about a millisecond to sign.
LINKS: Final = 100
_KEY: Final = re.compile(rf"{UPLOADS}(\d{{8}}-\d{{6}}-[0-9a-f]{{6}})\.csv")
_ID: Final = re.compile(r"(\d{8}-\d{6}-[0-9a-f]{6})/([!-~]+)")
_REFUSED: Final = {"InvalidPart", "InvalidPartOrder", "EntityTooSmall", "MalformedXML", "InvalidRequest"}
_ETAGS_RULE: Final = f"a list of the ETags of all parts in their order, 1 to {MOST_PARTS:,}"
_NOT_FOUND: Final = "There is no such upload, or it has expired."


class NewUpload(Sent):
    bytes: int | None = Field(None, ge=0, le=LARGEST_OBJECT, description=f"a whole number from 0 to {LARGEST_OBJECT:,}")


class PartsAsked(Sent):
    first: int = Field(alias="from", ge=1, le=MOST_PARTS, description=f"a whole number from 1 to {MOST_PARTS:,}")


class Completion(Sent):
    etags: list[Annotated[str, Field(min_length=1, max_length=200)]] = Field(
        min_length=1, max_length=MOST_PARTS, description=_ETAGS_RULE
    )


def named_id(key: str) -> str | None:
    """The id in the key of an upload that was opened here, and so of the job that imports it; else None."""
    found = _KEY.fullmatch(key)
    return found[1] if found else None


def key_of(upload: str) -> str:
    return f"{UPLOADS}{upload}.csv"


@dataclass(frozen=True, slots=True)
class Uploads:
    """The uploads of one deployment. An `uploadId` names the object's key and S3's own id."""

    bucket: Bucket

    def link(self) -> dict[str, Any]:
        """Where to PUT one CSV of up to 5 GiB, and the source that it is then."""
        key = key_of(new_id())
        url = self.bucket.link("put_object", key)
        return {"source": {"csv": key}, "url": url, "method": "PUT", "expiresIn": LINK_SECONDS}

    def open(self, asked: NewUpload) -> dict[str, Any]:
        """Begin an upload: one link, or an `uploadId` with links for its first parts if it has more than 64 MiB."""
        if asked.bytes is None or asked.bytes <= LARGEST_PUT:
            return self.link()
        part = max(PART, -(-asked.bytes // (MOST_PARTS * _MIB)) * _MIB)
        parts = -(-asked.bytes // part)
        name = new_id()
        with aws.translated():
            s3_id = aws.s3().create_multipart_upload(Bucket=self.bucket.name, Key=key_of(name))["UploadId"]
        return {
            "source": {"csv": key_of(name)},
            "uploadId": base64.urlsafe_b64encode(f"{name}/{s3_id}".encode()).decode().rstrip("="),
            "partBytes": part,
            "parts": parts,
            "urls": self._part_links(name, s3_id, 1, min(parts, LINKS)),
            "expiresIn": LINK_SECONDS,
        }

    def parts(self, upload_id: str, asked: PartsAsked) -> dict[str, Any]:
        """Links for up to 100 parts. Raises UploadNotFoundError for what is no id of an upload."""
        name, s3_id = _parsed(upload_id)
        last = min(asked.first + LINKS - 1, MOST_PARTS)
        return {"urls": self._part_links(name, s3_id, asked.first, last), "expiresIn": LINK_SECONDS}

    def complete(self, upload_id: str, asked: Completion) -> dict[str, Any]:
        """Join the parts into the object; safe to repeat. Raises UploadNotFoundError, InvalidRequestError."""
        name, s3_id = _parsed(upload_id)
        key = key_of(name)
        parts: Any = [{"PartNumber": number, "ETag": etag} for number, etag in enumerate(asked.etags, 1)]
        try:
            with aws.translated():
                aws.s3().complete_multipart_upload(
                    Bucket=self.bucket.name, Key=key, UploadId=s3_id, MultipartUpload={"Parts": parts}
                )
        except ClientError as error:
            code = aws.error_code(error)
            if code in _REFUSED:
                rule = f"{_ETAGS_RULE}; every part but the last has at least 5 MiB"
                raise InvalidRequestError([Fault("etags", asked.etags, rule)]) from error
            if code != "NoSuchUpload":
                raise
            # S3 forgets a completed upload's id; the key belongs to this upload alone.
            if self.bucket.head(key) is None:
                raise UploadNotFoundError(_NOT_FOUND) from error
        return {"source": {"csv": key}}

    def _part_links(self, name: str, s3_id: str, first: int, last: int) -> list[str]:
        return [
            self.bucket.link("upload_part", key_of(name), UploadId=s3_id, PartNumber=number)
            for number in range(first, last + 1)
        ]


def _parsed(upload_id: str) -> tuple[str, str]:
    try:
        text = base64.urlsafe_b64decode(upload_id + "=" * (-len(upload_id) % 4)).decode()
    except (binascii.Error, ValueError):
        text = ""
    found = _ID.fullmatch(text)
    if found is None:
        raise UploadNotFoundError(_NOT_FOUND)
    return found[1], found[2]
