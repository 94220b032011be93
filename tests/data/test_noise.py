import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ebomlc.data import noise
from ebomlc.data.noise import NOISE_KINDS, NoiseSpec, apply_noise, instance_flips, parse_noise, transition_matrix
from ebomlc.data.official import CIFAR10_CLASSES
from ebomlc.errors import InputError

MATRIX_KINDS = [kind for kind in NOISE_KINDS if kind not in ("instance", "human")]
RATES = st.floats(0, 1)


def labels_of(n_classes, per_class):
    return np.arange(n_classes * per_class) % n_classes


def superclass_of(n_classes):
    """Three classes a superclass, spread out by index so that the next sibling is not the next class."""
    return np.arange(n_classes) % max(1, n_classes // 3)


def matrix_of(text, n_classes=10, seed=0, **classes):
    matrix = transition_matrix(parse_noise(text), n_classes, seed, **classes)
    assert matrix is not None
    return matrix


def noise_of(text, labels, n_classes=10, seed=0, **given_):
    return apply_noise(labels, parse_noise(text), n_classes, seed, **given_)


# --- specifications ---------------------------------------------------------------------------------------------------


@settings(max_examples=50, deadline=None)
@given(kind=st.sampled_from([k for k in NOISE_KINDS if k != "human"]), rate=RATES)
def test_specification_survives_text(kind, rate):
    spec = NoiseSpec(kind, rate)
    assert parse_noise(str(spec)) == spec


@pytest.mark.parametrize("text", ["flip:0.4", "uniform:0", "pair:1", "human:worse", "instance:0.25"])
def test_specification_prints_as_written(text):
    assert str(parse_noise(text)) == text


def test_numpy_rate_prints_as_a_plain_number():
    assert str(NoiseSpec("flip", np.float64(0.4))) == "flip:0.4"


def test_specification_takes_blanks():
    assert parse_noise(" flip : 0.4 ") == NoiseSpec("flip", 0.4)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("flop:0.4", ["'flop'", "did you mean 'flip'", "uniform"]),
        ("", ["unknown noise model"]),
        ("flip", ["rate is missing", "flip:0.4"]),
        ("flip:", ["rate is missing", "flip:0.4"]),
        ("pair:lots", ["'lots' is not a number", "pair:0.4"]),
        ("pair:0.4:2", ["not a number"]),
        ("uniform:1.5", ["from 0 to 1", "1.5", "uniform:0.4"]),
        ("uniform:-0.1", ["from 0 to 1"]),
        ("uniform:nan", ["from 0 to 1"]),
        ("human:", ["human:worse"]),
        ("human", ["human:worse"]),
    ],
)
def test_bad_specification_names_the_repair(text, words):
    with pytest.raises(InputError) as caught:
        parse_noise(text)
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize("fields", [("human", 0.4, "worse"), ("flip", 0.4, "worse"), ("flip", None, None)])
def test_specification_built_by_hand_is_checked_too(fields):
    with pytest.raises(InputError):
        NoiseSpec(*fields)


# --- transition matrices ----------------------------------------------------------------------------------------------


@settings(max_examples=50, deadline=None)
@given(kind=st.sampled_from(MATRIX_KINDS), rate=RATES, n_classes=st.integers(2, 12), seed=st.integers(0, 99))
def test_rows_are_distributions(kind, rate, n_classes, seed):
    matrix = transition_matrix(NoiseSpec(kind, rate), n_classes, seed, superclass=superclass_of(n_classes))
    assert matrix is not None
    assert matrix.shape == (n_classes, n_classes)
    assert (matrix >= 0).all()
    np.testing.assert_allclose(matrix.sum(axis=1), 1, atol=1e-12)


def test_uniform_redraws_over_all_classes():
    matrix = matrix_of("uniform:0.8")
    np.testing.assert_allclose(np.diag(matrix), 0.2 + 0.08)
    np.testing.assert_allclose(matrix[~np.eye(10, dtype=bool)], 0.08)


