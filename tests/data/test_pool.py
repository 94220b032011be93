import warnings
from collections import Counter

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from ebomlc.config import DataConfig
from ebomlc.data.inputs import Inputs
from ebomlc.data.noise import apply_noise, parse_noise
from ebomlc.data.pool import load_pool
from ebomlc.data.readers import Reading, read_built_in, read_source
from ebomlc.data.splits import split_hash
from ebomlc.errors import DataWarning, InputError
from ebomlc.records import NO_LABEL
from ebomlc.seeding import child_seed

NOISY = "id,x,y,label\na,1,2,p\nb,2,,q\nc,3,4,q\nd,4,5,p\ne,5,6,p\n"
TRUSTED = "id,x,y,label\nt1,1,2,p\nt2,7,9,q\nt3,1,3,p\n"


def names(pool, labels):
    return [None if label == NO_LABEL else pool.class_names[label] for label in labels]


@pytest.fixture
def files(write):
    """Paths of a noisy and a trusted file; other files by keyword, a name of which is `DataConfig`'s."""

    def write_files(noisy=NOISY, trusted=TRUSTED, **others):
        contents = {"noisy": noisy, "trusted": trusted, **others}
        return {name: str(write(f"{name}.csv", content)) for name, content in contents.items() if content is not None}

    return write_files


def load(paths, seed=0, **settings):
    return load_pool(DataConfig(**paths, **settings), seed)


def refusal(paths, **settings) -> str:
    with pytest.raises(InputError) as caught:
        load(paths, **settings)
    return str(caught.value)


# --- real data --------------------------------------------------------------------------------------------------------


def test_hausa_is_joined_as_its_files_say(hausa):
    paths = {name: str(hausa / f"{name}.csv") for name in ("noisy", "trusted", "test", "truth")}
    pool = load(paths)
    noisy, trusted = (read_source(hausa / f"{name}.csv", Reading()) for name in ("noisy", "trusted"))
    truth = dict(pd.read_csv(hausa / "truth.csv").itertuples(index=False))
    np.testing.assert_array_equal(pool.ids, [*noisy.ids, *trusted.ids])
    assert names(pool, pool.given) == [*noisy.labels, *trusted.given]
    assert names(pool, pool.right) == [None] * len(noisy) + list(trusted.labels)
    assert names(pool, pool.truth) == [truth[row] for row in noisy.ids] + list(trusted.labels)
    assert (pool.n_classes, len(pool.split.heldout), len(pool.scored)) == (5, 12, 1795)
    assert pool.measured_noise == pytest.approx(0.504, abs=5e-4)
    assert pool.test is not None
    assert len(pool.test.inputs) == len(pool.test.labels) == 582


def test_derby_has_its_features_in_every_set(derby):
    paths = {name: str(derby / f"{name}.csv") for name in ("noisy", "trusted", "test")}
    pool = load(paths)
    assert pool.inputs.numbers().shape == (1963, 65)
    assert pool.test is not None
    assert pool.test.inputs.columns == pool.inputs.columns
    assert pool.measured_noise is None
    assert len(pool.scored) == 0


def test_digits_take_the_noise_that_was_asked_for():
    pool = load({"noisy": "digits"}, noise="flip:0.4", n_trusted=100, seed=3)
    train, test = read_built_in("digits", None)
    clean = np.array([int(label) for label in train.labels])
    drawn = apply_noise(clean, parse_noise("flip:0.4"), 10, child_seed(3, "noise"))
    noisy = pool.split.noisy
    np.testing.assert_array_equal(pool.truth, clean)
    np.testing.assert_array_equal(pool.given[noisy], drawn.labels[noisy])
    assert pool.measured_noise == (pool.given[noisy] != clean[noisy]).mean()
    assert pool.measured_noise == pytest.approx(0.4, abs=0.05)
    assert pool.test is not None
    assert len(pool.test.labels) == len(test)


def test_drawn_rows_hide_their_given_label_unless_pairs_are_asked_for():
    hidden, paired = (
        load({"noisy": "digits"}, noise="flip:0.4", n_trusted=100, pairs=pairs) for pairs in (False, True)
    )
    assert split_hash(hidden.split) == split_hash(paired.split)
    drawn = np.concatenate([hidden.split.trusted, hidden.split.heldout])
    assert len(drawn) == 100
    assert (hidden.given[drawn] == NO_LABEL).all()
    assert 0.2 < (paired.given[drawn] != paired.right[drawn]).mean() < 0.6
    np.testing.assert_array_equal(hidden.right[drawn], hidden.truth[drawn])


