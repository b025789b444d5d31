"""The definition of the state machine: its language, and what this project decides about its states.

A test with the parameter `machine` is a check of any definition. The file's own passes all of them, and
test_mutants.py sees that each single fault of it fails one.
"""

from __future__ import annotations

import importlib
import inspect
import json
import re

import pytest

from fan_out import errors
from fan_out.model.costs import LONGEST_JOB
from fan_out.model.job_input import JobInput
from fan_out.model.plan import MOST_LISTERS, MOST_SEGMENTS
from fan_out.steps import quarantine, reduction
from infra.functions import FUNCTIONS, STATES
from tests.contract.asl.definition import FILE, Definition, Fields, following, read, write
from tests.contract.asl.language import LAMBDA_ERRORS, RESERVED_ERRORS, StateMachine
from tests.contract.asl.mutants import repetitions

TEXT = FILE.read_text()
DEFINITION = read(TEXT)


@pytest.fixture
def machine() -> Definition:
    return DEFINITION


# --- the file


def test_the_file_is_in_its_form() -> None:
    """`python -m tests.contract.asl.definition` writes it."""
    assert write(DEFINITION.fields) == TEXT
    assert len(TEXT.splitlines()) <= 180


def test_each_retrier_has_a_line() -> None:
    lines = TEXT.splitlines()
    for state in DEFINITION.states("Task").values():
        for retrier in state["Retry"]:
            assert any(line.strip().rstrip(",") == json.dumps(retrier) for line in lines)


def test_a_repeated_name_is_refused() -> None:
    texts = list(repetitions(DEFINITION))
    assert len(texts) > 150
    for text in texts:
        with pytest.raises(ValueError, match="repeated"):
            read(text)


# --- language and structure


def test_the_definition_is_in_the_language(machine: Definition) -> None:
    StateMachine.model_validate(machine.fields)


def test_every_name_is_unique_over_all_maps(machine: Definition) -> None:
    assert len(machine.states()) == sum(len(each["States"]) for each in machine.machines)


def test_every_state_is_reached_and_leads_on(machine: Definition) -> None:
    for each in machine.machines:
        reached: set[str] = set()
        waiting = [each["StartAt"]]
        while waiting:
            name = waiting.pop()
            assert name in each["States"], name
            if name not in reached:
                reached.add(name)
                waiting += following(each["States"][name])
        assert reached == set(each["States"])


def test_every_error_name_is_known(machine: Definition) -> None:
    named = {
        error
        for state in machine.states().values()
        for handler in [*state.get("Retry", []), *state.get("Catch", [])]
        for error in handler["ErrorEquals"]
    }
    ours = {name for name, each in vars(errors).items() if inspect.isclass(each)}
    assert named <= RESERVED_ERRORS | LAMBDA_ERRORS | ours
    assert named & ours


def test_only_a_map_gives_its_item(machine: Definition) -> None:
    for state in machine.states("Task").values():
        assert "$$.Map" not in json.dumps(state)


def test_substitutions_are_those_of_the_stack(machine: Definition) -> None:
    found = set(re.findall(r"\$\{(\w+)\}", json.dumps(machine.fields)))
    assert found == {"BucketName", *(f"{row.name}Arn" for row in STATES)}


# --- the way of a job


def test_a_job_goes_this_way(machine: Definition) -> None:
    """From each state to the next if nothing fails, and a Choice's way if no rule of it holds."""
    ways = {name: state.get("Next") or state.get("Default") for name, state in machine.states().items()}
    assert ways == {
        "Planner": "Segments", "Segments": "Manifest", "Manifest": "AnyShards", "AnyShards": "Shards",
        "Shards": "Reducer", "Reducer": "MoreToReduce", "MoreToReduce": "Nodes", "Nodes": "Reducer",
        "Lister": "MoreToList", "MoreToList": "Listed", "Worker": "MoreToWork", "MoreToWork": "Worked",
        "Merger": "MoreToMerge", "MoreToMerge": "Merged", "Outcome": "Failed", "Succeeded": None, "Failed": None,
        "RecordNotWritten": None, "Listed": None, "Worked": None, "Merged": None,
    }  # fmt: skip
    assert [each["StartAt"] for each in machine.machines] == ["Planner", "Lister", "Worker", "Merger"]


def test_a_call_that_ended_early_is_repeated(machine: Definition) -> None:
    states = machine.states()
    for name in ("Lister", "Worker", "Merger"):
        repeated = {"Variable": "$.done", "BooleanEquals": False, "Next": name}
        assert states[states[name]["Next"]]["Choices"] == [repeated]


