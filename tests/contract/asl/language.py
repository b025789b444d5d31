"""The Amazon States Language, as far as the definition uses it: a field that is not here is refused.

A new field of the language is added here first, with its limits.
https://docs.aws.amazon.com/step-functions/latest/dg/amazon-states-language-state-machine-structure.html
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Discriminator, Field, Tag, model_validator
from pydantic.alias_generators import to_pascal

# https://docs.aws.amazon.com/step-functions/latest/dg/concepts-error-handling.html
RESERVED_ERRORS = frozenset({
    "States.ALL", "States.DataLimitExceeded", "States.ExceedToleratedFailureThreshold", "States.HeartbeatTimeout",
    "States.Http.Socket", "States.IntrinsicFailure", "States.ItemReaderFailed", "States.NoChoiceMatched",
    "States.ParameterPathFailure", "States.Permissions", "States.ResultPathMatchFailure",
    "States.ResultWriterFailed", "States.Runtime", "States.TaskFailed", "States.Timeout",
})  # fmt: skip
# What Lambda, and the SDK in front of it, raise; 429 is TooManyRequestsException.
LAMBDA_ERRORS = frozenset({
    "Lambda.ServiceException", "Lambda.AWSLambdaException", "Lambda.SdkClientException",
    "Lambda.ClientExecutionTimeoutException", "Lambda.Unknown", "Lambda.TooManyRequestsException",
})  # fmt: skip
# https://docs.aws.amazon.com/step-functions/latest/dg/input-output-contextobject.html
CONTEXT = frozenset({
    "$$.Execution.Id", "$$.Execution.Input", "$$.Execution.Name", "$$.Execution.RoleArn",
    "$$.Execution.StartTime", "$$.Execution.RedriveCount", "$$.State.EnteredTime", "$$.State.Name",
    "$$.State.RetryCount", "$$.StateMachine.Id", "$$.StateMachine.Name", "$$.Map.Item.Index", "$$.Map.Item.Value",
})  # fmt: skip

_PATH = re.compile(r"\$(\.[A-Za-z]\w*)*")
_FORMAT = re.compile(r"States\.Format\('((?:[^'\\{}]|\{\})*)'((?:, \$(?:\.[A-Za-z]\w*)+)+)\)")


def _is_value_of_a_path(text: str) -> bool:
    """A path into the input, a field of the context, or an intrinsic with as many arguments as its text takes."""
    if made := _FORMAT.fullmatch(text):
        return made[1].count("{}") == made[2].count(",")
    return text in CONTEXT or _PATH.fullmatch(text) is not None


def _check_template(node: Any) -> Any:
    """A payload template: the value of a name that ends with `.$` is a path, and no other is."""
    for name, value in node.items() if isinstance(node, dict) else enumerate(node):
        if isinstance(name, str) and name.endswith(".$"):
            if not isinstance(value, str) or not _is_value_of_a_path(value):
                raise ValueError(f"{name} must be a path or an intrinsic function, but is {value!r}")
        elif isinstance(value, dict | list):
            _check_template(value)
        elif isinstance(value, str) and re.match(r"\$($|[.$])|States\.", value):
            raise ValueError(f"{name} is a path, but its name does not end with .$")
    return node


Path = Annotated[str, Field(pattern=f"^{_PATH.pattern}$")]
Name = Annotated[str, Field(min_length=1, max_length=80)]
Seconds = Annotated[int, Field(ge=1, le=99_999_999)]
Template = Annotated[dict[str, Any], AfterValidator(_check_template)]
Substitution = Annotated[str, Field(pattern=r"^\$\{\w+\}$")]


class Model(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, alias_generator=to_pascal)


class Handler(Model):
    error_equals: list[str] = Field(min_length=1)

    @model_validator(mode="after")
    def _names_each_error_once(self) -> Handler:
        if len(set(self.error_equals)) != len(self.error_equals):
            raise ValueError("an error is named twice")
        if "States.ALL" in self.error_equals and self.error_equals != ["States.ALL"]:
            raise ValueError("States.ALL must stand alone")
        return self


class Retrier(Handler):
    max_attempts: int = Field(3, ge=0, le=99_999_999)
    interval_seconds: Seconds = 1
    backoff_rate: float = Field(2.0, ge=1)
    max_delay_seconds: int | None = Field(None, ge=1, lt=31_622_400)
    jitter_strategy: Literal["FULL", "NONE"] = "NONE"

    @model_validator(mode="after")
    def _delays_grow(self) -> Retrier:
        if self.max_delay_seconds is not None and self.max_delay_seconds <= self.interval_seconds:
            raise ValueError("MaxDelaySeconds must be greater than IntervalSeconds")
        return self


class Catcher(Handler):
    result_path: Path | None = "$"
    next: Name


def _states_all_last(handlers: list[Any]) -> list[Any]:
    named = [error for handler in handlers for error in handler.error_equals]
    if len(set(named)) != len(named):
        raise ValueError("an error is named in two entries")
    if "States.ALL" in named[:-1]:
        raise ValueError("States.ALL must be last")
    return handlers


Retriers = Annotated[list[Retrier], AfterValidator(_states_all_last)]
Catchers = Annotated[list[Catcher], AfterValidator(_states_all_last)]


class State(Model):
    comment: str = ""
    type: str


class InvocationParameters(Model):
    function_name: Substitution
    payload: Template


class Task(State):
    """A synchronous call of a Lambda function, and its answer without what Lambda says around it."""

    resource: Literal["arn:aws:states:::lambda:invoke"]
    output_path: Literal["$.Payload"]
    timeout_seconds: Seconds
    parameters: InvocationParameters
    retry: Retriers
    catch: Catchers = []
    next: Name


class InlineConfig(Model):
    mode: Literal["INLINE"]


class DistributedConfig(Model):
    mode: Literal["DISTRIBUTED"]
    execution_type: Literal["STANDARD"]


class ItemProcessor(Model):
    start_at: Name
    states: States


class InlineProcessor(ItemProcessor):
    processor_config: InlineConfig


class DistributedProcessor(ItemProcessor):
    processor_config: DistributedConfig


class Map(State):
    item_selector: Template
    result_path: Path | None
    catch: Catchers
    next: Name


class InlineMap(Map):
    """Its bound is in the file, or its path is."""

    items_path: Path
    # https://docs.aws.amazon.com/step-functions/latest/dg/state-map-inline.html
    max_concurrency: int | None = Field(None, ge=1, le=40)
    max_concurrency_path: Path | None = None
    item_processor: InlineProcessor

    @model_validator(mode="after")
    def _has_one_bound(self) -> Self:
        if (self.max_concurrency is None) == (self.max_concurrency_path is None):
            raise ValueError("one of MaxConcurrency and MaxConcurrencyPath")
        return self


class ReaderConfig(Model):
    input_type: Literal["JSONL"]


class ReaderParameters(Model):
    bucket: Substitution
    key: Path = Field(alias="Key.$")


class ItemReader(Model):
    resource: Literal["arn:aws:states:::s3:getObject"]
    reader_config: ReaderConfig
    parameters: ReaderParameters


class WriterParameters(Model):
    bucket: Substitution
    prefix: str = Field(alias="Prefix.$", pattern=f"^{_FORMAT.pattern}$")


class ResultWriter(Model):
    resource: Literal["arn:aws:states:::s3:putObject"]
    parameters: WriterParameters


class DistributedMap(Map):
    """A bound in the file would clash with the job's own, which its path gives."""

    label: str = Field(pattern=r"^[A-Za-z0-9]{1,40}$")
    item_reader: ItemReader
    max_concurrency_path: Path
    tolerated_failure_count_path: Path
    result_writer: ResultWriter
    item_processor: DistributedProcessor