def test_no_noisy_row_carries_a_right_label():
    pool = load({"noisy": "digits"}, noise="flip:0.4", n_trusted=100)
    assert (pool.right[pool.split.noisy] == NO_LABEL).all()


def test_the_seed_decides_noise_and_split():
    first, again, other = (load({"noisy": "digits"}, seed, noise="flip:0.4", n_trusted=100) for seed in (0, 0, 1))
    assert split_hash(first.split) == split_hash(again.split) != split_hash(other.split)
    np.testing.assert_array_equal(first.given, again.given)
    assert (first.given != other.given).any()


def test_almost_every_row_may_be_drawn():
    with pytest.warns(DataWarning, match="no noisy row of class"):
        pool = load({"noisy": "digits"}, n_trusted=1344)
    assert len(pool.split.noisy) == 3


# --- joining files ----------------------------------------------------------------------------------------------------


def test_a_trusted_row_replaces_the_noisy_row_of_the_same_id_and_keeps_its_given_label(files):
    pool = load(files(trusted="label,id,y,x\np,b,8,9\nq,zz,7,7\np,yy,1,1\n"))
    assert Counter(pool.ids) == Counter(["a", "b", "c", "d", "e", "zz", "yy"])
    row = list(pool.ids).index("b")
    assert names(pool, [pool.given[row], pool.right[row]]) == ["q", "p"]
    assert row in pool.split.trusted
    np.testing.assert_array_equal(pool.inputs.numbers()[row], [9, 8])


def test_a_given_label_in_the_trusted_file_comes_first(files):
    pool = load(files(trusted="id,x,y,label,given_label\nb,1,1,p,p\nd,1,1,q,\nf,1,1,p,\n"))
    labels = dict(zip(pool.ids, names(pool, pool.given), strict=True))
    assert (labels["b"], labels["d"], labels["f"]) == ("p", "p", None)


def test_rows_of_files_without_ids_are_told_apart(files):
    pool = load(files(noisy="x,label\n1,p\n2,q\n", trusted="x,label\n1,p\n2,q\n3,p\n"))
    assert pool.ids.tolist() == ["1", "2", "trusted-1", "trusted-2", "trusted-3"]


def test_an_id_that_is_also_a_row_number_is_refused(files):
    said = refusal(files(noisy="x,label\n1,p\n2,q\n", trusted="id,x,label\n2,1,p\n8,2,q\n9,3,p\n"))
    assert "id '2' also names a row of" in said
    assert "both files need an id column" in said


def test_columns_may_have_other_names_and_another_order(files):
    paths = files(
        noisy="key,x,klasse,y\n1,2,p,3\n2,3,q,4\n",
        trusted="klasse,y,key,x\np,30,7,20\np,31,8,21\nq,32,9,22\n",
        test="klasse,y,x\nq,300,200\n",  # test rows need no ids
        truth="key,klasse\n1,q\n",
    )
    pool = load(paths, id="key", label="klasse")
    assert pool.inputs.columns == ("x", "y")
    np.testing.assert_array_equal(pool.inputs.numbers(), [[2, 3], [3, 4], [20, 30], [21, 31], [22, 32]])
    assert pool.test is not None
    np.testing.assert_array_equal(pool.test.inputs.numbers(), [[200, 300]])
    assert names(pool, pool.truth[:2]) == ["q", None]
    assert pool.measured_noise == 1.0


def test_further_columns_of_the_other_files_are_not_looked_at(files):
    pool = load(files(trusted="id,z,x,y,label\nt1,?,1,2,p\nt2,,7,9,q\nt3,1,1,3,p\n"))
    assert pool.inputs.columns == ("x", "y")


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (["10", "2", "1"], ("1", "2", "10")),
        (["1e1", "-2", "0.5"], ("-2", "0.5", "1e1")),
        (["10", "2", "b"], ("10", "2", "b")),
        (["nan", "2", "10"], ("10", "2", "nan")),
        (["01", "1", "1.0"], ("01", "1", "1.0")),
        (["None", "NA", "007"], ("007", "NA", "None")),
    ],
)
def test_classes_are_in_the_order_of_their_numbers_else_of_the_alphabet(files, labels, expected):
    rows = "".join(f"{row},{row},{label}\n" for row, label in enumerate(labels * 3))
    trusted = "".join(f"t{row},{row},{label}\n" for row, label in enumerate(labels * 3))
    pool = load(files(noisy="id,x,label\n" + rows, trusted="id,x,label\n" + trusted))
    assert pool.class_names == expected
    assert names(pool, pool.given[:3]) == labels


