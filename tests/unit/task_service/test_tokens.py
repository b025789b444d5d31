"""Page tokens: only as issued, only for the listing they were issued for."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from task_service.errors import InvalidPageTokenError
from task_service.filters import TaskFilter
from task_service.tokens import Listing, PageTokens

ids = st.from_regex(r"[A-Za-z0-9_-]{1,64}", fullmatch=True)
times = st.none() | st.sampled_from(["2026-05-17T09:00:00Z", "2026-05-18T09:00:00Z"])
filters = st.builds(TaskFilter, is_complete=st.none() | st.booleans(), due_before=times, due_after=times)
listings = st.integers(1, 4).flatmap(
    lambda total: st.builds(Listing, filter=filters, segment=st.integers(0, total - 1), total_segments=st.just(total))
)
TOKENS = PageTokens("secret")


@given(ids, listings)
def test_a_token_says_where_its_own_listing_goes_on(last_id: str, listing: Listing) -> None:
    assert TOKENS.read(TOKENS.issue(last_id, listing), listing) == last_id


@given(ids, listings, listings)
def test_a_token_is_refused_by_any_other_filter_or_segment(last_id: str, own: Listing, other: Listing) -> None:
    token = TOKENS.issue(last_id, own)
    if own == other:
        return

    with pytest.raises(InvalidPageTokenError):
        TOKENS.read(token, other)


@given(ids, listings, st.data())
def test_a_token_changed_in_any_character_is_refused(last_id: str, listing: Listing, data: st.DataObject) -> None:
    token = TOKENS.issue(last_id, listing)
    position = data.draw(st.integers(0, len(token) - 1))
    character = data.draw(st.characters().filter(lambda each: each != token[position]))

    with pytest.raises(InvalidPageTokenError):
        TOKENS.read(token[:position] + character + token[position + 1 :], listing)


@pytest.mark.parametrize("last_id", ["a", "ab", "abc", "abcd"])
def test_no_other_spelling_of_a_token_is_a_token(last_id: str) -> None:
    token = TOKENS.issue(last_id, Listing(TaskFilter()))
    raw = base64.urlsafe_b64decode(token + "==")
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    same = [token[:-1] + last for last in alphabet if base64.urlsafe_b64decode(token[:-1] + last + "==") == raw]

    for spelling in {*same, token + "=", token + "==", token + "\n", token[:3] + "!" + token[3:]} - {token}:
        with pytest.raises(InvalidPageTokenError):
            TOKENS.read(spelling, Listing(TaskFilter()))


@given(ids, listings, st.data())
def test_every_byte_of_a_token_is_signed(last_id: str, listing: Listing, data: st.DataObject) -> None:
    token = TOKENS.issue(last_id, listing)
    raw = bytearray(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
    raw[data.draw(st.integers(0, len(raw) - 1))] ^= data.draw(st.integers(1, 255))

    with pytest.raises(InvalidPageTokenError):
        TOKENS.read(base64.urlsafe_b64encode(raw).decode().rstrip("="), listing)


@given(st.none() | st.integers() | st.binary() | st.text() | st.lists(st.text()))
def test_what_is_no_token_is_refused(value: object) -> None:
    with pytest.raises(InvalidPageTokenError):
        TOKENS.read(value, Listing(TaskFilter()))


def test_a_token_of_another_secret_is_refused() -> None:
    listing = Listing(TaskFilter())

    with pytest.raises(InvalidPageTokenError, match=r"pageToken is .*, but must be the token of an earlier answer"):
        TOKENS.read(PageTokens("another").issue("a", listing), listing)


def test_there_are_no_tokens_without_a_secret() -> None:
    with pytest.raises(ValueError, match="empty"):
        PageTokens("")