class Rule(Model):
    variable: Path
    next: Name


class BooleanRule(Rule):
    boolean_equals: bool


class NumericRule(Rule):
    numeric_equals: int


class NullRule(Rule):
    is_null: bool


class Choice(State):
    choices: list[BooleanRule | NumericRule | NullRule] = Field(min_length=1)
    default: Name


class Succeed(State):
    output_path: Path = "$"


class FixedFail(State):
    error: str = Field(min_length=1)
    cause: str = Field(min_length=1, max_length=32_768)


class PassedFail(State):
    error_path: Path
    cause_path: Path


def _form(state: Any) -> str | None:
    """Which of the forms here a state should have."""
    if not isinstance(state, dict):
        return None
    if state.get("Type") == "Map":
        return "DistributedMap" if "ItemReader" in state else "InlineMap"
    if state.get("Type") == "Fail":
        return "PassedFail" if "ErrorPath" in state else "FixedFail"
    return str(state.get("Type"))


AnyState = Annotated[
    Annotated[Task, Tag("Task")]
    | Annotated[InlineMap, Tag("InlineMap")]
    | Annotated[DistributedMap, Tag("DistributedMap")]
    | Annotated[Choice, Tag("Choice")]
    | Annotated[Succeed, Tag("Succeed")]
    | Annotated[FixedFail, Tag("FixedFail")]
    | Annotated[PassedFail, Tag("PassedFail")],
    Discriminator(_form),
]
States = dict[Name, AnyState]


class StateMachine(Model):
    comment: str
    query_language: Literal["JSONPath"]
    start_at: Name
    timeout_seconds: Seconds
    states: States


for _model in (ItemProcessor, InlineProcessor, DistributedProcessor, InlineMap, DistributedMap, StateMachine):
    _model.model_rebuild()