def test_noise_goes_round_the_classes_in_their_order(files):
    rows = "".join(f"{row},{row},{label}\n" for row, label in enumerate(["1", "2", "10"] * 4))
    pool = load(files(noisy="id,x,label\n" + rows, trusted=None), noise="pair:1", n_trusted=6)
    noisy = pool.split.noisy
    following = {"1": "2", "2": "10", "10": "1"}
    assert names(pool, pool.given[noisy]) == [following[label] for label in names(pool, pool.truth[noisy])]


# --- one table, and rows that are known from elsewhere ----------------------------------------------------------------


@pytest.mark.parametrize("name", ["hausa", "derby"])
def test_one_real_table_is_the_same_pool_as_two(name, request):
    folder = request.getfixturevalue(name)
    two = load({"noisy": str(folder / "noisy.csv"), "trusted": str(folder / "trusted.csv")})
    one = load({"noisy": str(folder / "one_file.csv")}, checked="checked_label")
    order = [list(one.ids).index(row) for row in two.ids]
    assert sorted(order) == list(range(len(one.ids)))
    for part in ("given", "right"):
        np.testing.assert_array_equal(getattr(one, part)[order], getattr(two, part))
    assert one.inputs.take(np.array(order)).values.equals(two.inputs.values)
    assert len(one.checked) == len(two.checked)


ONE = "id,x,label,checked_label\na,1,p,\nb,2,q,p\nc,3,q,q\nd,4,p,\ne,5,p,p\nf,6,,q\ng,7,q,\n"


def test_a_column_of_checked_labels_is_found_by_itself(files):
    paths = files(noisy=ONE, trusted=None)
    named, found = load(paths, checked="checked_label"), load(paths)
    assert names(found, found.right) == names(named, named.right) == [None, "p", "q", None, "p", "q", None]
    assert names(found, found.given) == ["p", "q", "q", "p", "p", None, "q"]
    assert found.provenance.tolist() == [None, "unknown", "unknown", None, "unknown", "unknown", None]


def test_ids_and_labels_are_enough_for_rows_that_are_there(files):
    pool = load(files(trusted="id,label\nb,p\na,p\ne,q\n"))
    assert pool.ids.tolist() == ["a", "b", "c", "d", "e"]
    assert names(pool, pool.right) == ["p", "p", None, None, "q"]
    assert names(pool, pool.given) == ["p", "q", "q", "p", "p"]


def test_ids_that_are_not_there_need_inputs(files):
    said = refusal(files(trusted="id,label\nb,p\nzz,p\nyy,p\n"))
    assert "id 'zz' (and 1 more) is not in" in said
    assert "no inputs of its own" in said


def test_a_sample_that_came_back_checked_brings_its_provenance(files):
    rows = "id,x,y,label,checked_label,provenance,sampling_weight\n"
    sample = rows + "b,2,,q,p,random,2\ne,3,4,p,q,random,2\na,1,2,p,p,suspect,\nd,4,5,p,,random,2\n"
    said = []
    pool = load_pool(DataConfig(**files(trusted=sample)), 0, say=said.append)
    assert "1 of 4 rows are not checked yet and are left out" in said[0]
    row = {name: index for index, name in enumerate(pool.ids)}
    assert names(pool, pool.given[[row["b"]]]) == ["q"]
    assert pool.provenance[[row[name] for name in "abed"]].tolist() == ["suspect", "random", "random", None]
    assert pool.weights[row["b"]] == 2


def test_a_sample_that_nobody_filled_in_is_no_trusted_set(files):
    said = refusal(files(trusted="id,x,y,label,checked_label\na,1,2,p,\nb,2,,q,\n"))
    assert "its column of checked labels is empty in every row" in said


