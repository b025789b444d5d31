"""Where each protection of the reliability guide lives, the least change that removes it, and the tests that fail then.

The keys are the first cells of the table in docs/reliability.md, in its order. The tests of a row are those of its
removals.
"""

from __future__ import annotations

from dataclasses import dataclass

from tests.protections.cuts import (
    Cut,
    Entry,
    JsonCut,
    always,
    body,
    condition,
    delete,
    except_only,
    never,
    replace,
    value,
    without_keyword,
)

MACHINE = "statemachines/fan_out.asl.json"
SHARDS = ("States", "Shards")
LISTER = ("States", "Segments", "ItemProcessor", "States", "Lister")
WORKER = (*SHARDS, "ItemProcessor", "States", "Worker")
TOO_MANY = Entry("ErrorEquals", "Lambda.TooManyRequestsException")
ANY_ERROR = Entry("ErrorEquals", "States.ALL")
CSV_SOURCE = "lambdas/fan_out/sources/csv.py"
DOCUMENTS = "lambdas/fan_out/model/documents.py"
EARLY_STOP = "lambdas/fan_out/steps/early_stop.py"
FINALIZER = "lambdas/fan_out/finalizer.py"
FINALIZING = "lambdas/fan_out/steps/finalizing.py"
FOLDING = "lambdas/fan_out/steps/folding.py"
JOB_INPUT = "lambdas/fan_out/model/job_input.py"
JOBS = "lambdas/fan_out/jobs.py"
KIND = "lambdas/fan_out/model/kind.py"
KIND_MERGER = "lambdas/fan_out/steps/kind_merger.py"
KIND_RUNNER = "lambdas/fan_out/steps/kind_runner.py"
LISTING = "lambdas/fan_out/steps/listing.py"
MANIFEST = "lambdas/fan_out/manifest.py"
PLAN = "lambdas/fan_out/model/plan.py"
PLANNER = "lambdas/fan_out/planner.py"
PROCESS_GUARD = "lambdas/fan_out/steps/process_guard.py"
QUARANTINE = "lambdas/fan_out/steps/quarantine.py"
RATE_LIMITER = "lambdas/task_service/rate_limiter.py"
RECORD = "lambdas/fan_out/model/record.py"
REDUCTION = "lambdas/fan_out/steps/reduction.py"
PLANNING = "lambdas/fan_out/steps/planning.py"
SHARD_RUNNER = "lambdas/fan_out/steps/shard_runner.py"
STORAGE = "lambdas/fan_out/aws/storage.py"
TASK_STORE = "lambdas/task_service/store.py"
TASK_WRITES = "lambdas/task_service/writes.py"


@dataclass(frozen=True, slots=True)
class Removal:
    """A protection removed from a file by its cuts. Each of `tests` must fail without it."""

    protection: str
    file: str
    cuts: tuple[Cut | JsonCut, ...]
    tests: tuple[str, ...]

    def apply(self, text: str) -> str:
        """The file's text without the protection. Raises LookupError if there is nothing to take away."""
        for cut in self.cuts:
            text = cut.apply(text)
        return text


SMALL_PAGES = """
from fan_out import sources
sources.PAGE = plan.shard_size
batches = SOURCES[plan.source.type](store.bucket, plan, segment, cursor, list_function)
"""
PARTS_BY_LISTING = """
for number, name in enumerate(sorted(store.names(f"parts/{segment:04d}-"))):
    part = store.require(name, Part)
    skipped += part.skipped
    for shard in part.shards:
        yield encode(asdict(replace(shard, index=shards)))
        shards += 1
        listed += shard.count
"""

