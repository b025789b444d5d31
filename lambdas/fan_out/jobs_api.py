"""JobsApi: the REST API of jobs and of uploads."""

import os
from functools import cache
from typing import Any, Final

from aws_lambda_powertools.logging import Logger, correlation_paths
from aws_lambda_powertools.metrics import Metrics

from common.environment import variable
from common.errors import Fault, Faults, InvalidRequestError
from common.models import parse
from common.rest import JSON, Answer, Api, Request, UnsupportedMediaTypeError
from fan_out.aws.storage import Bucket
from fan_out.jobs import STATUSES, Jobs
from fan_out.uploads import Completion, NewUpload, PartsAsked, Uploads

# Bytes. API Gateway and Lambda carry 6 MB with all that is around the body, and a binary one is a third longer.
LARGEST_CSV: Final = 4_000_000
# Bytes. The input of an execution is at most 256 KiB.
LARGEST_INPUT: Final = 200_000
# Bytes. 10,000 ETags of 34 characters, quoted.
LARGEST_COMPLETION: Final = 1_000_000

logger = Logger()
metrics = Metrics()
api = Api(logger, metrics)


@cache
def jobs() -> Jobs:
    # On an embedded AWS, the terminal's commands need no options.
    is_embedded = "AWS_ENDPOINT_URL" in os.environ
    stack = () if is_embedded else ("--stack", variable("STACK_NAME"), "--region", os.environ["AWS_DEFAULT_REGION"])
    return Jobs(Bucket(variable("BUCKET_NAME")), variable("STATE_MACHINE_ARN"), stack, variable("FINALIZER_ARN"))


@cache
def uploads() -> Uploads:
    return Uploads(Bucket(variable("BUCKET_NAME")))


@logger.inject_lambda_context(correlation_id_path=correlation_paths.API_GATEWAY_REST, clear_state=True)
@metrics.log_metrics
def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """A request of API Gateway (REST, proxy integration) → its answer. Never raises."""
    return api.handle(event, context)


@api.route("POST /jobs")
def start(request: Request) -> Answer:
    return _started(request, jobs().start(_document(request)))


@api.route("GET /jobs", ("limit", "pageToken", "status"))
def latest(request: Request) -> Answer:
    faults = Faults()
    limit = faults.read_whole("limit", request.query.get("limit", "20"), 1, 100)
    status = request.query.get("status")
    faults.check(status in (None, *STATUSES), "status", status, f"one of {', '.join(STATUSES)}")
    faults.raise_any()
    return Answer(200, jobs().list(limit, request.query.get("pageToken"), status))


@api.route("GET /jobs/{id}")
def get(request: Request) -> Answer:
    return Answer(200, jobs().get(request.parameters["id"]))


@api.route("GET /jobs/{id}/result")
def result(request: Request) -> Answer:
    return Answer(200, jobs().result(request.parameters["id"]))


@api.route("GET /jobs/{id}/failures")
def failures(request: Request) -> Answer:
    return Answer(200, jobs().failures(request.parameters["id"]))


@api.route("POST /jobs/{id}/retry")
def retry(request: Request) -> Answer:
    return _started(request, jobs().retry(request.parameters["id"], _document(request)))


@api.route("DELETE /jobs/{id}")
def stop(request: Request) -> Answer:
    return Answer(202, jobs().stop(request.parameters["id"]))


@api.route("POST /uploads")
def open_upload(request: Request) -> Answer:
    return Answer(201, uploads().open(parse(NewUpload, _document(request), InvalidRequestError)))


@api.route("POST /uploads/{id}/parts")
def more_parts(request: Request) -> Answer:
    asked = parse(PartsAsked, _document(request), InvalidRequestError)
    return Answer(200, uploads().parts(request.parameters["id"], asked))


@api.route("POST /uploads/{id}/complete")
def complete_upload(request: Request) -> Answer:
    asked = parse(Completion, request.json(LARGEST_COMPLETION, is_optional=True), InvalidRequestError)
    return Answer(200, uploads().complete(request.parameters["id"], asked))


@api.route("POST /tasks/upload")
def import_tasks(request: Request) -> Answer:
    """A CSV to import, the key of one that was uploaded, or the wish for a link to upload one."""
    if request.media_type == "text/csv":
        body = request.body(LARGEST_CSV, "; a larger CSV is uploaded through POST /uploads")
        return _started(request, jobs().import_csv(body))
    if request.media_type != JSON:
        rule = f"text/csv, or {JSON} for a presigned upload"
        raise UnsupportedMediaTypeError([Fault("Content-Type", request.media_type, rule)])
    document = _document(request)
    match document:
        case {"source": {"csv": key}} if len(document) == len(document["source"]) == 1:
            return _started(request, jobs().import_object(key))
        case {} if not document:
            link = uploads().link()
            return Answer(201, {"uploadUrl": link.pop("url"), **link})
    rule = '{} for a presigned upload, or {"source": {"csv": KEY}} to import an uploaded object'
    raise InvalidRequestError([Fault("body", document, rule)])


def _document(request: Request) -> dict[str, Any]:
    """The JSON body; an absent one is an empty object."""
    return request.json(LARGEST_INPUT, is_optional=True)


def _started(request: Request, job: dict[str, Any]) -> Answer:
    return Answer(202, job, {"Location": request.location(f"/jobs/{job['jobId']}")})