def test_a_sample_of_rows_without_ids_is_joined_by_their_numbers(files):
    noisy = "x,y,label\n" + "".join(f"{k},{k * k},{'pq'[k % 2]}\n" for k in range(9))
    sample = "id,x,y,label,checked_label\n2,1,1,q,p\n5,4,16,p,p\n8,7,49,q,q\n"
    pool = load(files(noisy=noisy, trusted=sample))
    assert len(pool.ids) == 9
    assert sorted(pool.ids[pool.checked]) == ["2", "5", "8"]
    row = list(pool.ids).index("2")
    assert names(pool, [pool.given[row], pool.right[row]]) == ["q", "p"]


def test_the_same_check_twice_counts_once(files):
    said = []
    pool = load_pool(DataConfig(**files(trusted="id,label\nb,p\na,p\nb,p\nd,q\n")), 0, say=said.append)
    assert "1 rows repeat the id and the label of another" in said[0]
    assert len(pool.checked) == 3


def test_checks_that_contradict_each_other_are_refused(files):
    said = refusal(files(trusted="id,label\nb,p\na,p\nb,q\n"))
    assert "id 'b' was checked twice and got 'p' in row 2 (the header is row 1), 'q' in row 4" in said
    said = refusal(files(noisy=ONE, trusted="id,label\nb,q\na,p\nc,q\n"))
    assert "id 'b' is 'q' there, but its checked label in the noisy set is 'p'" in said


def test_what_either_file_says_of_a_checked_row_is_kept(files):
    header = "id,x,label,checked_label,provenance,sampling_weight\n"
    noisy = header + "a,1,p,,,\nb,2,q,p,random,3\nc,3,q,,,\nd,4,p,,,\ne,5,q,,,\n"
    trusted = "id,label,given_label,provenance,sampling_weight\nb,p,,,\nc,q,p,suspect,\nc,q,,,2\na,p,,,\n"
    pool = load(files(noisy=noisy, trusted=trusted))
    assert pool.provenance.tolist() == ["unknown", "random", "suspect", None, None]
    np.testing.assert_array_equal(pool.weights, [np.nan, 3, 2, np.nan, np.nan])
    assert names(pool, pool.given) == ["p", "q", "p", "p", "q"]


def test_numbers_of_rows_do_not_join_rows_of_another_file(files):
    noisy = "x,y,label\n" + "".join(f"{k},{k * k},{'pq'[k % 2]}\n" for k in range(9))
    other = "id,x,y,label,checked_label\n2,71,1,q,p\n5,74,16,p,p\n8,77,49,q,q\n"
    said = refusal(files(noisy=noisy, trusted=other))
    assert "the row with number 2 is another one in" in said
    assert "give both files an id column" in said
    relabelled = "id,label,checked_label\n2,p,p\n5,p,p\n8,q,q\n"
    assert "the row with number 2 is another one" in refusal(files(noisy=noisy, trusted=relabelled))


def test_trusted_rows_in_another_order_make_the_same_pool(files):
    rows = ["b,2,,p", "e,5,6,q", "a,1,2,p"]
    pools = [load(files(trusted="id,x,y,label\n" + "\n".join(order) + "\n")) for order in (rows, rows[::-1])]
    assert pools[0].ids.tolist() == pools[1].ids.tolist() == ["a", "b", "c", "d", "e"]
    assert split_hash(pools[0].split) == split_hash(pools[1].split)


@pytest.mark.parametrize("role", ["test", "truth"])
def test_a_checked_label_is_the_right_one_in_every_set(files, role):
    """A sample that came back is scored on what the person said, not on what was given."""
    content = "id,x,y,label,checked_label\nc,93,94,p,q\nd,94,95,q,p\ne,95,96,q,\n"
    said = []
    pool = load_pool(DataConfig(**files(**{role: content})), 0, say=said.append)
    if role == "test":
        assert pool.test is not None
        assert names(pool, pool.test.labels) == ["q", "p"]
        assert "1 of 3 rows are not checked yet" in said[0]
    else:
        assert names(pool, pool.truth[2:5]) == ["q", "p", None]


def test_a_truth_that_contradicts_itself_is_refused(files):
    assert "id 'c' has the label 'q' and in row 3 (the header is row 1) 'p'" in refusal(
        files(truth="id,label\nc,q\nc,p\n")
    )


