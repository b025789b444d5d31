from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fan_out.model.outcomes import GROUPS, SAMPLES, Counts, Digest, exceeds, failure, normalise
from tests.support.factories import task


def entry(number: int, name: str = "BadError", message: str = "bad", outcome: str = "failed") -> dict[str, Any]:
    return failure(task(number), outcome, name, message, shard=number // 10, attempts=1)


entries = st.lists(
    st.builds(
        entry,
        st.integers(0, 99),
        st.sampled_from(["BadError", "WorseError"]),
        st.sampled_from(["bad", 'title is "x"', 'title is "y"', "row 5", "row 77"]),
        st.sampled_from(["failed", "quarantined"]),
    ),
    max_size=30,
)


def digest(of: list[dict[str, Any]]) -> Digest:
    made = Digest()
    for each in of:
        made.add(each)
    return made


@given(st.lists(entries, max_size=5), st.randoms())
def test_digests_merge_to_the_same_in_any_order(parts: list[list[dict[str, Any]]], chance: Any) -> None:
    whole = digest([each for part in parts for each in part])
    shuffled = list(parts)
    chance.shuffle(shuffled)
    merged = Digest(group for part in shuffled for group in json.loads(json.dumps(digest(part).to_json())))
    assert counts(merged) == counts(whole)
    assert [group["samples"] for group in merged.to_json()] == [group["samples"] for group in whole.to_json()]


def counts(of: Digest) -> list[tuple[Any, ...]]:
    return [(group["outcome"], group["error"], group["message"], group["count"]) for group in of.to_json()]


def test_failures_of_one_cause_are_one_group_with_a_few_samples() -> None:
    made = digest(
        [entry(number, message=f'Row {number}: title is "{number} x", but must not be.') for number in range(50)]
    )
    (group,) = made.to_json()
    assert group["count"] == 50
    assert group["message"] == "Row <n>: title is <text>, but must not be."
    assert [sample["task"] for sample in group["samples"]] == ["task-00000", "task-00001", "task-00002"]
    assert len(group["samples"]) == SAMPLES


def test_the_largest_group_comes_first() -> None:
    made = digest([entry(1, "RareError"), *(entry(number, "OftenError") for number in range(5))])
    assert [group["error"] for group in made.to_json()] == ["OftenError", "RareError"]


def test_a_cause_of_many_is_not_lost_behind_many_causes_of_one() -> None:
    odd = [entry(number, message=f"cause {chr(0x4E00 + number)}") for number in range(2 * GROUPS)]
    common = [entry(1000 + number, message="the common cause") for number in range(50)]
    first = digest([*odd, *common]).to_json()[0]
    # The odd ones that there is no room for are one group.
    assert (first["message"], first["count"]) == ("…", GROUPS + 1)
    merged = Digest([*digest(odd).to_json(), *digest(common).to_json()]).to_json()
    assert {"the common cause": 50}.items() <= {group["message"]: group["count"] for group in merged}.items()
    assert {group["message"]: group["samples"][0]["task"] for group in merged}["the common cause"] == "task-01000"


@pytest.mark.parametrize(
    ("count", "percentage", "total", "is_more"),
    [
        (69, 2.3, 3000, False),
        (70, 2.3, 3000, True),
        (123, 4.1, 3000, False),
        (1, 33.3334, 3, False),
        (0, 0, 0, False),
    ],
)
def test_a_percentage_is_what_is_written(count: int, percentage: float, total: int, is_more: bool) -> None:
    assert exceeds(count, percentage, total) is is_more


@given(st.integers(0, 10_000), st.integers(1, 10_000))
def test_a_share_of_exactly_the_percentage_is_within_it(hundredths: int, total: int) -> None:
    count = hundredths * total // 10_000
    assert exceeds(count + 1, hundredths / 100, total)
    assert not exceeds(count, hundredths / 100, total)


def test_a_row_is_named_by_its_number() -> None:
    row = failure({"row": 7, "fields": {}}, "failed", "BadError", "bad", shard=0, attempts=1)
    assert digest([row]).to_json()[0]["samples"][0]["task"] == "row-7"


@pytest.mark.parametrize("kind", ["message", "error", "both"])
def test_a_digest_of_many_causes_stays_bounded(kind: str) -> None:
    letters = "abcdefghij"
    names = ["".join(letters[int(digit)] for digit in str(number)) for number in range(3 * GROUPS)]
    made = digest(
        [
            entry(
                number,
                name if kind != "message" else "BadError",
                f"cause {name}" if kind != "error" else "bad",
            )
            for number, name in enumerate(names)
        ]
    )
    groups = made.to_json()
    assert len(groups) <= 2 * GROUPS + 4
    assert sum(group["count"] for group in groups) == 3 * GROUPS
    again = Digest([*groups, *groups])
    assert len(again.to_json()) <= 2 * GROUPS + 4
    assert sum(group["count"] for group in again.to_json()) == 6 * GROUPS


@pytest.mark.parametrize(
    ("message", "normal"),
    [
        ("nothing to change", "nothing to change"),
        ("took 1.5 s at 12:30", "took <n> s at <n>"),
        ("task 3f2504e0-4f89-11d3-9a0c-0305e82c3301 is gone", "task <id> is gone"),
        ("sha 0123456789abcdef0123 differs", "sha <id> differs"),
        ("field 'x y' and \"z\"", "field <text> and <text>"),
        ("x" * 1000, "x" * 200),
        ("", ""),
    ],
)
def test_a_normalised_message_lacks_what_differs(message: str, normal: str) -> None:
    assert normalise(message) == normal


def test_counts_add_up() -> None:
    total = Counts(1, 2, 3, 4) + Counts(10, 20, 30, 40)
    assert total == Counts(11, 22, 33, 44)
    assert (total.not_succeeded, total.total) == (99, 110)