def test_symmetric_draws_another_class():
    matrix = matrix_of("symmetric:0.9")
    np.testing.assert_allclose(np.diag(matrix), 0.1)
    np.testing.assert_allclose(matrix[~np.eye(10, dtype=bool)], 0.1)


@settings(max_examples=50, deadline=None)
@given(n_classes=st.integers(2, 30), seed=st.integers(0, 999))
def test_flip_has_one_other_target_a_class(n_classes, seed):
    away = matrix_of("flip:0.4", n_classes, seed) - 0.6 * np.eye(n_classes)
    assert (np.count_nonzero(away > 1e-9, axis=1) == 1).all()
    np.testing.assert_allclose(away.max(axis=1), 0.4)
    np.testing.assert_allclose(np.diag(away), 0, atol=1e-12)


def test_every_other_class_can_be_a_flip_target():
    targets = {int(matrix_of("flip:1", 4, seed)[2].argmax()) for seed in range(50)}
    assert targets == {0, 1, 3}


def test_flip_targets_come_from_the_seed_alone():
    assert np.array_equal(matrix_of("flip:0.1", seed=3) > 0, matrix_of("flip:0.4", seed=3) > 0)
    assert not np.array_equal(matrix_of("flip:0.4", seed=3), matrix_of("flip:0.4", seed=4))


def test_pair_goes_to_the_next_class():
    np.testing.assert_allclose(matrix_of("pair:0.3", 3), [[0.7, 0.3, 0], [0, 0.7, 0.3], [0.3, 0, 0.7]])


@pytest.mark.parametrize("names", [CIFAR10_CLASSES, CIFAR10_CLASSES[::-1]])
def test_asymmetric_confuses_the_look_alikes_of_cifar10(names):
    matrix = matrix_of("asymmetric:0.4", class_names=names)
    pairs = {(names[i], names[j]) for i, j in np.argwhere(matrix > 0) if i != j}
    assert pairs == {
        ("truck", "automobile"),
        ("bird", "airplane"),
        ("deer", "horse"),
        ("cat", "dog"),
        ("dog", "cat"),
    }
    for wrong, right in pairs:
        assert matrix[names.index(wrong), names.index(right)] == pytest.approx(0.4)
    assert matrix[names.index("ship"), names.index("ship")] == 1


def test_asymmetric_goes_round_inside_the_superclass():
    matrix = matrix_of("asymmetric:1", 6, superclass=np.array([7, 2, 7, 2, 7, 5]))
    assert matrix.argmax(axis=1).tolist() == [2, 3, 4, 1, 0, 5]


def test_hierarchical_stays_inside_the_superclass():
    superclass = np.array([0, 1, 0, 1, 0, 2])
    expected = np.eye(6) * 0.4
    expected[[0, 0, 2, 2, 4, 4], [2, 4, 0, 4, 0, 2]] = 0.3
    expected[[1, 3], [3, 1]] = 0.6
    expected[5, 5] = 1  # alone in its superclass
    np.testing.assert_allclose(matrix_of("hierarchical:0.6", 6, superclass=superclass), expected, atol=1e-12)


@pytest.mark.parametrize("spec", [NoiseSpec("instance", 0.4), NoiseSpec("human", None, "worse")])
def test_no_matrix_where_none_exists(spec):
    assert transition_matrix(spec, 10, 0) is None


# --- noisy labels -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", MATRIX_KINDS)
def test_frequencies_follow_the_matrix(kind):
    labels = labels_of(6, 20_000)
    noisy = noise_of(f"{kind}:0.4", labels, 6, seed=5, superclass=superclass_of(6))
    assert noisy.transition is not None
    assert np.array_equal(noisy.transition, matrix_of(f"{kind}:0.4", 6, 5, superclass=superclass_of(6)))
    counts = np.zeros((6, 6))
    np.add.at(counts, (labels, noisy.labels), 1)
    np.testing.assert_allclose(counts / 20_000, noisy.transition, atol=0.018)  # 5 standard errors
    assert not counts[noisy.transition == 0].any()