def test_checked_rows_whose_image_was_left_out_are_left_out_too(tmp_path):
    digits = load_digits()
    ids = []
    for number, (pixels, right) in enumerate(zip(digits.images[:40], digits.target, strict=False)):
        ids.append(f"{right % 2}/{number:02d}.png")
        path = tmp_path / "photos" / ids[-1]
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((pixels * 15).astype(np.uint8)).save(path)
    (tmp_path / "photos" / ids[3]).write_bytes(b"%PDF-1.7")
    (tmp_path / "checked.csv").write_text("id,label\n" + "".join(f"{name},{name[0]}\n" for name in ids[:12]))
    said = []
    config = DataConfig(
        str(tmp_path / "photos"),
        trusted=str(tmp_path / "checked.csv"),
        on_bad_input="skip",
        cache_dir=str(tmp_path / "cache"),
    )
    with pytest.warns(DataWarning, match="1 of 40 images cannot be read"):
        pool = load_pool(config, 0, say=said.append)
    assert any("1 of 12 checked rows are left out, for their inputs cannot be read" in line for line in said)
    assert (len(pool.ids), len(pool.checked)) == (39, 11)
    assert [name for name, _ in pool.skipped] == [ids[3]]


def test_images_of_trusted_rows_replace_those_of_noisy_ones_without_a_copy_of_all(tmp_path):
    array = np.lib.format.open_memmap(tmp_path / "a.npy", mode="w+", shape=(50, 1, 4, 4), dtype=np.uint8)
    array[:] = np.arange(50)[:, None, None, None]
    array.flush()
    values = np.load(tmp_path / "a.npy", mmap_mode="c")
    inputs = Inputs("images", values)
    changed = inputs.replace(np.array([7, 3]), Inputs("images", np.full((2, 1, 4, 4), 200, np.uint8)))
    assert np.shares_memory(changed.values, values)
    assert changed.values[[3, 7, 8], 0, 0, 0].tolist() == [200, 200, 8]
    assert np.load(tmp_path / "a.npy")[3, 0, 0, 0] == 3, "the file stays as it was"
    mine = np.zeros((5, 2), np.float32)
    Inputs("vectors", mine).replace(np.array([1]), Inputs("vectors", np.ones((1, 2), np.float32)))
    assert not mine.any(), "somebody's array stays as it was"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"n_trusted": 2}, "has checked rows of its own: leave --n-trusted out"),
        ({"image_size": 32}, "holds no images: leave --image-size out"),
    ],
)
def test_options_that_say_nothing_about_such_rows_are_refused(files, settings, message):
    assert message in refusal(files(noisy=ONE, trusted=None), **settings)


def test_a_column_of_somebody_elses_provenance_is_no_provenance(files):
    pool = load(
        files(
            noisy=NOISY.replace("label\n", "label,provenance\n").replace("p\n", "p,Italy\n").replace("q\n", "q,Spain\n")
        )
    )
    assert set(pool.provenance[pool.split.noisy]) == {None}


def test_drawn_rows_are_random(files):
    pool = load({"noisy": "digits"}, n_trusted=30, noise="flip:0.2")
    assert set(pool.provenance[pool.checked]) == {"random"}
    assert (pool.provenance[pool.split.noisy] == None).all()  # noqa: E711 - elementwise


def test_objects_from_python_take_the_place_of_files(files):
    paths = files(test="x,y,label\n9,9,p\n8,9,q\n", truth="id,label\nc,p\n")
    expected = load(paths)
    frames = {name: pd.read_csv(path) for name, path in paths.items()}
    config = DataConfig(**dict.fromkeys(paths, "(DataFrame from Python)"))
    pool = load_pool(config, 0, objects=frames)
    np.testing.assert_array_equal(pool.ids, expected.ids)
    for part in ("given", "right", "truth"):
        np.testing.assert_array_equal(getattr(pool, part), getattr(expected, part))
    assert pool.test is not None
    assert pool.test.inputs.values.equals(expected.test.inputs.values)


def test_rows_given_from_python_cannot_be_read_again():
    assert "came from Python" in refusal({"noisy": "(DataFrame from Python)"}, n_trusted=5)


# --- spelling and content ---------------------------------------------------------------------------------------------


def test_spellings_are_asked_about_over_all_sets(files):
    paths = files(trusted=TRUSTED.replace(",p", ",P"), test="x,y,label\n9,9,p \n", truth="id,label\na,P\n")
    assert "('P', 'p', 'p '): are they the same? --normalise-labels" in refusal(paths)
    pool = load(paths, normalise_labels=True)
    assert pool.class_names == ("P", "q")
    assert pool.truth[0] == 0
    assert pool.test is not None
    assert pool.test.labels.tolist() == [0]