def test_a_reducer_that_has_not_ended_is_repeated(machine: Definition) -> None:
    """At once, or behind the Mergers that it asks for. An answer that has ended has no cursor."""
    assert machine.states()["MoreToReduce"]["Choices"] == [
        {"Variable": "$.done", "BooleanEquals": True, "Next": "Outcome"},
        {"Variable": "$.cursor.spans", "IsNull": True, "Next": "Reducer"},
    ]


def test_a_job_of_no_tasks_has_no_shards_to_run(machine: Definition) -> None:
    empty = {"Variable": "$.shards", "NumericEquals": 0, "Next": "Reducer"}
    assert machine.states()["AnyShards"]["Choices"] == [empty]


def test_a_job_without_an_error_succeeds(machine: Definition) -> None:
    right = {"Variable": "$.error", "IsNull": True, "Next": "Succeeded"}
    assert machine.states()["Outcome"]["Choices"] == [right]


def test_a_job_ends_with_its_record_or_its_error(machine: Definition) -> None:
    ends = machine.states("Succeed", "Fail")
    assert {name: ends[name]["Type"] for name in ("Succeeded", "Failed", "RecordNotWritten")} == {
        "Succeeded": "Succeed", "Failed": "Fail", "RecordNotWritten": "Fail",
    }  # fmt: skip
    assert ends["Succeeded"]["OutputPath"] == "$.record"
    assert (ends["Failed"]["ErrorPath"], ends["Failed"]["CausePath"]) == ("$.error.name", "$.error.cause")
    assert ends["RecordNotWritten"]["Error"] == "RecordNotWrittenError"
    assert "retried" in ends["RecordNotWritten"]["Cause"]
    # What a call answers last is what its child or iteration ends with.
    assert "OutputPath" not in ends["Listed"] | ends["Worked"] | ends["Merged"]


def test_every_failure_of_a_job_reaches_the_reducer(machine: Definition) -> None:
    """The Reducer's own reaches a Fail state. The Planner's input may be no object that could hold the error.

    What fails at the nodes is no error of the job: the one that it may have already stays as it is.
    """
    places: dict[str, Fields] = {"Planner": {}, "Nodes": {"ResultPath": None}}
    for name, state in machine.fields["States"].items():
        if state["Type"] in ("Task", "Map"):
            place = places.get(name, {"ResultPath": "$.error"})
            following = "RecordNotWritten" if name == "Reducer" else "Reducer"
            assert state["Catch"] == [{"ErrorEquals": ["States.ALL"], **place, "Next": following}], name


def test_nothing_is_caught_within_a_map(machine: Definition) -> None:
    """Its tolerance counts what fails."""
    for each in machine.machines[1:]:
        assert not any("Catch" in state for state in each["States"].values())


# --- time and retries


def test_a_stuck_job_ends_some_day(machine: Definition) -> None:
    assert machine.fields["TimeoutSeconds"] == LONGEST_JOB <= 14 * 86_400


def test_a_state_waits_longer_than_its_function_runs(machine: Definition) -> None:
    """A minute longer, so that the function's own time-out is what is seen."""
    for name, state in machine.states("Task").items():
        assert state["TimeoutSeconds"] == FUNCTIONS[name].timeout + 60, name


