"""Lists of seeds as users write them."""

import pytest

from restart_sampling.base.errors import InputError
from restart_sampling.generation.seeds import parse_seeds


def test_seeds_and_ranges():
    assert parse_seeds("0-3") == (0, 1, 2, 3)
    assert parse_seeds("1, 5,10-12") == (1, 5, 10, 11, 12)
    assert len(parse_seeds("0-49999")) == 50_000


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "cannot read ''"),
        ("a", "cannot read 'a'"),
        ("1-", "cannot read '1-'"),
        ("-1", "cannot read '-1'"),
        ("1.5", "cannot read '1.5'"),
        ("9-3", "ends before it begins; write it as 3-9"),
        ("1,2,1", "given twice"),
        ("0-5,3", "given twice"),
        (str(2**63), "out of range"),
        (f"0-{2**63 - 1}", "more than 10,000,000"),
        (f"0-{2**63}", "out of range"),
        ("1" * 5000, "cannot read"),
    ],
)
def test_bad_seeds_are_one_sentence(text, message):
    with pytest.raises(InputError, match=message):
        parse_seeds(text)
