"""Where each protection of the reliability guide lives, and the least change that takes it away.

The keys are the first cells of the table in docs/reliability.md, in its order.
"""

from __future__ import annotations

from dataclasses import dataclass

from tests.protections.cuts import (
    Cut,
    Entry,
    JsonCut,
    always,
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
WORKER = (*SHARDS, "ItemProcessor", "States", "Worker")
TOO_MANY = Entry("ErrorEquals", "Lambda.TooManyRequestsException")
ANY_ERROR = Entry("ErrorEquals", "States.ALL")
DOCUMENTS = "lambdas/fan_out/model/documents.py"
FINALIZER = "lambdas/fan_out/finalizer.py"
FINALIZING = "lambdas/fan_out/steps/finalizing.py"
JOB_INPUT = "lambdas/fan_out/model/job_input.py"
KIND_MERGER = "lambdas/fan_out/steps/kind_merger.py"
LISTING = "lambdas/fan_out/steps/listing.py"
PLAN = "lambdas/fan_out/model/plan.py"
PLANNER = "lambdas/fan_out/planner.py"
RECORD = "lambdas/fan_out/model/record.py"
REDUCTION = "lambdas/fan_out/steps/reduction.py"
RETRY_SOURCE = "lambdas/fan_out/steps/retry_source.py"
SOURCE_CSV = "lambdas/fan_out/sources/csv.py"
STORAGE = "lambdas/fan_out/aws/storage.py"
TOLERANCE = "lambdas/fan_out/steps/early_stop.py"
WORK = "lambdas/fan_out/steps/shard_runner.py"
RUNNER = "lambdas/fan_out/steps/kind_runner.py"
SEARCH = "lambdas/fan_out/steps/quarantine.py"
FOLDING = "lambdas/fan_out/steps/folding.py"
GUARD = "lambdas/fan_out/steps/process_guard.py"
KIND = "lambdas/fan_out/model/kind.py"
STORE = "lambdas/task_service/store.py"
WRITES = "lambdas/task_service/writes.py"


@dataclass(frozen=True, slots=True)
class Removal:
    """A protection taken away from a file by its cuts.

    `test` is the one of its row's tests that must fail then; without it each of them must.
    """

    protection: str
    file: str
    cuts: tuple[Cut | JsonCut | Text, ...]
    test: str | None = None

    def apply(self, text: str) -> str:
        """The file's text without the protection. Raises LookupError if there is nothing to take away."""
        for cut in self.cuts:
            text = cut.apply(text)
        return text


@dataclass(frozen=True, slots=True)
class Text:
    """`new` in place of `old`, which the file holds exactly once."""

    old: str
    new: str

    def apply(self, text: str) -> str:
        if text.count(self.old) != 1 or self.old == self.new:
            raise LookupError(f"the file has this {text.count(self.old)} times: {self.old}")
        return text.replace(self.old, self.new)


def _of(
    protection: str,
    file: str,
    old: str,
    new: str,
    test: str | None = None,
    also: tuple[tuple[str, str], ...] = (),
) -> Removal:
    return Removal(protection, file, tuple(Text(*pair) for pair in ((old, new), *also)), test)


SMALL_PAGES = """
sources.batch.PAGE = plan.shard_size
batches = sources.batches(store.bucket, plan, segment, cursor, list_function)
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
            test="test_payloads_are_the_same_for_any_number_of_shards",
        ),
        Removal(
            "a large result stays out of the record",
            RECORD,
            (Cut("a-large-result-stays-out", never),),
            test="test_a_large_result_stays_out_of_the_record",
        ),
    ),
    "history over 25,000 events": (
        Removal(
            "a Distributed Map",
            MACHINE,
            (JsonCut((*SHARDS, "ItemProcessor", "ProcessorConfig"), {"Mode": "INLINE"}),),
            test="test_shards_run_as_children_within_the_jobs_bounds",
        ),
        Removal(
            "few segments, each listed in as few calls as its time allows",
            LISTING,
            (
                Cut("source-of-a-step", replace(SMALL_PAGES)),
                Cut("cursor-near-the-deadline", condition("cursor is not None")),
            ),
            test="test_the_parent_execution_is_the_same_at_200_shards",
        ),
    ),
    "429 from Lambda": (
        Removal(
            "a retrier of its own",
            MACHINE,
            (JsonCut(("States", "Planner", "Retry", TOO_MANY, "ErrorEquals"), ["Lambda.Unknown"]),),
        ),
        Removal("patience", MACHINE, (JsonCut((*WORKER, "Retry", TOO_MANY, "MaxAttempts"), 3),)),
    ),
    "unbounded fan-out": (Removal("the map's bound", MACHINE, (JsonCut((*SHARDS, "MaxConcurrencyPath")),)),),
    "a poison task that raises": (
        Removal(
            "a failing task is a value",
            RUNNER,
            (Cut("a-failing-task-is-a-value", replace("return self._process(tasks)")),),
        ),
        Removal("a failing batch is taken apart", RUNNER, (Cut("a-failing-batch-is-divided", never),)),
    ),
    "a poison task that kills its worker": (
        Removal("markers after a death", SEARCH, (Cut("markers-after-a-death", delete),)),
    ),
    "a task that hangs until the time-out": (
        Removal(
            "a time-out is a death",
            MACHINE,
            (JsonCut((*WORKER, "Retry", ANY_ERROR, "ErrorEquals"), ["Runtime.ExitError"]),),
        ),
    ),
    "a process that leaks, or that another task has spoilt": (
        Removal("a suspect's worker begins with it", SEARCH, (Cut("a-suspect-is-worked-on-first", never),)),
    ),
    "a kind's value or line that JSON cannot hold": (
        Removal(
            "a value must come back as it was",
            KIND,
            (Cut("a-value-comes-back-as-it-was", never),),
            test="test_a_value_that_is_not_json_fails_its_task_alone",
        ),
        Removal(
            "a line's key is printable",
            FOLDING,
            (Cut("keys-are-printable", never),),
            test="test_a_line_that_is_none_fails_its_task_alone",
        ),
        Removal(
            "a failed fold is rolled back",
            FOLDING,
            (Cut("a-failed-fold-is-rolled-back", delete),),
            test="test_a_value_that_is_not_json_fails_its_task_alone",
        ),
    ),
    "a kind that raises or returns anything": (
        Removal(
            "every failure has a text",
            KIND,
            (Cut("any-exception-has-a-text", value("str(error)")),),
            test="test_whatever_is_raised_fails_its_task_alone",
        ),
        Removal(
            "a value has at most 100 levels",
            DOCUMENTS,
            (Cut("depth-of-a-value", never),),
            test="test_whatever_is_returned_fails_its_task_alone",
        ),
    ),
    "a kind that shares its zero": (
        Removal(
            "a copy is worked on",
            FOLDING,
            (Cut("a-zero-is-copied", replace("self._good = plain_json(progress.value)[0]")),),
        ),
    ),
    "a kind that damages its process": (
        Removal(
            "a damaged process ends itself",
            GUARD,
            (Cut("a-damaged-process-ends", never),),
            test="test_a_task_that_damages_its_process_is_quarantined",
        ),
        Removal(
            "so does a fork that returns",
            GUARD,
            (Cut("a-fork-does-not-return", never),),
            test="test_a_damaged_process_ends_itself",
        ),
        Removal(
            "a partial adds up",
            WORK,
            (Cut("a-partial-adds-up", never),),
            test="test_a_partial_that_does_not_add_up_is_not_committed",
        ),
    ),
    "a kind that breaks a rule": (
        Removal("rules are checked when it is loaded", KIND, (Cut("rules-of-a-kind", never),)),
    ),
    "a kind that fails on the job's result": (
        Removal(
            "a fault of merge is kept apart",
            KIND_MERGER,
            (Cut("a-fault-of-merge", except_only("KeyboardInterrupt")),),
        ),
        Removal(
            "any error has a text",
            KIND,
            (Cut("any-exception-has-a-text", value("str(error)")),),
        ),
        Removal("and of summary", KIND_MERGER, (Cut("a-fault-of-summary", except_only("KeyboardInterrupt")),)),
    ),
    "a kind that kills the reducer": (
        Removal(
            "deaths at one step are counted",
            KIND_MERGER,
            (Cut("deaths-of-a-reducer", never),),
            test="test_a_kind_that_kills_the_reducer_costs_the_result",
        ),
        Removal(
            "the Finalizer's last call goes on without the kind",
            FINALIZER,
            (Cut("deadly-for-the-finalizer", value("3")),),
            test="test_a_kind_that_kills_the_finalizer_costs_the_result",
        ),
        Removal(
            "an exception is no death",
            KIND_MERGER,
            (Cut("an-exception-is-no-death", delete),),
            test="test_a_throttled_reducer_is_not_taken_for_a_dead_one",
        ),
    ),
    "deaths that no task caused": (
        Removal(
            "a suspect must kill alone",
            SEARCH,
            (
                Cut("a-suspect-must-kill-alone", value("True")),
                Cut("deaths-are-of-one-stretch", value("self.deaths")),
            ),
            test="test_deaths_among_neighbours_do_not_count_against_a_task",
        ),
        Removal(
            "three times",
            SEARCH,
            (Cut("three-deaths", value("1")),),
            test="test_workers_that_die_for_reasons_of_their_own_cost_no_task",
        ),
    ),
    "a function runs twice at once": (
        Removal(
            "conditional commits",
            STORAGE,
            (Cut("first-commit-counts", without_keyword("IfNoneMatch")),),
        ),
        Removal(
            "of partials",
            WORK,
            (Cut("the-first-partial-counts", replace("self.store.put(self.shard.partial, made)")),),
            test="test_of_two_workers_on_one_shard_the_first_commit_counts",
        ),
        Removal(
            "of nodes",
            REDUCTION,
            (Cut("first-node-counts", replace("self._store.put(name, asdict(node))")),),
            test="test_of_two_reducers_the_first_commit_of_a_node_counts",
        ),
        Removal(
            "of records",
            FINALIZING,
            (Cut("first-record-counts", replace("store.put(RECORD, record)\nreturn record")),),
            test="test_a_finalizer_that_races_the_reducer_agrees_with_it",
        ),
    ),
    "a function outlives its job's stop": (
        Removal(
            "a record is written once",
            FINALIZING,
            (
                Cut("a-record-is-written-once", never),
                Cut("first-record-counts", replace("store.put(RECORD, record)\nreturn record")),
            ),
        ),
        Removal(
            "a retry goes by the record",
            RETRY_SOURCE,
            (Cut("a-retry-goes-by-the-record", value('earlier.has("manifest.json")')),),
        ),
    ),
    "a lost acknowledgement of a write to S3": (
        Removal("a commit that exists is read", STORAGE, (Cut("a-commit-that-exists-is-read", condition("True")),)),
    ),
    "a lost acknowledgement of an effect": (
        Removal("the key of a creation", WRITES, (Cut("the-key-of-a-creation-is-kept", never),)),
        Removal("the key of a change", WRITES, (Cut("the-key-of-a-change-is-kept", never),)),
    ),
    "every answer to a request of the API is lost": (
        Removal("a look at the table after a creation", STORE, (Cut("a-look-after-a-lost-creation", always),)),
        Removal("and after a replacement", STORE, (Cut("a-look-after-a-lost-replacement", value("None")),)),
    ),
    "an empty scan page with a key": (
        Removal(
            "only a missing cursor ends a listing",
            STORE,
            (Cut("an-empty-page-is-not-the-last", condition("last_key is None or not items")),),
        ),
    ),
    "unprocessed keys of a batch": (
        Removal("they are resent", STORE, (Cut("unprocessed-keys-are-not-missing", value("set()")),)),
        Removal(
            "or the call is throttled",
            "lambdas/task_service/listing.py",
            (Cut("an-unprocessed-key-is-throttled", replace("break")),),
            test="test_unprocessed_keys_are_read_again",
        ),
    ),
    "a transaction cancelled in part": (
        Removal("refused items are singled out", WRITES, (Cut("only-an-invalid-item-is-invalid", always),)),
    ),
    "tasks change while they are listed": (
        Removal(
            "a segment's cursor is a key",
            STORE,
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
        ),
    ),
    "a task changes after it was listed": (
        Removal(
            "a write is for the listed version",
            WRITES,
            (Cut("a-write-is-for-the-listed-version", never),),
            test="test_a_change_after_the_listing_is_kept",
        ),
        Removal(
            "DynamoDB's own condition",
            STORE,
            (Cut("an-update-has-a-condition", value('"#version >= :given"')),),
            test="test_a_concurrent_update_is_never_overwritten",
        ),
    ),
    "a throttled page in a long listing": (
        Removal("what is listed is kept", LISTING, (Cut("listed-so-far-is-kept", condition("True")),)),
    ),
    "skewed segments": (
        Removal("each segment continues by itself", LISTING, (Cut("cursor-near-the-deadline", never),)),
    ),
    "the lister's 15 minutes": (
        Removal("a cursor near the deadline", LISTING, (Cut("cursor-near-the-deadline", never),)),
    ),
    "the worker's 15 minutes": (
        Removal(
            "a checkpoint near the deadline",
            WORK,
            (Cut("a-checkpoint-near-the-deadline", never),),
            test="test_a_shard_of_any_length_finishes_without_repeats",
        ),
        Removal(
            "and every minute",
            WORK,
            (Cut("a-checkpoint-every-minute", never),),
            test="test_a_long_call_saves_a_checkpoint_now_and_then",
        ),
    ),
    "the reducer's 15 minutes": (
        Removal(
            "a call goes on at the node where the last one ended",
            REDUCTION,
            (Cut("reducer-goes-on-there", value("Cursor(level, number + 1, offset)")),),
            test="test_a_reduction_over_many_calls_gives_the_same_bytes",
        ),
        Removal(
            "a cursor near the deadline",
            REDUCTION,
            (Cut("reducer-cursor", never),),
            test="test_a_late_reducer_answers_a_cursor_and_the_error",
        ),
    ),
    "a reducer's memory": (
        Removal(
            "lines are streamed",
            REDUCTION,
            (Cut("lines-are-streamed", value("[iter(list(each)) for each in VALUE]")),),
            test="test_a_merges_memory_does_not_grow_with_its_lines",
        ),
        Removal(
            "at most 64 children a node",
            REDUCTION,
            (Cut("fan-in", value("1_000_000")),),
            test="test_the_open_streams_of_a_node_fit_into_the_reducers_memory",
        ),
    ),
    "overload of what is behind": (
        Removal(
            "a ceiling of tasks a second",
            RUNNER,
            (Cut("a-rate-limit", delete),),
            test="test_no_window_has_more_starts_than_the_rate_limit",
        ),
        Removal(
            "a retry budget",
            RUNNER,
            (Cut("a-retry-budget", value("number < ATTEMPTS")),),
            test="test_the_retries_of_one_call_are_bounded",
        ),
    ),
    "one task of many that is throttled for good": (
        Removal("the last try is one by one", RUNNER, (Cut("the-last-attempt-is-alone", value("False")),)),
    ),
    "throttling that outlasts a call": (
        Removal(
            "tries are counted across calls",
            WORK,
            (Cut("attempts-are-counted-across-calls", value("(0, 0)")),),
        ),
    ),
    "stray objects in the job's prefix": (
        Removal(
            "parts are read by name",
            LISTING,
            (Cut("parts-by-name", replace(PARTS_BY_LISTING)),),
            test="test_stray_objects_of_dead_attempts_are_never_taken_in",
        ),
        Removal(
            "shards have their content in their names",
            LISTING,
            (Cut("content-in-the-key", value('self.store.key(f"{self.prefix}-{index:06d}.jsonl")')),),
            test="test_another_listing_cannot_change_a_committed_shard",
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
        ),
    ),
    "a missing shard object": (
        Removal("the record names what is lost", REDUCTION, (Cut("a-lost-object-is-named", delete),)),
    ),
    "an object that cannot be read": (
        Removal(
            "a seal on documents",
            DOCUMENTS,
            (Cut("seal", never),),
            test="test_a_damaged_object_is_lost_and_named",
        ),
        Removal(
            "with their key",
            DOCUMENTS,
            (Cut("seal-names-its-key", replace("if key is not None:\n    document.pop('object')")),),
            test="test_a_damaged_object_is_lost_and_named",
        ),
        Removal(
            "digests of files",
            STORAGE,
            (Cut("digest-of-lines", never),),
            test="test_a_damaged_object_is_lost_and_named",
        ),
        Removal(
            "an unreadable object is no commit",
            STORAGE,
            (Cut("an-unreadable-object-is-no-commit", condition("True")),),
            test="test_a_damaged_object_is_lost_and_named",
        ),
        Removal(
            "counts add up to the shard",
            REDUCTION,
            (Cut("counts-of-an-object", never),),
            test="test_a_partial_of_too_few_tasks_is_lost",
        ),
        Removal(
            "a checkpoint's counts, too",
            REDUCTION,
            (Cut("counts-of-an-object", never),),
            test="test_a_checkpoint_of_other_counts_is_lost",
        ),
        Removal(
            "an object names its job",
            STORAGE,
            (Cut("another-jobs-object", never),),
            test="test_a_damaged_object_is_lost_and_named",
        ),
    ),
    "a list of failures that was overwritten": (
        Removal(
            "its version is committed",
            RETRY_SOURCE,
            (Cut("version-of-the-failures", value("root is not None")),),
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
        ),
    ),
    "silent partial success": (
        Removal(
            "the tally decides",
            RECORD,
            (Cut("partial-is-a-status", value('"FAILED" if problem is not None else "SUCCEEDED"')),),
            test="test_the_tolerance_decides_between_partial_and_failed",
        ),
        Removal(
            "exit code 3",
            "fanout/cli.py",
            (Cut("partial-is-not-success", value("SUCCESS")),),
            test="test_run_prints_the_record_and_exits_by_its_status",
        ),
    ),
    "mass failure": (
        Removal(
            "failed shards count towards the map's tolerance",
            "lambdas/fan_out/worker.py",
            (Cut("failed-shards-end-the-map", never),),
        ),
    ),
    "failures spread over all shards": (
        Removal("failures are added up across shards", TOLERANCE, (Cut("failures-are-added-up", value("failed")),)),
    ),
    "failing tasks within the tolerance": (
        Removal("only proven excess counts", TOLERANCE, (Cut("only-proven-excess-counts", never),)),
    ),
    "a kind that kills throughout": (
        Removal("a bound on quarantined tasks", SEARCH, (Cut("few-tasks-of-a-shard-are-quarantined", never),)),
    ),
    "rare deaths in a long shard": (
        Removal(
            "the count of retries begins anew when the shard moves on",
            SEARCH,
            (Cut("retries-start-anew", never),),
        ),
    ),
    "tasks that take minutes": (
        Removal(
            "the longest so far is part of the deadline",
            WORK,
            (Cut("the-longest-batch-counts", value("self._runner.limiter.seconds_until(len(batch))")),),
        ),
    ),
    "a CSV overwritten while it is listed": (
        Removal("reads are of the version that was planned", STORAGE, (Cut("version-of-a-source", value("{}")),)),
    ),
    "a job's name that was used before": (
        Removal(
            "the plan is committed once",
            PLANNER,
            (
                Cut(
                    "a-plan-is-committed-once",
                    replace("store.put('job.json', plan.to_json())\nstarted_at = plan.started_at"),
                ),
            ),
        ),
    ),
    "a job's name that was used before, its objects gone": (
        Removal("effects are keyed by the job's start, too", PLAN, (Cut("scope-has-the-start", value("job_id")),)),
    ),
    "workers that all die, everything tolerated": (
        Removal("a job of which no shard was finished is FAILED", RECORD, (Cut("no-shard-finished", never),)),
    ),
    "a stuck job": (
        Removal(
            "a time-out on the machine",
            MACHINE,
            (JsonCut(("TimeoutSeconds",)),),
            test="test_a_stuck_job_ends_some_day",
        ),
        Removal(
            "a time-out on every Task",
            MACHINE,
            (JsonCut(("States", "Planner", "TimeoutSeconds")),),
            test="test_a_state_waits_longer_than_its_function_runs",
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
            test="test_a_job_that_ended_midway_gets_its_record",
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
            test="test_the_same_job_again_is_the_same_job",
        ),
        Removal(
            "conditional commits",
            STORAGE,
            (Cut("first-commit-counts", without_keyword("IfNoneMatch")),),
            test="test_the_same_job_run_twice_at_once_is_one_job",
        ),
    ),
    "stop mid-way, then retry": (
        Removal(
            "the closing record",
            FINALIZER,
            (Cut("every-ending-has-a-record", value('("FAILED", *VALUE[1:])')),),
        ),
        Removal(
            "failedIn lists anew what was not listed to its end",
            PLAN,
            (Cut("unlisted-source-again", condition("True")),),
            test="test_a_job_stopped_anywhere_is_completed_by_a_retry",
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
        ),
    ),
    "a retry's list of failures is not whole": (
        Removal(
            "the earlier job's record says how many there are",
            LISTING,
            (Cut("expected-count-of-a-retry", never),),
            test="test_a_retry_that_lists_another_number_of_tasks_fails",
        ),
        Removal(
            "a lost list is not used",
            RETRY_SOURCE,
            (Cut("a-lost-list-is-not-used", condition("is_listed")),),
            test="test_a_retry_after_lost_objects_lists_its_source_anew",
        ),
    ),
    "the reducer cannot write the account": (
        Removal(
            "Catch to a Fail state",
            MACHINE,
            (JsonCut(("States", "Reducer", "Catch")),),
            test="test_a_job_without_its_record_fails_loudly",
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
            test="test_a_job_without_its_reducers_record_gets_it_here",
        ),
        Removal(
            "EventBridge",
            "infra/constructs/workflow.py",
            (Cut("every-early-end", value("VALUE[:2]")),),
            test="test_a_job_that_ends_early_reaches_the_finalizer",
        ),
    ),
    "a broken CSV": (
        Removal(
            "a bad row is a row with a problem",
            SOURCE_CSV,
            (Cut("a-bad-row-is-a-row", replace("raise InvalidJobError(_problem(error)) from error")),),
        ),
        Removal(
            "recovery at the next line",
            SOURCE_CSV,
            (Cut("recovery-at-the-next-line", delete),),
            test="test_an_unclosed_quote_does_not_swallow_the_rows_behind_it",
        ),
    ),
    "numbers and text at their limits": (
        Removal(
            "numbers have bounds",
            JOB_INPUT,
            (Cut("shard-size-bounds", without_keyword("le")),),
            test="test_a_wrong_field_is_refused_with_what_is_allowed",
        ),
        Removal(
            "input is typed",
            JOB_INPUT,
            (Cut("typed-input", without_keyword("strict")),),
            test="test_a_wrong_field_is_refused_with_what_is_allowed",
        ),
        Removal(
            "UTF-8 throughout",
            KIND,
            (Cut("text-is-utf-8", value("str(value)")),),
            test="test_a_failures_message_is_written_short",
        ),
    ),
    "items over 400 KB": (
        Removal(
            "a task has at most 1,100 characters",
            "lambdas/task_service/validation.py",
            (Cut("a-detail-is-bounded", value("1_000_000")),),
            test="test_a_value_outside_the_rules_is_refused_with_a_sentence",
        ),
        Removal(
            "a row has at most 64 KiB",
            SOURCE_CSV,
            (Cut("longest-row", never),),
            test="test_a_quoted_row_that_is_too_long_is_a_problem",
        ),
    ),
}