def test_spellings_stay_apart_where_that_is_wanted(files):
    paths = files(trusted=TRUSTED + "t4,1,4,P\n")
    with pytest.warns(DataWarning, match=r"no noisy row of class 'P' \(1 row, did you mean 'p'\?\)"):
        assert load(paths, normalise_labels=False).class_names == ("P", "p", "q")


def test_test_rows_that_also_train_are_refused_by_content(files):
    rows = "".join(f"n{k},{k},{k * k},{'pq'[k % 2]}\n" for k in range(40))
    paths = files(noisy="id,x,y,label\n" + rows, test="x,y,label\n3,9,q\n100,9,p\n")
    assert "1 test rows also occur in the training rows, by content" in refusal(paths)
    pool = load(paths, allow_overlap=True)
    assert (pool.overlap.test, pool.overlap.within) == (1, 0)


def test_equal_rows_are_no_copies_where_they_are_common(files):
    rows = "".join(f"n{k},{k % 3},{k % 2},{'pq'[k % 2]}\n" for k in range(40))
    pool = load(files(noisy="id,x,y,label\n" + rows, test="x,y,label\n1,1,q\n"))
    assert pool.overlap.test == 1
    assert not pool.overlap.identifying


def test_ten_thousand_classes_are_read():
    labels = np.arange(30_000) % 10_000
    frame = pd.DataFrame({"x": np.arange(30_000) * 0.5, "label": labels})
    frame["checked_label"] = pd.Series(labels).where(np.arange(30_000) < 20_000)
    pool = load_pool(DataConfig(noisy="(DataFrame from Python)"), 0, objects={"noisy": frame})
    assert pool.n_classes == 10_000
    assert pool.class_names[:3] == ("0", "1", "2")


# --- warned about -----------------------------------------------------------------------------------------------------


def test_classes_without_trusted_rows_are_named(files):
    with pytest.warns(
        DataWarning, match=r"no trusted row of class 'r' \(1 row\), 's' \(1 row\): it can hardly be corrected"
    ):
        load(files(noisy=NOISY + "f,1,1,s\ng,1,1,r\n"))


def test_a_class_of_the_trusted_set_only_is_named(files):
    with pytest.warns(DataWarning, match=r"no noisy row of class 'r' \(1 row\): it occurs in the trusted set only"):
        pool = load(files(trusted=TRUSTED + "t4,1,1,r\n"))
    assert pool.class_names == ("p", "q", "r")


def test_nothing_is_said_where_all_is_well(files):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load(files())


# --- refused ----------------------------------------------------------------------------------------------------------

BAD_SETS = {
    "one class": ({"noisy": "id,x,label\na,1,p\n", "trusted": "id,x,label\nb,1,p\nc,1,p\n"}, "only one class occurs"),
    "one trusted row a class": ({"trusted": "id,x,y,label\nt1,1,2,p\nt2,7,9,q\n"}, "no class has two trusted rows (2"),
    "no trusted row": ({"trusted": "id,x,y,label\n"}, "trusted.csv: a header but no rows"),
    "a feature missing": ({"trusted": "id,x,label\nt1,1,p\n"}, "column 'y'"),
    "a feature that is text": ({"trusted": TRUSTED + "t4,1,hi,q\n"}, "but 'hi' stands in row 5"),
    "all rows trusted": ({"noisy": TRUSTED}, "is a trusted one: there is nothing left to correct"),
    "unknown class in test": (
        {"test": "x,y,label\n1,2,p\n1,2,r\n"},
        "test.csv: row 3 (the header is row 1) has the label 'r'",
    ),
    "unknown class in test with ids": ({"test": "id,x,y,label\nu,1,2,r\n"}, "test.csv: the row with id 'u' has"),
    "a feature missing in test": ({"test": "x,label\n1,p\n"}, "column 'y'"),
    "unknown class in truth": ({"truth": "id,label\nb,r\n"}, "truth.csv: the row with id 'b' has the label 'r'"),
    "truth of other rows": ({"truth": "id,label\nzz,p\n"}, "truth.csv: none of its ids occurs in"),
    "truth without ids": ({"truth": "label\np\n"}, "truth.csv: has no column 'id'"),
    "truth of rows without ids": (
        {"noisy": "x,y,label\n1,2,p\n2,,q\n", "truth": "id,label\n1,p\n"},
        "noisy.csv: has no column 'id'",
    ),
}