REMOVALS: dict[str, tuple[Removal, ...]] = {
    "a payload over 256 KiB": (
        Removal(
            "tasks go through S3",
            "lambdas/fan_out/lister.py",
            (Cut("states-carry-no-tasks", value('VALUE | {"shards": [shard.key for shard in part.shards]}')),),
            tests=("test_payloads_are_the_same_for_any_number_of_shards",),
        ),
        Removal(
            "a large result stays out of the record",
            RECORD,
            (Cut("a-large-result-stays-out", never),),
            tests=("test_a_large_result_stays_out_of_the_record",),
        ),
    ),
    "history over 25,000 events": (
        Removal(
            "a Distributed Map",
            MACHINE,
            (JsonCut((*SHARDS, "ItemProcessor", "ProcessorConfig"), {"Mode": "INLINE"}),),
            tests=("test_shards_run_as_children_within_the_jobs_bounds",),
        ),
        Removal(
            "few segments, each listed in as few calls as its time allows",
            LISTING,
            (
                Cut("source-of-a-step", replace(SMALL_PAGES)),
                Cut("cursor-near-the-deadline", always),
            ),
            tests=("test_the_parent_execution_is_the_same_at_200_shards",),
        ),
        Removal(
            "few segments of a large table",
            PLAN,
            (Cut("few-segments", value("math.ceil(segments)")),),
            tests=("test_segments_go_by_the_tables_size",),
        ),
        Removal(
            "a segment's retries fit into it",
            MACHINE,
            (JsonCut((*LISTER, "Retry", TOO_MANY, "MaxAttempts"), 300),),
            tests=("test_retries_fit_into_the_history",),
        ),
    ),
    "429 from Lambda": (
        Removal(
            "a retrier for it",
            MACHINE,
            (JsonCut(("States", "Planner", "Retry", TOO_MANY, "ErrorEquals"), ["Lambda.Unknown"]),),
            tests=("test_lambdas_429_is_retried_patiently",),
        ),
        Removal(
            "patience",
            MACHINE,
            (JsonCut((*WORKER, "Retry", TOO_MANY, "MaxAttempts"), 3),),
            tests=("test_lambdas_429_is_retried_patiently",),
        ),
    ),
    "429 before a worker starts": (
        Removal(
            "a call that never began did not die",
            QUARANTINE,
            (Cut("a-call-that-never-began-did-not-die", value("is_repeated")),),
            tests=(
                "test_throttled_starts_cost_one_object_a_shard",
                "test_a_throttled_start_costs_one_object_and_no_call",
                "test_a_refused_start_costs_one_mark_and_no_call",
            ),
        ),
        Removal(
            "an end on purpose is noted",
            QUARANTINE,
            (Cut("an-end-on-purpose-is-no-death", delete),),
            tests=("test_refused_starts_between_calls_are_no_deaths",),
        ),
        Removal(
            "a shard without deaths is worked on whole",
            QUARANTINE,
            (Cut("only-a-death-makes-careful", never),),
            tests=("test_a_throttled_start_costs_one_object_and_no_call",),
        ),
    ),
    "unbounded fan-out": (
        Removal(
            "the map's bound",
            MACHINE,
            (JsonCut((*SHARDS, "MaxConcurrencyPath")),),
            tests=(
                "test_the_peak_of_simultaneous_workers_is_the_bound",
                "test_shards_run_as_children_within_the_jobs_bounds",
            ),
        ),
    ),
    "an AWS account with few concurrent executions": (
        Removal(
            "the account's limit bounds the workers",
            PLAN,
            (Cut("the-accounts-limit", never),),
            tests=(
                "test_the_accounts_limit_bounds_the_workers_of_a_job",
                "test_workers_fit_into_the_job_and_the_account",
            ),
        ),
        Removal(
            "a worker of a kind that writes takes two",
            PLAN,
            (Cut("a-writer-takes-two", value("int(reserved is None)")),),
            tests=("test_workers_fit_into_the_job_and_the_account",),
        ),
        Removal(
            "a lister takes two",
            PLAN,
            (Cut("the-accounts-limit-of-listers", value("MOST_LISTERS")),),
            tests=("test_listers_fit_into_the_account", "test_a_large_table_is_listed_in_more_segments"),
        ),
        Removal(
            "a kind says that it writes",
            PLAN,
            (Cut("who-writes-says-so", never),),
            tests=("test_a_kind_that_does_not_say_that_it_writes_may_not",),
        ),
    ),
    "an account whose limit may not be read": (
        Removal(
            "the error is part of the reason",
            "lambdas/fan_out/aws/clients.py",
            (Cut("an-unknown-limit-is-no-bound", except_only("KeyError")),),
            tests=("test_a_limit_that_may_not_be_read_bounds_nothing",),
        ),
    ),
    "a poison task that raises": (
        Removal(
            "a failing task is a value",
            KIND_RUNNER,
            (Cut("a-failing-task-is-a-value", replace("return self._process(tasks)")),),
            tests=("test_an_exception_in_one_task_fails_that_task_alone",),
        ),
        Removal(
            "a failing batch is tried task by task",
            KIND_RUNNER,
            (Cut("a-failing-batch-is-divided", never),),
            tests=("test_an_exception_in_one_task_fails_that_task_alone",),
        ),
    ),
    "a poison task that kills its worker": (
        Removal(
            "a repeated call leaves a trace",
            QUARANTINE,
            (Cut("a-repeated-call-leaves-a-trace", delete),),
            tests=("test_a_shard_that_only_stalls_is_given_up",),
        ),
        Removal(
            "markers after a death",
            QUARANTINE,
            (Cut("markers-after-a-death", delete),),
            tests=(
                "test_the_killers_are_quarantined_and_no_other",
                "test_only_the_tasks_that_end_workers_are_quarantined",
            ),
        ),
    ),
    "a task that hangs until the time-out": (
        Removal(
            "a time-out is a death",
            MACHINE,
            (JsonCut((*WORKER, "Retry", ANY_ERROR, "ErrorEquals"), ["Runtime.ExitError"]),),
            tests=("test_tasks_that_hang_until_the_timeout_are_quarantined",),
        ),
    ),
    "a process that leaks, or that another task has damaged": (
        Removal(
            "a suspect's worker starts with it",
            QUARANTINE,
            (Cut("a-suspect-is-worked-on-first", never),),
            tests=(
                "test_a_process_that_can_do_only_so_many_tasks_costs_no_task",
                "test_a_task_that_kills_only_after_another_is_cleared",
            ),
        ),
    ),
    "a kind's value or line that JSON cannot hold": (
        Removal(
            "a value comes back from JSON unchanged",
            KIND,
            (Cut("a-value-comes-back-as-it-was", never),),
            tests=("test_a_value_that_is_not_json_fails_its_task_alone",),
        ),
        Removal(
            "a line's key is printable",
            FOLDING,
            (Cut("keys-are-printable", never),),
            tests=("test_a_line_that_is_none_fails_its_task_alone",),
        ),
        Removal(
            "a failed fold is rolled back",
            FOLDING,
            (Cut("a-failed-fold-is-rolled-back", delete),),
            tests=("test_a_value_that_is_not_json_fails_its_task_alone",),
        ),
    ),
    "a kind that raises or returns any object": (
        Removal(
            "every failure has a text",
            KIND,
            (Cut("any-exception-has-a-text", value("Failure(type(error).__name__, str(error))")),),
            tests=("test_hostile_tasks_of_one_job_cost_nobody_else",),
        ),
        Removal(
            "every failure has a name",
            KIND,
            (Cut("any-task-error-has-a-name", except_only("KeyboardInterrupt")),),
            tests=("test_hostile_tasks_of_one_job_cost_nobody_else",),
        ),
        Removal(
            "a value has at most 100 levels",
            DOCUMENTS,
            (Cut("depth-of-a-value", never),),
            tests=("test_hostile_tasks_of_one_job_cost_nobody_else",),
        ),
    ),
    "a kind that returns the same zero object each time": (
        Removal(
            "a copy is worked on",
            FOLDING,
            (Cut("a-zero-is-copied", replace("self._good = plain_json(progress.value)[0]")),),
            tests=("test_a_shared_zero_is_copied",),
        ),
    ),
    "a kind that damages its process": (
        Removal(
            "a damaged process ends itself",
            PROCESS_GUARD,
            (Cut("a-damaged-process-ends", never),),
            tests=("test_hostile_tasks_of_one_job_cost_nobody_else",),
        ),
        Removal(
            "though it has no streams to say so",
            PROCESS_GUARD,
            (Cut("a-process-without-streams-ends", replace("os.write(2, damage.encode())\n_exit(1)")),),
            tests=("test_a_damaged_process_ends_itself",),
        ),
        Removal(
            "functions of modules are compared",
            PROCESS_GUARD,
            (Cut("modules-are-compared", value("(builtins, hashlib, json)")),),
            tests=("test_a_damaged_process_ends_itself", "test_hostile_tasks_of_one_job_cost_nobody_else"),
        ),
        Removal(
            "and of the SDK",
            PROCESS_GUARD,
            (Cut("the-sdk-is-compared", value("()")),),
            tests=("test_a_damaged_process_ends_itself",),
        ),
        Removal(
            "imports find the same modules",
            PROCESS_GUARD,
            (Cut("imports-find-the-same-modules", delete),),
            tests=("test_a_damaged_process_ends_itself", "test_hostile_tasks_of_one_job_cost_nobody_else"),
        ),
        Removal(
            "what a kind is given stays",
            PROCESS_GUARD,
            (Cut("what-a-kind-is-given-stays", replace("return")),),
            tests=("test_hostile_tasks_of_one_job_cost_nobody_else",),
        ),
        Removal(
            "so does a worker whose call ends by an error",
            "lambdas/fan_out/worker.py",
            (Cut("a-damaged-worker-ends", body),),
            tests=("test_hostile_methods_of_a_job_cost_no_other_job",),
        ),
        Removal(
            "and a planner",
            PLANNING,
            (Cut("a-damaged-planner-ends", body),),
            tests=("test_hostile_methods_of_a_job_cost_no_other_job",),
        ),
        Removal(
            "and a process of the API",
            PLANNING,
            (Cut("a-damaged-planner-ends", body),),
            tests=("test_a_filter_that_damages_the_api_ends_its_process",),
        ),
        Removal(
            "and a reducer",
            KIND_MERGER,
            (Cut("a-damaged-reducer-ends", delete),),
            tests=("test_hostile_methods_of_a_job_cost_no_other_job",),
        ),
        Removal(
            "so does a fork that returns",
            PROCESS_GUARD,
            (Cut("a-fork-does-not-return", never),),
            tests=("test_a_damaged_process_ends_itself",),
        ),
        Removal(
            "a partial adds up",
            SHARD_RUNNER,
            (Cut("a-partial-adds-up", never),),
            tests=("test_a_partial_that_does_not_add_up_is_not_committed",),
        ),
    ),
    "a kind that breaks a rule, or whose filter fails": (
        Removal(
            "rules are checked when it is loaded",
            KIND,
            (Cut("rules-of-a-kind", never),),
            tests=("test_a_kind_that_breaks_a_rule_is_refused",),
        ),
        Removal(
            "and its filter when a job is planned",
            PLAN,
            (Cut("a-fault-of-filter", except_only("KeyboardInterrupt")),),
            tests=("test_hostile_methods_of_a_job_cost_no_other_job",),
        ),
    ),
    "a kind that fails on the job's result": (
        Removal(
            "a fault of merge or summary is kept apart",
            KIND_MERGER,
            (Cut("a-fault-of-the-result", except_only("KeyboardInterrupt")),),
            tests=("test_a_kinds_fault_costs_the_result_not_the_tally",),
        ),
        Removal(
            "any error has a text",
            KIND,
            (Cut("any-exception-has-a-text", value("Failure(type(error).__name__, str(error))")),),
            tests=("test_a_kinds_fault_costs_the_result_not_the_tally",),
        ),
    ),
    "a kind that kills the reducer": (
        Removal(
            "deaths at one step are counted",
            KIND_MERGER,
            (Cut("deaths-of-a-reducer", never),),
            tests=("test_a_kind_that_kills_the_reducer_costs_the_result",),
        ),
        Removal(
            "the Finalizer's last call goes on without the kind",
            FINALIZER,
            (Cut("deadly-for-the-finalizer", value("3")),),
            tests=("test_a_kind_that_kills_the_finalizer_costs_the_result",),
        ),
        Removal(
            "an exception is no death",
            KIND_MERGER,
            (Cut("an-exception-is-no-death", delete),),
            tests=("test_a_throttled_reducer_is_not_taken_for_a_dead_one",),
        ),
    ),
    "deaths that no task caused": (
        Removal(
            "a suspect must kill alone",
            QUARANTINE,
            (
                Cut("a-suspect-must-kill-alone", value("True")),
                Cut("deaths-are-of-one-stretch", value("self.deaths")),
            ),
            tests=("test_deaths_among_neighbours_do_not_count_against_a_task",),
        ),
        Removal(
            "three times",
            QUARANTINE,
            (Cut("three-deaths", value("1")),),
            tests=("test_a_task_that_kills_two_workers_alone_succeeds",),
        ),
    ),
    "a function runs twice at once": (
        Removal(
            "conditional commits",
            STORAGE,
            (Cut("first-commit-counts", without_keyword("IfNoneMatch")),),
            tests=(
                "test_of_two_workers_on_one_shard_the_first_commit_counts",
                "test_of_two_reducers_the_first_commit_of_a_node_counts",
                "test_a_finalizer_that_races_the_reducer_agrees_with_it",
            ),
        ),
        Removal(
            "of partials",
            SHARD_RUNNER,
            (
                Cut(
                    "the-first-partial-counts",
                    replace("self._store.put(self._shard.partial, asdict(made))\nreturn made"),
                ),
            ),
            tests=("test_of_two_workers_on_one_shard_the_first_commit_counts",),
        ),
        Removal(
            "of nodes",
            REDUCTION,
            (Cut("first-node-counts", replace("self._store.put(name, asdict(node))")),),
            tests=("test_of_two_reducers_the_first_commit_of_a_node_counts",),
        ),
        Removal(
            "of records",
            FINALIZING,
            (Cut("first-record-counts", replace("store.put(RECORD, record)\nreturn record")),),
            tests=("test_a_finalizer_that_races_the_reducer_agrees_with_it",),
        ),
    ),
    "a function still runs after its job was stopped": (
        Removal(
            "a record is written once",
            FINALIZING,
            (
                Cut("a-record-is-written-once", never),
                Cut("first-record-counts", replace("store.put(RECORD, record)\nreturn record")),
            ),
            tests=("test_a_function_that_outlives_its_job_spoils_nothing",),
        ),
        Removal(
            "a retry goes by the record",
            PLANNING,
            (Cut("a-retry-goes-by-the-record", value('earlier.has("manifest.json")')),),
            tests=("test_a_retry_of_an_unlisted_job_lists_its_source_anew",),
        ),
    ),
    "a lost acknowledgement of a write to S3": (
        Removal(
            "a commit that exists is read",
            STORAGE,
            (Cut("a-commit-that-exists-is-read", condition("True")),),
            tests=("test_the_answer_to_any_write_may_get_lost",),
        ),
    ),
    "a lost acknowledgement of an effect": (
        Removal(
            "the key of a creation",
            TASK_WRITES,
            (Cut("the-key-of-a-creation-is-kept", never),),
            tests=("test_a_write_with_lost_answers_applies_once",),
        ),
        Removal(
            "the key of a change",
            TASK_WRITES,
            (Cut("the-key-of-a-change-is-kept", never),),
            tests=("test_a_write_with_lost_answers_applies_once",),
        ),
    ),
    "every answer of the database to an API request is lost": (
        Removal(
            "a read of the table",
            TASK_STORE,
            (Cut("a-look-after-a-lost-write", value("None")),),
            tests=("test_a_change_whose_every_answer_was_lost_is_known_to_stand",),
        ),
    ),
    "an empty scan page with a key": (
        Removal(
            "only a missing cursor ends a listing",
            TASK_STORE,
            (Cut("an-empty-page-is-not-the-last", condition("last_key is None or not items")),),
            tests=("test_empty_pages_do_not_end_a_listing",),
        ),
    ),
    "unprocessed keys of a batch": (
        Removal(
            "they are resent",
            TASK_STORE,
            (Cut("unprocessed-keys-are-not-missing", value("[]")),),
            tests=("test_unprocessed_keys_are_read_again",),
        ),
        Removal(
            "or the call is throttled",
            TASK_STORE,
            (Cut("an-unprocessed-key-is-throttled", condition("left and not has_time()")),),
            tests=("test_unprocessed_keys_are_read_again",),
        ),
    ),
    "the database throttles or refuses some of a call's writes": (
        Removal(
            "what a batch of creations leaves is written",
            TASK_WRITES,
            (Cut("what-a-batch-leaves-is-written", value("{each.task_id for each in creations}")),),
            tests=("test_what_a_batch_does_not_create_is_written_by_itself",),
        ),
        Removal(
            "and slows the writer down if it was throttled",
            TASK_WRITES,
            (Cut("a-throttled-statement-slows-down", never),),
            tests=("test_a_throttled_statement_slows_the_writer_down",),
        ),
        Removal(
            "by a request of its own",
            TASK_WRITES,
            (Cut("only-an-invalid-item-is-invalid", never),),
            tests=("test_a_lasting_error_is_raised_not_throttled",),
        ),
        Removal(
            "which is sent again",
            TASK_WRITES,
            (Cut("a-throttled-write-is-sent-again", replace("break")),),
            tests=("test_a_throttled_write_cancels_no_other", "test_throttling_that_passes_is_outwaited"),
        ),
        Removal(
            "writes to one task keep their order",
            TASK_WRITES,
            (Cut("nothing-overtakes-a-throttled-write", always),),
            tests=("test_a_write_behind_a_late_success_is_throttled_too",),
        ),
    ),
    "the database throttles writes for minutes": (
        Removal(
            "the rate is halved",
            RATE_LIMITER,
            (Cut("a-throttle-slows-down", delete),),
            tests=("test_a_throttle_halves_the_rate_down_to_a_bound", "test_the_rate_of_a_table_is_found_and_used"),
        ),
        Removal(
            "and grows again",
            RATE_LIMITER,
            (Cut("a-success-speeds-up", delete),),
            tests=("test_a_second_of_successes_adds_the_same_at_any_rate",),
        ),
        Removal(
            "until the function's deadline",
            RATE_LIMITER,
            (Cut("no-wait-beyond-the-deadline", never),),
            tests=("test_a_turn_beyond_the_deadline_is_not_waited_for",),
        ),
    ),
    "the database, or Lambda, throttles writes for hours": (
        Removal(
            "a throttled write never fails",
            KIND_RUNNER,
            (Cut("a-throttled-write-never-fails", condition("answer.retry and may_retry")),),
            tests=(
                "test_a_throttled_write_is_tried_again_without_a_limit",
                "test_a_table_that_takes_a_write_a_second_fails_no_task",
            ),
        ),
        Removal(
            "a call of WriteTasks that Lambda throttles is answered as throttled writes",
            "lambdas/fan_out/aws/task_service.py",
            (Cut("a-throttled-call-is-an-outcome", except_only("()")),),
            tests=(
                "test_a_throttled_call_of_write_tasks_fails_no_task",
                "test_workers_that_hold_all_concurrency_fail_no_task",
            ),
        ),
        Removal(
            "growing pauses",
            KIND_RUNNER,
            (Cut("pauses-grow-to-their-longest", value("PAUSE * 2")),),
            tests=("test_throttled_writes_are_paced",),
        ),
        Removal(
            "a late call saves what is done",
            SHARD_RUNNER,
            (Cut("a-late-batch-keeps-what-is-done", delete),),
            tests=("test_a_late_batch_keeps_the_writes_that_are_done",),
        ),
    ),
    "an effect that changes nothing": (
        Removal(
            "a condition that something changes",
            TASK_STORE,
            (Cut("a-change-changes-something", delete),),
            tests=("test_a_change_that_changes_nothing_is_not_written",),
        ),
    ),
    "tasks change while they are listed": (
        Removal(
            "a segment's cursor is a key",
            TASK_STORE,
            # A position instead, which others shift.
            (
                Cut("a-cursor-is-a-key", replace('request["Limit"] += int(after)')),
                Cut(
                    "a-page-ends-at-a-key",
                    replace(
                        "begin = int(after or 0)\n"
                        'answer["Items"] = answer["Items"][begin:]\n'
                        'last_id = str(begin + len(answer["Items"])) if last_key else None'
                    ),
                ),
                Cut(
                    "a-full-page-ends-at-a-key",
                    value(
                        "Page(tasks, str(int(after or 0) + position + 1) if position + 1 < len(items) else last_key)"
                    ),
                ),
            ),
            tests=("test_tasks_that_exist_throughout_are_listed_exactly_once",),
        ),
    ),
    "a task changes after it was listed": (
        Removal(
            "a write is for the listed version",
            TASK_WRITES,
            (Cut("a-write-is-for-the-listed-version", never),),
            tests=("test_a_change_after_the_listing_is_kept",),
        ),
        Removal(
            "DynamoDB's own condition",
            TASK_STORE,
            (Cut("an-update-has-a-condition", value('"#version >= :given"')),),
            tests=("test_a_concurrent_update_is_never_overwritten",),
        ),
    ),
    "a throttled page in a long listing": (
        Removal(
            "what is listed is kept",
            LISTING,
            (Cut("listed-so-far-is-kept", condition("True")),),
            tests=("test_a_throttled_page_keeps_what_was_listed_before_it",),
        ),
    ),
    "the table's size is old, or cannot be read": (
        Removal(
            "the size is a hint",
            PLANNING,
            (Cut("a-size-is-a-hint", except_only("KeyError")),),
            tests=("test_a_table_whose_size_is_unknown_is_listed",),
        ),
    ),
    "the table grows between two attempts of the Planner": (
        Removal(
            "the committed plan's segments",
            PLANNER,
            (Cut("segments-of-the-committed-plan", value("own.segments")),),
            tests=("test_a_repeated_planner_keeps_its_segments",),
        ),
    ),
    "the Task Service answers what is no task": (
        Removal(
            "a line's form is checked",
            "lambdas/fan_out/aws/task_service.py",
            (Cut("a-listed-line-is-a-task", never),),
            tests=("test_a_line_that_is_no_task_is_an_error",),
        ),
    ),
    "a shard cannot be written while the next page is read": (
        Removal(
            "a part comes after its shards",
            LISTING,
            (Cut("a-part-after-its-shards", delete),),
            tests=(
                "test_a_lister_holds_few_shards_and_one_page_more",
                "test_a_shard_that_cannot_be_written_has_no_part",
            ),
        ),
    ),
    "a lister's memory": (
        Removal(
            "few shards in flight",
            LISTING,
            (Cut("few-shards-in-flight", never),),
            tests=("test_a_lister_holds_few_shards_and_one_page_more",),
        ),
    ),
    "skewed segments": (
        Removal(
            "each segment continues by itself",
            LISTING,
            (Cut("cursor-near-the-deadline", never),),
            tests=("test_a_late_lister_of_tasks_goes_on_too",),
        ),
    ),
    "the lister's 15 minutes": (
        Removal(
            "a cursor near the deadline",
            LISTING,
            (Cut("cursor-near-the-deadline", never),),
            tests=("test_a_late_lister_answers_a_cursor_for_the_next_step",),
        ),
    ),
    "the worker's 15 minutes": (
        Removal(
            "a checkpoint near the deadline",
            SHARD_RUNNER,
            (Cut("a-checkpoint-near-the-deadline", never),),
            tests=("test_a_shard_of_any_length_finishes_without_repeats",),
        ),
        Removal(
            "and every minute",
            SHARD_RUNNER,
            (Cut("a-checkpoint-every-minute", never),),
            tests=("test_a_long_call_saves_a_checkpoint_now_and_then",),
        ),
    ),
    "the reducer's 15 minutes": (
        Removal(
            "a call goes on at the node where the last one ended",
            REDUCTION,
            (Cut("reducer-goes-on-there", value("replace(VALUE, first=VALUE.first + 1)")),),
            tests=("test_a_reduction_over_many_calls_gives_the_same_bytes",),
        ),
        Removal(
            "a cursor near the deadline",
            REDUCTION,
            (Cut("reducer-cursor", never),),
            tests=("test_a_late_reducer_answers_a_cursor_and_the_error",),
        ),
    ),
    "a Merger fails, dies or is throttled": (
        Removal(
            "the Reducer makes what is missing",
            REDUCTION,
            (Cut("what-mergers-left", condition("not cursor.spans")),),
            tests=("test_the_reducer_makes_what_mergers_left",),
        ),
        Removal(
            "and shares a level once",
            REDUCTION,
            (Cut("a-level-is-shared-once", condition("is_shared and cursor.node == 0 and self.width(0) >= WIDE")),),
            tests=("test_a_level_is_given_to_mergers_once",),
        ),
        Removal(
            "deaths of Mergers count for nothing",
            KIND_MERGER,
            (Cut("mergers-leave-the-marker", condition("self._fault is not None")),),
            tests=("test_mergers_leave_the_deaths_of_a_reducer_alone",),
        ),
    ),
    "a reducer's memory": (
        Removal(
            "lines are streamed",
            REDUCTION,
            (Cut("lines-are-streamed", value("[iter(list(each)) for each in VALUE]")),),
            tests=("test_a_merges_memory_does_not_grow_with_its_lines",),
        ),
        Removal(
            "at most 64 children a node",
            REDUCTION,
            (Cut("fan-in", value("1_000_000")),),
            tests=("test_the_open_streams_of_a_node_fit_into_the_reducers_memory",),
        ),
    ),
    "overload of a service that a kind calls": (
        Removal(
            "a rate limit",
            KIND_RUNNER,
            (Cut("a-rate-limit", delete),),
            tests=("test_no_window_has_more_starts_than_the_rate_limit",),
        ),
        Removal(
            "a retry budget",
            KIND_RUNNER,
            (Cut("a-retry-budget", value("number < ATTEMPTS")),),
            tests=("test_the_retries_of_one_call_are_bounded",),
        ),
    ),
    "one task of a batch is always throttled": (
        Removal(
            "the last attempt is task by task",
            KIND_RUNNER,
            (Cut("the-last-attempt-is-alone", value("False")),),
            tests=("test_a_task_that_is_refused_among_others_fails_alone",),
        ),
    ),
    "throttling by a service that a kind calls, longer than a call": (
        Removal(
            "attempts are counted across calls",
            SHARD_RUNNER,
            (Cut("attempts-are-counted-across-calls", value("(0, 0)")),),
            tests=("test_throttling_across_calls_fails_the_task_only",),
        ),
    ),
    "stray objects in the job's prefix": (
        Removal(
            "parts are read by name",
            LISTING,
            (Cut("parts-by-name", replace(PARTS_BY_LISTING)),),
            tests=("test_stray_objects_of_dead_attempts_are_never_taken_in",),
        ),
        Removal(
            "shards have their content in their names",
            LISTING,
            (Cut("content-in-the-key", value('store.key(f"shards/{segment:04d}-{step:06d}-{index:06d}.jsonl")')),),
            tests=("test_another_listing_cannot_change_a_committed_shard",),
        ),
    ),
    "a missing part": (
        Removal(
            "parts are counted",
            LISTING,
            (
                Cut(
                    "parts-are-counted",
                    value("store.find(part_name(segment, number), Part) or Part([], 0, None)"),
                ),
            ),
            tests=("test_a_missing_part_fails_the_job_and_is_named",),
        ),
    ),
    "a missing shard object": (
        Removal(
            "the record names what is lost",
            REDUCTION,
            (Cut("a-lost-object-is-named", delete),),
            tests=("test_a_missing_shard_fails_the_job_and_is_named",),
        ),
    ),
    "a damaged object": (
        Removal(
            "a seal on documents",
            DOCUMENTS,
            (Cut("seal", never),),
            tests=("test_a_damaged_object_is_lost_and_named",),
        ),
        Removal(
            "with their key",
            DOCUMENTS,
            (Cut("seal-names-its-key", replace("if key is not None:\n    document.pop('object')")),),
            tests=("test_a_damaged_object_is_lost_and_named",),
        ),
        Removal(
            "digests of files",
            STORAGE,
            (Cut("digest-of-lines", never),),
            tests=("test_a_damaged_object_is_lost_and_named",),
        ),
        Removal(
            "an unreadable object is no commit",
            STORAGE,
            (Cut("an-unreadable-object-is-no-commit", condition("True")),),
            tests=("test_a_damaged_object_is_lost_and_named",),
        ),
        Removal(
            "counts add up to the shard",
            REDUCTION,
            (Cut("counts-of-an-object", never),),
            tests=("test_a_partial_of_too_few_tasks_is_lost",),
        ),
        Removal(
            "a checkpoint's counts, too",
            REDUCTION,
            (Cut("counts-of-an-object", never),),
            tests=("test_a_checkpoint_of_other_counts_is_lost",),
        ),
        Removal(
            "an object names its job",
            STORAGE,
            (Cut("another-jobs-object", never),),
            tests=("test_a_damaged_object_is_lost_and_named",),
        ),
    ),
    "a list of failures that was overwritten": (
        Removal(
            "its ETag is committed",
            PLANNING,
            (Cut("version-of-the-failures", value("root is not None")),),
            tests=("test_a_damaged_list_of_failures_is_not_retried_from",),
        ),
    ),
    "a missing partial": (
        Removal(
            "the manifest says what must be there",
            REDUCTION,
            (
                Cut("what-must-be-there", delete),
                Cut("what-is-left", value("0")),
            ),
            tests=("test_the_tasks_of_a_missing_partial_are_unprocessed",),
        ),
    ),
    "silent partial success": (
        Removal(
            "the tally decides",
            RECORD,
            (Cut("partial-is-a-status", value('"FAILED" if problem is not None else "SUCCEEDED"')),),
            tests=("test_the_tolerance_decides_between_partial_and_failed",),
        ),
        Removal(
            "exit code 3",
            "fanout/cli.py",
            (Cut("partial-is-not-success", value("SUCCESS")),),
            tests=("test_run_prints_the_record_and_exits_by_its_status",),
        ),
    ),
    "mass failure": (
        Removal(
            "failed shards count towards the map's tolerance",
            "lambdas/fan_out/worker.py",
            (Cut("failed-shards-end-the-map", never),),
            tests=("test_a_job_whose_tasks_all_fail_works_on_few_shards",),
        ),
    ),
    "failures spread over all shards": (
        Removal(
            "failures are added up across shards",
            EARLY_STOP,
            (Cut("failures-are-added-up", value("failed")),),
            tests=("test_a_job_whose_every_other_task_fails_is_stopped_early",),
        ),
    ),
    "failing tasks within the tolerance": (
        Removal(
            "only proven excess counts",
            EARLY_STOP,
            (Cut("only-proven-excess-counts", never),),
            tests=("test_a_job_within_its_tolerance_is_never_stopped_early",),
        ),
        Removal(
            "the map's count is of the smallest shards",
            MANIFEST,
            (Cut("the-map-is-never-stricter", value("int(percentage * len(counts) / 100)")),),
            tests=("test_the_map_is_never_stricter_than_the_job",),
        ),
    ),
    "a kind that kills on many tasks": (
        Removal(
            "a bound on quarantined tasks",
            QUARANTINE,
            (Cut("few-tasks-of-a-shard-are-quarantined", never),),
            tests=("test_a_kind_that_kills_throughout_is_given_up",),
        ),
    ),
    "rare deaths in a long shard": (
        Removal(
            "the count of retries starts again when the shard moves on",
            QUARANTINE,
            (Cut("retries-start-anew", never),),
            tests=("test_a_shard_that_moves_on_never_runs_out_of_retries",),
        ),
    ),
    "tasks that take minutes": (
        Removal(
            "the longest batch so far is part of the deadline",
            SHARD_RUNNER,
            (Cut("the-longest-batch-counts", value("self._runner.limiter.seconds_until(len(batch))")),),
            tests=("test_a_task_is_not_started_without_time_for_the_longest",),
        ),
    ),
    "a CSV overwritten while it is listed": (
        Removal(
            "reads are of the version that was planned",
            STORAGE,
            (Cut("version-of-a-source", value("{}")),),
            tests=("test_an_overwritten_csv_is_never_mixed_with_the_new_one",),
        ),
    ),
    "a job id that was used before": (
        Removal(
            "the plan is committed once",
            PLANNER,
            (
                Cut(
                    "a-plan-is-committed-once",
                    replace("store.put('job.json', own.to_json())\nstarted_at = own.started_at"),
                ),
            ),
            tests=("test_a_name_whose_earlier_job_left_objects_is_refused",),
        ),
    ),
    "a job id that was used before, its objects gone": (
        Removal(
            "effect keys contain the job's start",
            PLAN,
            (Cut("scope-has-the-start", value("job_id")),),
            tests=("test_an_expired_jobs_name_used_again_is_another_job",),
        ),
    ),
    "workers that all die, with 100% tolerated": (
        Removal(
            "a job without a finished shard is FAILED",
            RECORD,
            (Cut("no-shard-finished", never),),
            tests=("test_a_job_without_a_finished_shard_fails",),
        ),
    ),
    "the event of a job's end is lost": (
        Removal(
            "a request for the job",
            JOBS,
            (Cut("a-lost-event-is-made-up-for", delete),),
            tests=("test_asking_for_a_job_without_its_record_finalizes_it",),
        ),
        Removal(
            "an hourly sweep",
            "infra/constructs/workflow.py",
            (Cut("a-sweep-every-hour", replace("sweep = rule")),),
            tests=("test_an_hourly_sweep_reaches_the_finalizer",),
        ),
        Removal(
            "a sweep goes on behind a job that fails it",
            FINALIZER,
            (Cut("a-sweep-goes-on", except_only("KeyError")),),
            tests=("test_a_job_that_fails_the_sweep_stops_no_other",),
        ),
    ),
    "a job has ended long ago and has no record": (
        Removal(
            "nobody waits for it",
            JOBS,
            (Cut("no-record-is-pending-forever", never),),
            tests=("test_a_job_whose_record_has_expired_is_told_so",),
        ),
    ),
    "the intermediate objects of a job have expired": (
        Removal(
            "what a retry needs is kept elsewhere",
            STORAGE,
            (Cut("what-a-retry-needs-is-kept", value('"work"')),),
            tests=(
                "test_a_job_can_be_looked_at_without_its_intermediates",
                "test_a_job_can_be_retried_without_its_intermediates",
            ),
        ),
    ),
    "two calls finalize one job": (
        Removal(
            "one of them leaves",
            FINALIZER,
            (Cut("one-finalizer-at-a-time", never),),
            tests=("test_a_call_beside_another_leaves_the_job_to_it",),
        ),
    ),
    "a stuck job": (
        Removal(
            "a time-out on the machine",
            MACHINE,
            (JsonCut(("TimeoutSeconds",)),),
            tests=("test_a_stuck_job_ends_some_day",),
        ),
        Removal(
            "a time-out on every Task",
            MACHINE,
            (JsonCut(("States", "Planner", "TimeoutSeconds")),),
            tests=("test_a_state_waits_longer_than_its_function_runs",),
        ),
        Removal(
            "the Finalizer",
            FINALIZER,
            (
                Cut(
                    "every-ending-has-a-record",
                    value('{name: _ENDINGS[name] for name in ("ABORTED", "FAILED")}[execution["status"]]'),
                ),
            ),
            tests=("test_a_job_that_ended_midway_gets_its_record",),
        ),
    ),
    "the same job started twice at once": (
        Removal(
            "the execution's name is the job's id",
            "lambdas/fan_out/jobs.py",
            (
                Cut(
                    "one-name-is-one-execution",
                    replace(
                        "aws.step_functions().start_execution("
                        "stateMachineArn=self.state_machine_arn, name=new_id(), input=text)"
                    ),
                ),
            ),
            tests=("test_the_same_job_again_is_the_same_job",),
        ),
        Removal(
            "conditional commits",
            STORAGE,
            (Cut("first-commit-counts", without_keyword("IfNoneMatch")),),
            tests=("test_the_same_job_run_twice_at_once_is_one_job",),
        ),
    ),
    "an ended job's execution is redriven": (
        Removal(
            "no shards for an ended job",
            "lambdas/fan_out/manifest.py",
            (Cut("an-ended-job-is-not-worked-on", never),),
            tests=("test_a_stopped_job_that_is_redriven_works_on_nothing",),
        ),
    ),
    "a job is stopped, then retried": (
        Removal(
            "the final record",
            FINALIZER,
            (Cut("every-ending-has-a-record", value('("FAILED", *VALUE[1:])')),),
            tests=(
                "test_a_job_stopped_anywhere_is_completed_by_a_retry",
                "test_a_stopped_job_is_accounted_for_and_retried",
            ),
        ),
        Removal(
            "failedIn lists anew what was not listed to its end",
            PLAN,
            (Cut("unlisted-source-again", condition("True")),),
            tests=("test_a_job_stopped_anywhere_is_completed_by_a_retry",),
        ),
    ),
    "a chain of retries": (
        Removal(
            "effects are keyed by the chain's first job",
            PLAN,
            (
                Cut(
                    "scope-of-the-chain",
                    value('earlier.model_copy(update=changes | {"effect_scope": f"{job_id}@{started_at}"})'),
                ),
            ),
            tests=("test_a_chain_of_retries_applies_every_effect_once",),
        ),
    ),
    "a retry's list of failures is not complete": (
        Removal(
            "the earlier job's record says how many there are",
            LISTING,
            (Cut("expected-count-of-a-retry", never),),
            tests=("test_a_retry_that_lists_another_number_of_tasks_fails",),
        ),
        Removal(
            "a lost list is not used",
            PLANNING,
            (Cut("a-lost-list-is-not-used", condition("is_listed")),),
            tests=("test_a_retry_after_lost_objects_lists_its_source_anew",),
        ),
    ),
    "a refused input looks like a failed job": (
        Removal(
            "a refusal is not counted",
            FINALIZING,
            (Cut("a-refusal-is-no-alarm", condition('record["status"] == "FAILED"')),),
            tests=("test_a_failed_job_is_counted_and_a_refused_one_is_not",),
        ),
    ),
    "the reducer cannot write the record": (
        Removal(
            "Catch to a Fail state",
            MACHINE,
            (JsonCut(("States", "Reducer", "Catch")),),
            tests=("test_a_job_without_its_record_fails_loudly",),
        ),
        Removal(
            "the Finalizer tries again",
            FINALIZER,
            (
                Cut(
                    "every-ending-has-a-record",
                    value('{name: _ENDINGS[name] for name in ("ABORTED", "TIMED_OUT")}[execution["status"]]'),
                ),
            ),
            tests=("test_a_job_without_its_reducers_record_gets_it_here",),
        ),
        Removal(
            "EventBridge",
            "infra/constructs/workflow.py",
            (Cut("every-early-end", value("VALUE[:2]")),),
            tests=("test_a_job_that_ends_early_reaches_the_finalizer",),
        ),
    ),
    "a broken CSV": (
        Removal(
            "a bad row is a row with a problem",
            CSV_SOURCE,
            (Cut("a-bad-row-is-a-row", replace("raise InvalidJobError(problem) from error")),),
            tests=(
                "test_bad_rows_never_take_their_neighbours_along",
                "test_an_unclosed_quote_does_not_swallow_the_rows_behind_it",
            ),
        ),
        Removal(
            "recovery at the next line",
            CSV_SOURCE,
            (Cut("recovery-at-the-next-line", delete),),
            tests=("test_an_unclosed_quote_does_not_swallow_the_rows_behind_it",),
        ),
    ),
    "numbers and text at their limits": (
        Removal(
            "numbers have bounds",
            JOB_INPUT,
            (Cut("shard-size-bounds", without_keyword("le")),),
            tests=("test_a_wrong_field_is_refused_with_what_is_allowed",),
        ),
        Removal(
            "input is typed",
            JOB_INPUT,
            (Cut("typed-input", without_keyword("strict")),),
            tests=("test_a_wrong_field_is_refused_with_what_is_allowed",),
        ),
        Removal(
            "UTF-8 throughout",
            KIND,
            (Cut("text-is-utf-8", value("str(value)")),),
            tests=("test_a_failures_message_is_written_short",),
        ),
    ),
    "items over 400 KB": (
        Removal(
            "a task has at most 1,100 characters",
            "lambdas/task_service/validation.py",
            (Cut("a-detail-is-bounded", value("1_000_000")),),
            tests=("test_a_value_outside_the_rules_is_refused_with_a_sentence",),
        ),
        Removal(
            "a row has at most 64 KiB",
            CSV_SOURCE,
            (Cut("longest-row", never),),
            tests=("test_a_quoted_row_that_is_too_long_is_a_problem",),
        ),
    ),
}