@pytest.mark.parametrize(
    ("text", "rate"), [("uniform:0.8", 0.72), ("symmetric:0.4", 0.4), ("flip:0.35", 0.35), ("pair:0.2", 0.2)]
)
def test_measured_rate(text, rate):
    labels = labels_of(10, 10_000)
    noisy = noise_of(text, labels)
    assert noisy.measured_rate == np.mean(noisy.labels != labels)
    assert noisy.measured_rate == pytest.approx(rate, abs=0.008)
    assert noisy.spec == text
    assert noisy.labels.dtype == np.int64


@settings(max_examples=50, deadline=None)
@given(kind=st.sampled_from([*MATRIX_KINDS, "instance"]), n_classes=st.integers(2, 8), seed=st.integers(0, 99))
def test_rate_zero_changes_nothing(kind, n_classes, seed):
    labels = labels_of(n_classes, 20)
    noisy = noise_of(
        f"{kind}:0",
        labels,
        n_classes,
        seed,
        inputs=np.random.default_rng(0).random((len(labels), 3)),
        superclass=superclass_of(n_classes),
    )
    assert np.array_equal(noisy.labels, labels)
    assert noisy.measured_rate == 0


@pytest.mark.parametrize("kind", ["symmetric", "flip", "pair"])
def test_rate_one_changes_everything(kind):
    labels = labels_of(5, 1000)
    assert (noise_of(f"{kind}:1", labels, 5).labels != labels).all()


