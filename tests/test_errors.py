import pytest

from ebomlc.errors import SHOWN_NAMES, InputError, listed, nearest_name, unknown_name


@pytest.mark.parametrize(
    ("name", "known", "nearest"),
    [
        ("ebmlc", ["ce", "ebomlc", "ebomlc-literal", "mlc"], "ebomlc"),
        ("resnet21", ["resnet56", "resnet32", "resnet20"], "resnet20"),
        ("LABEL", ["Label", "id"], "Label"),
        ("qqqq", ["ce", "mlc"], None),
        ("anything", [], None),
    ],
)
def test_the_nearest_name_is_suggested_only_where_one_is_near(name, known, nearest):
    assert nearest_name(name, known) == nearest


def test_an_unknown_name_is_answered_with_the_nearest_and_all_others():
    error = unknown_name("method", "mcl", ["mlc", "ce"])
    assert isinstance(error, InputError)
    assert str(error) == "unknown method 'mcl': did you mean 'mlc'? known: ce, mlc"


def test_nothing_is_suggested_for_a_name_like_no_other():
    assert str(unknown_name("method", "qqqq", ["mlc", "ce"])) == "unknown method 'qqqq': known: ce, mlc"


def test_a_long_list_is_cut():
    names = [f"x{k}" for k in range(SHOWN_NAMES + 54)]
    assert listed(names).endswith(f", x{SHOWN_NAMES - 1} and 54 more")
    assert listed(names[:SHOWN_NAMES]).endswith(f", x{SHOWN_NAMES - 1}")