# The errors that each state never retries.
PERMANENT = {
    "Planner": ["InvalidJobError", "SourceNotFoundError"],
    "Lister": ["InvalidJobError", "TaskServiceError", "AccountingError"],
    "Manifest": ["AccountingError", "CostLimitError", "InvalidJobError", "JobEndedError"],
    "Worker": ["ShardFailedError", "ShardStuckError", "AccountingError", "JobEndedError"],
    "Merger": ["AccountingError"],
    "Reducer": [],
}
TOO_MANY = "Lambda.TooManyRequestsException"
# The retriers of every state: how often, and the longest delay in seconds.
SHARED = {
    (TOO_MANY,): (300, 60),
    ("ThrottledError",): (12, 60),
    ("Lambda.ServiceException", "Lambda.AWSLambdaException", "Lambda.SdkClientException"): (6, 30),
    ("States.ALL",): (6, 30),
}
# All segments' retries are in the history of one execution: fewer, and further apart.
OF_LISTER = SHARED | {(TOO_MANY,): (25, 600)}
# A child's history is its own, so that it may wait longer; and a task may kill a worker several times.
OF_WORKER = SHARED | {(TOO_MANY,): (1000, 60), ("States.ALL",): (14, 30)}
# There are many in one history, and a job does not need them.
OF_MERGER = {names: (attempts // 2, longest) for names, (attempts, longest) in SHARED.items()} | {(TOO_MANY,): (6, 60)}
RETRIERS = {"Lister": OF_LISTER, "Worker": OF_WORKER, "Merger": OF_MERGER}


def test_shared_retriers_are_the_same_in_every_state(machine: Definition) -> None:
    for name, state in machine.states("Task").items():
        expected = [
            {
                "ErrorEquals": list(names),
                "MaxAttempts": attempts,
                "MaxDelaySeconds": longest,
                "JitterStrategy": "FULL",
            }
            for names, (attempts, longest) in RETRIERS.get(name, SHARED).items()
        ]
        assert state["Retry"][-len(expected) :] == expected, name


def test_permanent_errors_come_first_and_are_not_retried(machine: Definition) -> None:
    tasks = machine.states("Task")
    assert set(tasks) == set(PERMANENT)
    for name, state in tasks.items():
        named = PERMANENT[name]
        first = [{"ErrorEquals": named, "MaxAttempts": 0}] if named else []
        assert state["Retry"][: -len(SHARED)] == first, name


def test_lambdas_429_is_retried_patiently(machine: Definition) -> None:
    """For hours, where a job shares its account's concurrency with others."""
    for name, state in machine.states("Task").items():
        if name == "Merger":
            continue
        (retrier,) = [each for each in state["Retry"] if TOO_MANY in each["ErrorEquals"]]
        # With full jitter a delay is half the longest on average.
        assert retrier["MaxAttempts"] * retrier["MaxDelaySeconds"] / 2 > 2 * 3600


# Of a job with as many shards as a Distributed Map takes items: 100 million. The last 64 nodes fold to the root.
LEVELS = 4


def test_no_job_has_more_levels() -> None:
    assert reduction.FAN_IN ** (LEVELS + 1) >= 100_000_000


def test_retries_fit_into_the_history(machine: Definition) -> None:
    """An execution ends at 25,000 events. A retry is four: scheduled, started, failed, and the state's own."""
    calls = dict.fromkeys(PERMANENT, 1) | {"Lister": MOST_SEGMENTS, "Merger": reduction.SPANS * LEVELS}
    retries = {
        name: calls[name] * sum(each["MaxAttempts"] for each in state["Retry"])
        for name, state in machine.states("Task").items()
    }
    of_child = retries.pop("Worker")
    assert 4 * of_child < 25_000
    # The events of a span without a retry: of its iteration, its call, its Choice and its end.
    assert 4 * sum(retries.values()) + 11 * calls["Merger"] < 25_000


def test_an_error_is_retried_if_its_class_says_so() -> None:
    for name, named in PERMANENT.items():
        for error in named:
            assert not issubclass(getattr(errors, error), errors.RetryableError), (name, error)
    assert issubclass(errors.ThrottledError, errors.RetryableError)
    said = {
        name for name, each in vars(errors).items() if inspect.isclass(each) and "Never retried" in (each.__doc__ or "")
    }
    assert said == {error for named in PERMANENT.values() for error in named}


def test_a_reducer_is_retried_beyond_a_kind_that_kills(machine: Definition) -> None:
    (retrier,) = (each for each in machine.states()["Reducer"]["Retry"] if each["ErrorEquals"] == ["States.ALL"])
    assert retrier["MaxAttempts"] >= reduction.DEADLY + 1


def deaths_to_quarantine(tasks: int) -> int:
    """How many workers a deadly task ends until it is found alone and has killed DEADLY of them."""
    # The first leaves no trace, the second dies unmarked. Each after it dies in a stretch, a part of the one before.
    deaths, suspects = 2, max(1, tasks // quarantine.STRETCHES)
    while suspects > 1:
        deaths += 1
        suspects = max(1, suspects // quarantine.STRETCHES)
    return deaths + quarantine.DEADLY


def test_a_worker_is_retried_beyond_a_quarantine() -> None:
    largest = next(of.le for of in JobInput.model_fields["shard_size"].metadata if getattr(of, "le", None) is not None)
    retries, _ = OF_WORKER[("States.ALL",)]
    # And some for deaths of another reason meanwhile, which shows as a stuck shard if they are too many.
    assert retries > deaths_to_quarantine(largest) + quarantine.STALLS


# --- what goes from state to state


def own(*names: str) -> Fields:
    """Fields passed on under their own names."""
    return {f"{name}.$": f"$.{name}" for name in names}


EXECUTION = {"jobId.$": "$$.Execution.Name", "startedAt.$": "$$.Execution.StartTime"}
PAYLOADS: dict[str, Fields] = {
    "Planner": {**EXECUTION, "input.$": "$"},
    "Lister": own("jobId", "segment", "step", "cursor"),
    "Manifest": own("jobId", "listing"),
    "Worker": {
        **own("jobId", "shard", "listed", "shards", "workers", "resume"),
        "attempt.$": "$$.State.RetryCount",
    },
    # After any failure the state may lack whatever it had before.
    "Reducer": {**EXECUTION, "state.$": "$"},
    "Merger": own("jobId", "span"),
}


def test_state_function_and_handler_have_one_name(machine: Definition) -> None:
    tasks = machine.states("Task")
    assert set(tasks) == {row.name for row in STATES}
    for name, state in tasks.items():
        assert state["Parameters"]["FunctionName"] == f"${{{name}Arn}}"


def test_a_task_gets_exactly_its_payload(machine: Definition) -> None:
    payloads = {name: state["Parameters"]["Payload"] for name, state in machine.states("Task").items()}
    assert payloads == PAYLOADS


@pytest.mark.parametrize("name", PAYLOADS)
def test_a_handler_says_what_it_gets(name: str) -> None:
    assert FUNCTIONS[name].module == f"fan_out.{name.lower()}"
    handler = inspect.unwrap(importlib.import_module(FUNCTIONS[name].module).handler)
    sent = [field.removesuffix(".$") for field in PAYLOADS[name]]
    assert f"`{{{', '.join(sent)}}}` → " in (inspect.getdoc(handler) or "")
    assert set(re.findall(r'event\["(\w+)"\]', inspect.getsource(handler))) <= set(sent)


def test_an_item_becomes_exactly_its_input(machine: Definition) -> None:
    item = "$$.Map.Item.Value"
    assert {name: state["ItemSelector"] for name, state in machine.states("Map").items()} == {
        "Segments": {**own("jobId"), "segment.$": item, "step": 0, "cursor": None},
        "Shards": {**own("jobId", "listed", "shards", "workers"), "shard.$": item, "resume": False},
        # The Reducer's answer has no id of the job.
        "Nodes": {"jobId.$": "$$.Execution.Name", "span.$": item},
    }


def test_an_item_brings_what_its_first_state_reads(machine: Definition) -> None:
    for state in machine.states("Map").values():
        processor = state["ItemProcessor"]
        payload = processor["States"][processor["StartAt"]]["Parameters"]["Payload"]
        read_there = {path[2:] for path in payload.values() if not path.startswith("$$")}
        assert read_there == {name.removesuffix(".$") for name in state["ItemSelector"]}


# --- maps


def test_segments_are_listed_within_the_planners_bound(machine: Definition) -> None:
    segments = machine.states()["Segments"]
    assert segments["ItemsPath"] == "$.segments"
    assert segments["MaxConcurrencyPath"] == "$.listers"
    # https://docs.aws.amazon.com/step-functions/latest/dg/state-map-inline.html
    assert MOST_LISTERS <= 40
    # A few numbers a segment, of which there are few.
    assert segments["ResultPath"] == "$.listing"


def test_shards_run_as_children_within_the_jobs_bounds(machine: Definition) -> None:
    shards = machine.states()["Shards"]
    assert shards["ItemProcessor"]["ProcessorConfig"]["Mode"] == "DISTRIBUTED"
    assert shards["MaxConcurrencyPath"] == "$.workers"
    assert shards["ToleratedFailureCountPath"] == "$.toleratedFailureCount"
    assert shards["Label"] == "Shards"


def test_mergers_leave_room_for_others_and_no_trace(machine: Definition) -> None:
    nodes = machine.states()["Nodes"]
    assert nodes["ItemsPath"] == "$.cursor.spans"
    # A new account runs ten functions at a time, of which two are kept for the API.
    assert nodes["MaxConcurrency"] == 8 == reduction.SPANS / 3
    # The Reducer looks for what they committed, and gets its own last answer.
    assert nodes["ResultPath"] is None


def test_the_manifest_is_what_the_map_reads(machine: Definition) -> None:
    reader = machine.states()["Shards"]["ItemReader"]
    assert reader["Parameters"] == {"Bucket": "${BucketName}", "Key.$": "$.manifestKey"}


def test_what_children_answer_goes_to_the_bucket(machine: Definition) -> None:
    shards = machine.states()["Shards"]
    assert shards["ResultWriter"]["Parameters"] == {
        "Bucket": "${BucketName}",
        "Prefix.$": "States.Format('work/{}/results', $.jobId)",
    }
    # Not into the state, which the Reducer gets.
    assert shards["ResultPath"] is None


def test_every_task_and_map_says_what_it_is_for() -> None:
    for name, state in DEFINITION.states("Task", "Map").items():
        assert state.get("Comment"), name
