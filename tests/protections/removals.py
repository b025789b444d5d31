"""Where each protection of the reliability guide lives, and the least change that takes it away.

The keys are the first cells of the table in docs/reliability.md, in its order.
"""

from __future__ import annotations

from dataclasses import dataclass

from tests.protections.cuts import (
    Cut,
    JsonCut,
    condition,
    delete,
    except_only,
    never,
    replace,
    value,
    without_keyword,
)

MACHINE = "statemachines/fan_out.asl.json"
DOCUMENTS = "lambdas/fan_out/model/documents.py"
FINALIZER = "lambdas/fan_out/finalizer.py"
FINALIZING = "lambdas/fan_out/steps/finalizing.py"
JOB_INPUT = "lambdas/fan_out/model/job_input.py"
KIND_MERGER = "lambdas/fan_out/steps/kind_merger.py"
LISTING = "lambdas/fan_out/steps/listing.py"
OUTCOMES = "lambdas/fan_out/model/outcomes.py"
PLAN = "lambdas/fan_out/model/plan.py"
PLANNER = "lambdas/fan_out/planner.py"
RECORD = "lambdas/fan_out/model/record.py"
REDUCTION = "lambdas/fan_out/steps/reduction.py"
RETRY_SOURCE = "lambdas/fan_out/steps/retry_source.py"
SOURCE_CSV = "lambdas/fan_out/sources/csv.py"
STORAGE = "lambdas/fan_out/aws/storage.py"
TOLERANCE = "lambdas/fan_out/steps/early_stop.py"
WORK = "lambdas/fan_out/steps/shard_runner.py"
ASKING = "lambdas/fan_out/steps/kind_runner.py"
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
            (
                Cut(
                    "states-carry-no-tasks", value('VALUE | {"shards": [shard.key for shard in part.shards]}')
                ),
            ),
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
        _of(
            "a Distributed Map",
            MACHINE,
            '"Mode": "DISTRIBUTED", "ExecutionType": "STANDARD"',
            '"Mode": "INLINE"',
            test="test_the_shards_are_run_by_children_under_the_jobs_own_bounds",
        ),
        Removal(
            "few segments, each listed in as few calls as its time allows",
            LISTING,
            (
                Cut("source-of-a-step", replace(SMALL_PAGES)),
                Cut("cursor-near-the-deadline", condition("cursor is not None")),
            ),
            test="test_the_parent_execution_is_the_same_at_ten_shards_and_at_two_hundred",
        ),
    ),
    "429 from Lambda": (
        _of(
            "a retrier of its own",
            MACHINE,
            '{ "ErrorEquals": ["InvalidJobError", "SourceNotFoundError"], "MaxAttempts": 0 },\n'
            "        {\n"
            '          "ErrorEquals": ["Lambda.TooManyRequestsException"],',
            '{ "ErrorEquals": ["InvalidJobError", "SourceNotFoundError"], "MaxAttempts": 0 },\n'
            "        {\n"
            '          "ErrorEquals": ["Lambda.Unknown"],',
        ),
        _of("patience", MACHINE, '"MaxAttempts": 1000', '"MaxAttempts": 3'),
    ),
    "unbounded fan-out": (_of("the map's bound", MACHINE, '"MaxConcurrencyPath": "$.workers",', ""),),
    "a poison task that raises": (
        _of(
            "a failing task is a value",
            ASKING,
            """except FAULTS as error:
            if len(tasks) > 1:""",
            """except TimeoutError as error:
            if len(tasks) > 1:""",
        ),
        _of(
            "a failing batch is taken apart",
            ASKING,
            "                return [answer for task in tasks for answer in self._asked_alone(task)]\n",
            "                return [Failure(type(error).__name__, str(error))] * len(tasks)\n",
        ),
    ),
    "a poison task that kills its worker": (
        _of(
            "markers after a death",
            WORK,
            "self._mark_in_flight(start, end)",
            "pass",
        ),
    ),
    "a task that hangs until the time-out": (
        _of(
            "a time-out is a death",
            MACHINE,
            '"ErrorEquals": ["States.ALL"],\n'
            '                "IntervalSeconds": 1,\n'
            '                "BackoffRate": 2,\n'
            '                "MaxDelaySeconds": 30,\n'
            '                "MaxAttempts": 12,',
            '"ErrorEquals": ["Runtime.ExitError"],\n'
            '                "IntervalSeconds": 1,\n'
            '                "BackoffRate": 2,\n'
            '                "MaxDelaySeconds": 30,\n'
            '                "MaxAttempts": 12,',
        ),
    ),
    "a process that leaks, or that another task has spoilt": (
        _of("a suspect's worker begins with it", WORK, "if end == marker.start:", "if False:"),
    ),
    "a kind's value or line that JSON cannot hold": (
        _of(
            "a value must come back as it was",
            WORK,
            "    if json.loads(body) != value:",
            "    if False:",
            test="test_a_value_that_cannot_be_stored_fails_the_task_that_brought_it_and_no_other",
        ),
        _of(
            "a line's key is printable",
            WORK,
            "if not isinstance(key, str) or not key.isprintable():",
            "if False:",
            test="test_a_line_that_is_none_fails_its_task_alone",
        ),
    ),
    "a kind that fails on the job's result": (
        Removal(
            "a fault of merge is kept apart",
            KIND_MERGER,
            (Cut("a-fault-of-merge", except_only("KeyboardInterrupt")),),
        ),
        Removal(
            "and of summary", KIND_MERGER, (Cut("a-fault-of-summary", except_only("KeyboardInterrupt")),)
        ),
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
        _of(
            "a suspect must kill alone",
            WORK,
            "if self.end - self.start == 1:",
            "if True:",
            test="test_deaths_among_neighbours_do_not_count_against_a_task",
            also=((" if (start, end) == (self._marker.start, self._marker.end) else 0", ""),),
        ),
        _of(
            "three times",
            WORK,
            "DEADLY = 3",
            "DEADLY = 1",
            test="test_workers_that_die_for_reasons_of_their_own_cost_no_task",
        ),
    ),
    "a function runs twice at once": (
        Removal(
            "conditional commits",
            STORAGE,
            (Cut("first-commit-counts", without_keyword("IfNoneMatch")),),
        ),
        _of(
            "of partials",
            WORK,
            """        return dict(
            self._store.put_once(self._shard.partial, partial(self._store, self._shard, self._progress))
        )
""",
            """        made = partial(self._store, self._shard, self._progress)
        self._store.put(self._shard.partial, made)
        return made
""",
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
        Removal(
            "a commit that exists is read", STORAGE, (Cut("a-commit-that-exists-is-read", condition("True")),)
        ),
    ),
    "a lost acknowledgement of an effect": (
        _of("the key of a creation", WRITES, "if stored.create_key == each.key:", "if False:"),
        _of("the key of a change", WRITES, "if stored.effect_key == each.key:", "if False:"),
    ),
    "every answer to a request of the API is lost": (
        _of(
            "a look at the table after a creation",
            STORE,
            "if self._found(task.id, error) is None:",
            "if True:",
        ),
        _of(
            "and after a replacement",
            STORE,
            "found = self._found(task_id, error)",
            "found = None",
        ),
    ),
    "an empty scan page with a key": (
        _of(
            "only a missing cursor ends a listing",
            STORE,
            "if last_key is None:",
            "if last_key is None or not items:",
        ),
    ),
    "unprocessed keys of a batch": (
        _of(
            "they are resent",
            STORE,
            'unread = {key["id"]["S"] for key in left["Keys"]} if left else set()',
            "unread: set[str] = set()",
        ),
        _of(
            "or the call is throttled",
            "lambdas/task_service/listing.py",
            "raise ThrottledError",
            "break",
            test="test_keys_that_dynamodb_did_not_get_round_to_are_asked_for_again",
        ),
    ),
    "a transaction cancelled in part": (
        _of(
            "refused items are singled out",
            WRITES,
            "if refusal is Refusal.INVALID:",
            "if True:",
        ),
    ),
    "tasks change while they are listed": (
        _of(
            "a segment's cursor is a key",
            STORE,
            'request["ExclusiveStartKey"] = {"id": {"S": after}}',
            'request["Limit"] += int(after)',
            # A position instead, which others shift.
            also=(
                (
                    'last_id = last_key["id"]["S"] if last_key else None',
                    """begin = int(after or 0)
        answer["Items"] = answer["Items"][begin:]
        last_id = str(begin + len(answer["Items"])) if last_key else None""",
                ),
                (
                    "task.id if position + 1 < len(items) else last_key",
                    "str(int(after or 0) + position + 1) if position + 1 < len(items) else last_key",
                ),
            ),
        ),
    ),
    "a task changes after it was listed": (
        _of(
            "a write is for the listed version",
            WRITES,
            "if stored.task.version != each.version:",
            "if False:",
            test="test_a_task_that_someone_changed_after_it_was_listed_keeps_their_change",
        ),
        _of(
            "DynamoDB's own condition",
            STORE,
            '"ConditionExpression": "#version = :given"',
            '"ConditionExpression": "#version >= :given"',
            test="test_an_update_between_reading_and_writing_is_never_overwritten",
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
        _of(
            "a checkpoint near the deadline",
            WORK,
            "if self._has_worked and self._is_late(wait + self._longest):",
            "if False:",
            test="test_a_shard_of_any_length_finishes_and_no_task_is_worked_on_twice",
        ),
        _of(
            "and every minute",
            WORK,
            "if self._clock.now() - self._saved_at > CHECKPOINT_SECONDS:",
            "if False:",
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
        _of(
            "a ceiling of tasks a second",
            ASKING,
            "self.clock.sleep(self.seconds_until(tasks))",
            "pass",
            test="test_never_do_more_tasks_start_than_the_ceiling_lets_in_any_window",
        ),
        _of(
            "a retry budget",
            ASKING,
            " and tries < TRIES and self._retries_left > 0:",
            " and tries < TRIES:",
            test="test_a_throttled_downstream_gets_a_bounded_number_of_further_tries_from_one_call",
        ),
    ),
    "one task of many that is throttled for good": (
        _of(
            "the last try is one by one",
            ASKING,
            "is_apart = self._is_refused_whole and tries >= TRIES",
            "is_apart = False",
        ),
    ),
    "throttling that outlasts a call": (
        _of(
            "tries are counted across calls",
            WORK,
            "tries, self._progress.tries = self._progress.tries, 0",
            "tries = self._progress.tries = 0",
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
            (Cut("counts-of-a-partial", never),),
            test="test_a_partial_of_too_few_tasks_is_lost",
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
        _of(
            "exit code 3",
            "fanout/cli.py",
            '"PARTIAL": PARTIAL}',
            '"PARTIAL": SUCCESS}',
            test="test_run_prints_the_record_as_one_document_and_tells_success_from_partial",
        ),
    ),
    "mass failure": (
        _of(
            "failed shards count towards the map's tolerance",
            "lambdas/fan_out/worker.py",
            "if committed is not None and tolerance.counts_as_failed(",
            "if False and tolerance.counts_as_failed(",
        ),
    ),
    "failures spread over all shards": (
        _of(
            "failures are added up across shards",
            TOLERANCE,
            'noted = sum(int(name.rpartition("-")[2]) for name in store.names(EXCESS))',
            "noted = failed",
        ),
    ),
    "failing tasks within the tolerance": (
        _of(
            "only proven excess counts",
            TOLERANCE,
            "if not exceeds(noted, tolerated, listed):",
            "if False:",
        ),
    ),
    "a kind that kills throughout": (
        _of(
            "a bound on quarantined tasks",
            WORK,
            "if self._progress.counts.quarantined > QUARANTINES:",
            "if False:",
        ),
    ),
    "rare deaths in a long shard": (
        _of(
            "the count of retries begins anew when the shard moves on",
            WORK,
            "if self._is_after_death and end < len(tasks):",
            "if False:",
        ),
    ),
    "tasks that take minutes": (
        _of(
            "the longest so far is part of the deadline",
            WORK,
            "self._is_late(wait + self._longest):",
            "self._is_late(wait):",
        ),
    ),
    "a CSV overwritten while it is listed": (
        Removal(
            "reads are of the version that was planned", STORAGE, (Cut("version-of-a-source", value("{}")),)
        ),
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
        Removal(
            "effects are keyed by the job's start, too", PLAN, (Cut("scope-has-the-start", value("job_id")),)
        ),
    ),
    "workers that all die, everything tolerated": (
        Removal("a job of which no shard was finished is FAILED", RECORD, (Cut("no-shard-finished", never),)),
    ),
    "a stuck job": (
        _of(
            "a time-out on the machine",
            MACHINE,
            '"TimeoutSeconds": 604800,',
            "",
            test="test_a_stuck_job_ends_some_day",
        ),
        _of(
            "a time-out on every Task",
            MACHINE,
            '"TimeoutSeconds": 90,',
            "",
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
        _of(
            "the execution's name is the job's id",
            "lambdas/fan_out/jobs.py",
            "name=job_id, input=text",
            "name=new_id(), input=text",
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
        _of(
            "Catch to a Fail state",
            MACHINE,
            '"Catch": [{"ErrorEquals": ["States.ALL"], "ResultPath": "$.error", "Next": "Unaccounted"}],',
            "",
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
        _of(
            "EventBridge",
            "infra/constructs/workflow.py",
            '"status": ["ABORTED", "TIMED_OUT", "FAILED"]',
            '"status": ["ABORTED", "TIMED_OUT"]',
            test="test_a_job_that_ends_early_reaches_the_closer_or_the_dead_letter_queue",
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
            OUTCOMES,
            (Cut("text-is-utf-8", value("(str(name), str(message))")),),
            test="test_a_failures_message_of_any_length_and_any_text_is_written_short",
        ),
    ),
    "items over 400 KB": (
        _of(
            "a task has at most 1,100 characters",
            "lambdas/task_service/validation.py",
            "DETAIL_CHARACTERS: Final = 1_000\n",
            "DETAIL_CHARACTERS: Final = 1_000_000\n",
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
