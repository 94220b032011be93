import numpy as np
import pytest

from ebomlc.data.spelling import choose_spelling
from ebomlc.errors import InputError


def column(*labels):
    return np.array(labels, dtype=object)


def test_nothing_is_said_of_labels_that_differ():
    assert choose_spelling([column("cat", "dog", None), column("fish", "1", "01")], None) == {}


@pytest.mark.parametrize(
    "pair", [("Cat", "cat"), ("cat ", "cat"), ("grey  cat", "grey cat"), ("Straße", "STRASSE"), ("\ufb01sh", "fish")]
)
def test_labels_that_differ_by_case_or_blanks_are_asked_about(pair):
    with pytest.raises(InputError) as caught:
        choose_spelling([column(*pair, "dog")], None)
    assert repr(pair[0]) in str(caught.value)
    assert "--normalise-labels takes them as one, --no-normalise-labels keeps them apart" in str(caught.value)


def test_the_most_frequent_spelling_wins_over_all_columns():
    chosen = choose_spelling([column("Cat", "Cat", "cat", "dog"), column("cat", "cat", None)], True)
    assert chosen == {"Cat": "cat", "cat": "cat"}


def test_between_equals_the_first_of_the_alphabet_wins_whatever_the_order():
    assert (
        choose_spelling([column("b ", "b")], True)
        == choose_spelling([column("b", "b ")], True)
        == {"b": "b", "b ": "b"}
    )


def test_they_stay_apart_where_that_is_wanted():
    assert choose_spelling([column("Cat", "cat")], False) == {}


def test_whole_numbers_that_pandas_wrote_with_a_fraction_are_what_they_were():
    labels, checked = column("3", "10", "-1"), column(None, "3.0", "-1.0", "4.0")
    assert choose_spelling([labels, checked], None) == {"3.0": "3", "-1.0": "-1", "4.0": "4"}
    assert choose_spelling([labels, checked], False) == {"3.0": "3", "-1.0": "-1", "4.0": "4"}


@pytest.mark.parametrize("other", [("3", "3.0"), ("3.0", "10.0"), ("3", "2.5", "10.0")])
def test_fractions_that_mean_something_stay(other):
    assert choose_spelling([column(*other), column("3.0", "10.0")], None) == {}


def test_both_kinds_of_spelling_at_once():
    chosen = choose_spelling([column("A", "a", "a", "3"), column("3.0", "1.0")], True)
    assert chosen == {"A": "a", "a": "a", "3.0": "3", "1.0": "1"}