@pytest.mark.parametrize("kind", [*MATRIX_KINDS, "instance"])
def test_the_seed_decides(kind):
    labels = labels_of(6, 100)
    known = {"inputs": np.random.default_rng(0).random((600, 4)), "superclass": superclass_of(6)}
    first, again, other = (noise_of(f"{kind}:0.4", labels, 6, seed, **known).labels for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_given_labels_stay_as_they_are():
    labels = labels_of(4, 50)
    noise_of("flip:1", labels, 4)
    assert np.array_equal(labels, labels_of(4, 50))


def test_part_of_the_rows_has_the_noise_of_all():
    labels = labels_of(10, 200)
    everything = noise_of("flip:0.5", labels, seed=7)
    part = noise_of("flip:0.5", labels[:500], seed=7)
    assert np.array_equal(part.labels, everything.labels[:500])
    assert np.array_equal(part.transition, everything.transition)


def test_rows_have_a_generator_of_their_own():
    structure, rows = noise._generators(0)
    drawn = rows.random(100)
    assert np.array_equal(noise_of("pair:0.5", labels_of(2, 50), 2).labels, drawn >= 0.5)
    assert not np.isin(drawn, [structure.random(100), np.random.default_rng(0).random(100)]).any()


@pytest.mark.parametrize("drawn", [0, 1 - 2**-53])
def test_the_ends_of_the_unit_interval_draw_no_impossible_class(drawn):
    class Ends:
        def random(self, size):
            return np.full(size, drawn)

    matrix = np.tile([0, *[0.1] * 10, 0], (12, 1))  # ten times 0.1 is less than 1 in floating point
    assert np.add.accumulate(matrix[0])[-1] < 1
    assert noise._draw_by_class(np.arange(12), matrix, Ends()).tolist() == [10 if drawn else 1] * 12


def test_no_rows_no_noise():
    noisy = noise_of("flip:0.4", np.array([], dtype=np.int64))
    assert len(noisy.labels) == 0
    assert noisy.measured_rate == 0


# --- instance noise ---------------------------------------------------------------------------------------------------


def blobs(n=3000, n_classes=5, features=12, seed=0):
    return labels_of(n_classes, n // n_classes), np.random.default_rng(seed).normal(3, 2, (n, features))


@settings(max_examples=50, deadline=None)
@given(n_classes=st.integers(2, 6), seed=st.integers(0, 99))
def test_instance_flips_leave_the_true_class_out(n_classes, seed):
    labels = labels_of(n_classes, 10)
    flips = instance_flips(labels, np.random.default_rng(seed).random((len(labels), 4)), n_classes, seed)
    assert (flips[np.arange(len(labels)), labels] == 0).all()
    np.testing.assert_allclose(flips.sum(axis=1), 1)


def test_instance_flips_are_a_softmax_of_one_projection_a_true_class():
    # With a common projection W per class, log-odds of the flips are linear in the standardised input.
    labels, inputs = blobs()
    flips = instance_flips(labels, inputs, 5, seed=0)
    standard = (inputs - inputs.mean(axis=0)) / inputs.std(axis=0)
    weights = []
    for true, (one, two) in enumerate([(1, 2), (0, 2), (0, 1), (0, 1), (0, 1)]):
        rows = (labels == true) & (flips[:, one] > 1e-30) & (flips[:, two] > 1e-30)
        odds = np.log(flips[rows, one] / flips[rows, two])
        fitted = np.linalg.lstsq(standard[rows], odds, rcond=None)[0]
        np.testing.assert_allclose(standard[rows] @ fitted, odds, atol=1e-3)
        weights.append(fitted)
    assert not np.allclose(weights[3], weights[4], atol=0.1)  # the same two columns of two classes' projections
    assert np.std(weights) == pytest.approx(2**0.5, rel=0.3)  # difference of two standard normal entries


@pytest.mark.parametrize("rate", [0.2, 0.4, 0.5])
def test_instance_rate_is_met_on_average(rate):
    labels, inputs = blobs(30_000)
    noisy = noise_of(f"instance:{rate}", labels, 5, inputs=inputs)
    truncation = 0.0056 if rate == 0.2 else 0  # the mean of normal(0.2, 0.1) truncated to [0, 1] is 0.2056
    assert noisy.measured_rate == pytest.approx(rate + truncation, abs=0.012)
    assert noisy.transition is None


def test_instance_targets_are_drawn_from_the_flips():
    labels, inputs = blobs(3000)
    flips = instance_flips(labels, inputs, 5, seed=4)
    noisy = noise_of("instance:0.9", labels, 5, seed=4, inputs=inputs).labels
    wrong = noisy != labels
    agreement = np.mean(noisy[wrong] == flips.argmax(axis=1)[wrong])
    assert agreement == pytest.approx(flips.max(axis=1)[wrong].mean(), abs=0.04)
    assert agreement > 0.6


def test_instance_rates_differ_between_rows():
    # Rates spread by 0.1 leave the mean of wrong labels alone, but near rate 1 truncation pulls it down: 1 - 0.08.
    labels, inputs = blobs(30_000)
    assert noise_of("instance:1", labels, 5, inputs=inputs).measured_rate == pytest.approx(1 - 0.0798, abs=0.01)


def test_instance_noise_depends_on_the_inputs():
    labels, inputs = blobs()
    here = noise_of("instance:0.5", labels, 5, inputs=inputs).labels
    there = noise_of("instance:0.5", labels, 5, inputs=inputs[::-1]).labels
    assert not np.array_equal(here, there)


def test_instance_noise_ignores_scale_shift_and_constant_features():
    labels, inputs = blobs()
    inputs[:, 3] = 0.1
    moved = inputs * 7 - 2
    moved[:, 3] = 12345.678
    flips = instance_flips(labels, inputs, 5, seed=0)
    np.testing.assert_allclose(instance_flips(labels, moved, 5, seed=0), flips, atol=1e-3)


def test_instance_noise_does_not_depend_on_the_chunks():
    labels, inputs = blobs(500)
    whole, chunked = (instance_flips(labels, inputs, 5, seed=0, chunk_rows=size) for size in (10**6, 7))
    np.testing.assert_allclose(whole, chunked, atol=1e-4)


def test_instance_noise_flattens_images():
    labels = labels_of(3, 40)
    images = np.random.default_rng(0).integers(0, 256, (120, 3, 4, 4), dtype=np.uint8)
    flips = instance_flips(labels, images, 3, seed=0)
    np.testing.assert_allclose(
        flips, instance_flips(labels, images.reshape(120, 48).astype(float), 3, seed=0), atol=1e-4
    )


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        (None, "pass inputs"),
        (np.array(["a", "b", "c", "d"]), "encode text"),
        (np.zeros((3, 2)), "3 inputs for 4 labels"),
        (np.array([[0.0], [1.0], [np.nan], [np.inf]]), "row 2"),
    ],
)
def test_instance_noise_says_what_inputs_it_needs(inputs, words):
    with pytest.raises(InputError, match=words):
        noise_of("instance:0.4", np.array([0, 1, 0, 1]), 2, inputs=inputs)