@pytest.mark.parametrize("case", BAD_SETS)
def test_sets_that_cannot_be_used_are_refused(files, case):
    contents, message = BAD_SETS[case]
    assert message in refusal(files(**contents))


def test_trusted_rows_are_needed(files):
    paths = files(trusted=None)
    assert "no trusted rows: give a file of checked rows with --trusted FILE" in refusal(paths)
    assert "give --truth FILE, or --trusted FILE" in refusal(paths, n_trusted=2)
    assert "--n-trusted is 5, but only 5 rows have a known right label" in refusal(paths, n_trusted=5, noise="pair:0.1")


def test_noise_needs_two_classes(files):
    paths = files(noisy="id,x,label\na,1,p\nb,2,p\nc,2,p\n", trusted=None)
    assert "only one class occurs" in refusal(paths, noise="symmetric:0.1", n_trusted=2)


def test_truth_and_noise_exclude_each_other(files):
    paths = files(truth="id,label\na,p\n")
    assert "--truth and --noise exclude each other" in refusal(paths, noise="flip:0.1")


def test_rows_of_another_kind_are_refused(files):
    paths = files()
    assert "but a row of" in refusal({**paths, "trusted": "digits"})
    assert "but a row of" in refusal({**paths, "test": "digits"})
    assert "which no training row has" in refusal({**paths, "noisy": "digits"})


def test_a_class_that_a_built_in_set_does_not_have_is_refused(files):
    header = ",".join(["id", "label", *(f"x{k}" for k in range(64))])
    rows = "".join(f"t{row},{label}{',0' * 64}\n" for row, label in enumerate(["3", "3", "eleven"]))
    said = refusal({"noisy": "digits", "trusted": files(trusted=f"{header}\n{rows}")["trusted"]})
    assert "trusted.csv: the row with id 't2' has the label 'eleven'" in said


def test_a_built_in_set_has_no_columns():
    assert "digits is built in and has no columns" in refusal({"noisy": "digits"}, n_trusted=50, text=("text",))


def test_labels_spelt_differently_in_both_sets_are_refused(tmp_path):
    rows = "".join(f"n{k},{k},{'ab'[k % 2]}\n" for k in range(8))
    (tmp_path / "n.csv").write_text("id,x,label\n" + rows)
    (tmp_path / "t.csv").write_text("id,x,label\n" + rows.replace("n", "t").replace("a", "x").replace("b", "y"))
    with pytest.raises(InputError, match="spelt alike"):
        load_pool(DataConfig(noisy=str(tmp_path / "n.csv"), trusted=str(tmp_path / "t.csv")), 0)


# --- some of the noisy rows -------------------------------------------------------------------------------------------


def test_some_noisy_rows_are_kept_and_all_trusted_ones():
    options = {"noise": "flip:0.4", "n_trusted": 100, "seed": 3}
    whole, some, fewer = (load({"noisy": "digits"}, n_noisy=n, **options) for n in (None, 300, 200))
    assert [len(pool.split.noisy) for pool in (whole, some, fewer)] == [1247, 300, 200]
    assert set(fewer.ids) < set(some.ids) < set(whole.ids)
    rows = np.array([list(whole.ids).index(row) for row in some.ids])
    assert (np.diff(rows) > 0).all(), "rows keep their order"
    for column in ("given", "right", "truth", "provenance"):
        np.testing.assert_array_equal(getattr(some, column), getattr(whole, column)[rows])
    np.testing.assert_array_equal(some.inputs.numbers(), whole.inputs.numbers()[rows])
    np.testing.assert_array_equal(some.ids[some.checked], whole.ids[whole.checked])


def test_another_seed_keeps_other_rows(files):
    rows = "".join(f"n{k},{k},{'pq'[k % 2]}\n" for k in range(40))
    paths = files(noisy="id,x,label\n" + rows, trusted="id,x,label\nt1,1,p\nt2,2,p\nt3,3,q\n")
    kept = [set(load(paths, seed, n_noisy=10).ids) for seed in (0, 1)]
    assert kept[0] != kept[1]
    assert all({"t1", "t2", "t3"} < ids and len(ids) == 13 for ids in kept)


def test_no_more_noisy_rows_than_there_are(files):
    assert "--n-noisy is 6, but there are only 5 noisy rows" in refusal(files(), n_noisy=6)
    assert "--n-noisy is 1" in refusal(files(), n_noisy=1)
