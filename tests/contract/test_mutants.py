"""Each single fault of the state machine's definition fails a check of it."""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Callable

from tests.contract import test_state_machine as contract
from tests.contract.asl.definition import Definition
from tests.contract.asl.mutants import Mutant, mutants

CHECKS: list[Callable[[Definition], None]] = [
    check
    for name, check in vars(contract).items()
    if name.startswith("test_") and list(inspect.signature(check).parameters) == ["machine"]
]
MUTANTS = list(mutants(contract.DEFINITION))

# Faults that change nothing, by their names, and why.
EQUIVALENT = {
    "misspell the text: RecordNotWritten.Cause": "It is a sentence for people; the error's name is the contract."
}


def is_killed(mutant: Mutant) -> bool:
    """Whether a check refuses the definition."""
    return any(refuses(check, mutant) for check in CHECKS)


def refuses(check: Callable[[Definition], None], mutant: Mutant) -> bool:
    try:
        check(mutant.definition)
    # A definition that lacks what a check looks for is refused, too.
    except Exception:
        return True
    return False


def test_every_check_notices_a_fault() -> None:
    for check in CHECKS:
        assert any(refuses(check, mutant) for mutant in MUTANTS), check.__name__


def test_every_fault_is_noticed_or_known_to_be_none() -> None:
    assert {mutant.name for mutant in MUTANTS if not is_killed(mutant)} == set(EQUIVALENT)


def test_there_are_faults_of_every_rule() -> None:
    names = [mutant.name for mutant in MUTANTS]
    assert len(set(names)) == len(names) > 4000
    rules = Counter(mutant.rule.partition(" ")[0] for mutant in MUTANTS)
    assert set(rules) >= {"delete", "misspell", "the", "flip", "swap", "add"}
    states = contract.DEFINITION.states()
    for name in states:
        assert any(name in mutant.path.split(".") for mutant in MUTANTS), name