# --- human labels -----------------------------------------------------------------------------------------------------


def test_human_labels_are_taken_as_they_are():
    labels, people = (
        np.array([0, 1, 2, 2]),
        {"worse": np.array([0, 2, 2, 1], np.uint8), "aggre": np.array([0, 1, 2, 1])},
    )
    noisy = noise_of("human:worse", labels, 3, human=people)
    assert noisy.labels.tolist() == [0, 2, 2, 1]
    assert noisy.labels.dtype == np.int64
    assert noisy.measured_rate == 0.5
    assert noisy.transition is None
    noisy.labels[:] = 0
    assert people["worse"].tolist() == [0, 2, 2, 1]


@pytest.mark.parametrize(
    ("human", "words"),
    [
        (None, "CIFAR-10_human.npz"),
        ({}, "CIFAR-10_human.npz"),
        ({"worst": np.zeros(4, int)}, "did you mean 'worst'"),
        ({"worse": np.zeros(3, int)}, "3 rows and the labels 4"),
        ({"worse": np.array([0, 1, 9, 0])}, "row 2 has class 9"),
    ],
)
def test_human_labels_that_do_not_fit(human, words):
    with pytest.raises(InputError, match=words):
        noise_of("human:worse", np.array([0, 1, 0, 1]), 2, human=human)


# --- what cannot be used ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (np.array([0, 1, 3, -1]), "row 2 has class 3.*2 such rows"),
        (np.array([0.0, 1.0]), "class names into indices"),
        (np.array(["cat", "dog"]), "class names into indices"),
        (np.zeros((2, 2), int), "shape"),
    ],
)
def test_bad_labels(labels, words):
    with pytest.raises(InputError, match=words):
        noise_of("flip:0.4", labels, 3)


@pytest.mark.parametrize(
    ("text", "known", "words"),
    [
        ("asymmetric:0.4", {}, "10 classes without names"),
        ("asymmetric:0.4", {"class_names": list("abcdefghij")}, "a, b, c, d, ...: use pair"),
        ("asymmetric:0.4", {"superclass": np.zeros(3)}, "10 classes"),
        ("hierarchical:0.4", {}, "needs superclasses"),
        ("hierarchical:0.4", {"superclass": np.zeros((10, 1))}, "one id per class"),
    ],
)
def test_noise_that_does_not_fit_the_classes(text, known, words):
    with pytest.raises(InputError, match=words):
        matrix_of(text, **known)


def test_one_class_cannot_be_noisy():
    with pytest.raises(InputError, match="two classes"):
        noise_of("flip:0.4", np.zeros(3, int), 1)


def test_negative_seed():
    with pytest.raises(InputError, match="noise seed is -1"):
        noise_of("flip:0.4", np.zeros(3, int), 2, seed=-1)
