"""What people decided in one run is trusted in the next one."""

import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_breast_cancer

from ebomlc import fit
from ebomlc.config import DataConfig, MethodConfig, RunConfig
from ebomlc.data.pool import load_pool
from ebomlc.errors import DataWarning, InputError
from ebomlc.labels.trust import estimate_noise
from ebomlc.preparation import Given, prepare
from ebomlc.records import NO_LABEL
from ebomlc.reviewed import DECISIONS, load_reviewed, open_decisions, read_labels, reviewed_rows

N, N_TRUSTED = 200, 30
QUICK = {"method": "trusted-only", "epochs": 1}


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    """Breast cancer, every fourth label of the noisy rows wrong; the first rows are checked."""
    folder = tmp_path_factory.mktemp("sets")
    data = load_breast_cancer(as_frame=True)
    right = data.target.map({0: "malignant", 1: "benign"})[:N]
    wrong = right.map({"malignant": "benign", "benign": "malignant"})
    frame = data.data.iloc[:N, :5].assign(id=[f"p/{k}" for k in range(N)])
    given = right.where(frame.index % 4 != 0, wrong)
    frame.assign(label=given).to_csv(folder / "noisy.csv", index=False)
    checked = pd.DataFrame({"id": frame["id"], "label": right, "given_label": given})[:N_TRUSTED]
    checked.assign(provenance="random").to_csv(folder / "trusted.csv", index=False)
    frame.drop(columns="id").assign(label=given, checked_label=right.where(frame.index < N_TRUSTED)).to_csv(
        folder / "numbered.csv", index=False
    )
    return folder, dict(zip(frame["id"], right, strict=True))


def make_run(folder, out, **more):
    sources = {"noisy": folder / "noisy.csv", "trusted": folder / "trusted.csv", **more}
    fit(**sources, **QUICK, out=out)
    return out


@pytest.fixture
def run(sets, tmp_path):
    return make_run(sets[0], tmp_path / "run")


def decide(run, truth, n_random=6, n_suspect=4, *, wrong=()):
    """Decide with the right labels, but for some rows, and skip one; returns the ids by mode."""
    _, names = read_labels(run)
    other = dict(zip(names, reversed(names), strict=True))
    with open_decisions(run) as store:
        order = store.random_order()
        ids = {"random": order[:n_random], "suspect": order[n_random : n_random + n_suspect]}
        for mode, some in ids.items():
            for row in some:
                label = other[truth[row]] if row in wrong else truth[row]
                store.record(row, "other", label=label, mode=mode, reviewer="ana")
        store.record(order[-1], "skip", mode="random", reviewer="ana")
    return ids


def pool_of(folder, run, **more):
    config = DataConfig(
        noisy=str(folder / "noisy.csv"), trusted=str(folder / "trusted.csv"), add_reviewed=(str(run),), **more
    )
    return load_pool(config, 0, objects=load_reviewed(config.add_reviewed))


def test_a_run_is_opened_with_its_own_rows_and_classes(run):
    labels, names = read_labels(run)
    assert names == ("benign", "malignant")
    assert labels.given_label[0] in names
    with open_decisions(run) as store:
        assert len(store.random_order()) == N - N_TRUSTED
    assert (run / DECISIONS).exists()


def test_decided_rows_join_with_given_label_and_provenance(sets, run):
    folder, truth = sets
    ids = decide(run, truth)
    pool = pool_of(folder, run)
    row = {name: k for k, name in enumerate(pool.ids)}
    index = {name: k for k, name in enumerate(pool.class_names)}
    given = pd.read_csv(folder / "noisy.csv").set_index("id")["label"]
    for mode, some in ids.items():
        for name in some:
            assert pool.right[row[name]] == index[truth[name]]
            assert pool.given[row[name]] == index[given[name]]
            assert pool.provenance[row[name]] == mode
    assert len(pool.checked) == N_TRUSTED + 10


def test_only_rows_shown_at_random_count_for_the_noise_rate(sets, run):
    folder, truth = sets
    decide(run, truth, n_random=40, n_suspect=30)
    pool = pool_of(folder, run)
    found = estimate_noise(pool.given, pool.right, pool.provenance, pool.weights, pool.stratum_sizes)
    assert found.is_random
    assert found.n == N_TRUSTED + 40


def test_methods_do_not_take_suspects_for_the_rule(sets, run, tmp_path):
    """Of 200 suspects all were wrong: shown as pairs they say that every label is."""
    folder, truth = sets
    ids = decide(run, truth)
    data = {"noisy": str(folder / "noisy.csv"), "trusted": str(folder / "trusted.csv"), "add_reviewed": (str(run),)}
    job = prepare(RunConfig(DataConfig(**data), method=MethodConfig("glc")), Given(), None)
    batch = job.loader.trusted[slice(None)]
    shown = dict(zip(job.pool.ids[job.pool.split.trusted], batch.given.tolist(), strict=True))
    assert {shown[row] for row in ids["suspect"] if row in shown} == {NO_LABEL}
    assert NO_LABEL not in {shown[row] for row in ids["random"] if row in shown}
    assert len(set(ids["suspect"]) & set(shown)) >= 3
    assert (job.pool.given != NO_LABEL).all()


def test_decisions_alone_are_trusted_rows_enough(sets, run, tmp_path):
    folder, truth = sets
    decide(run, truth, n_random=20)
    second = fit(folder / "noisy.csv", add_reviewed=run, **QUICK, out=tmp_path / "second")
    assert second.summary["n_trusted"] == 24
    assert second.labels.is_trusted.sum() == 24
    repeated = fit(config=tmp_path / "second" / "config.toml", out=tmp_path / "third")
    assert repeated.summary["split_sha256"] == second.summary["split_sha256"]


def test_two_runs_agree_or_it_is_said(sets, run, tmp_path):
    folder, truth = sets
    other = make_run(folder, tmp_path / "other")
    ids = decide(run, truth)
    decide(other, truth)
    config = {"noisy": str(folder / "noisy.csv"), "add_reviewed": (str(run), str(other))}
    pool = load_pool(DataConfig(**config), 0, objects=load_reviewed(config["add_reviewed"]))
    assert len(pool.checked) == 10
    decide(other, truth, wrong=ids["random"][:2])
    with pytest.raises(InputError, match=r"people decided that id .* but its trusted label is .*\(2 such rows\)"):
        load_pool(DataConfig(**config), 0, objects=load_reviewed(config["add_reviewed"]))


def test_a_trusted_row_that_contradicts_is_said(sets, run, tmp_path):
    folder, truth = sets
    ids = decide(run, truth)
    trusted = pd.read_csv(folder / "trusted.csv")
    name = ids["suspect"][0]
    flipped = {"malignant": "benign", "benign": "malignant"}[truth[name]]
    more = pd.concat([trusted, pd.DataFrame({"id": [name], "label": [flipped]})])
    more.to_csv(tmp_path / "more.csv", index=False)
    with pytest.raises(InputError, match=f"id '{name}' is '{truth[name]}', but its trusted label is '{flipped}'"):
        fit(folder / "noisy.csv", trusted=tmp_path / "more.csv", add_reviewed=run, **QUICK, out=tmp_path / "second")
    assert not (tmp_path / "second").exists()


def test_a_random_draw_stays_one_when_somebody_looks_again(sets, run, tmp_path):
    folder, truth = sets
    ids = decide(run, truth)
    names = [ids["suspect"][0], ids["random"][0]]
    checked = pd.DataFrame({"id": names, "label": [truth[name] for name in names], "provenance": ["random", "suspect"]})
    pd.concat([pd.read_csv(folder / "trusted.csv"), checked]).to_csv(tmp_path / "more.csv", index=False)
    config = DataConfig(noisy=str(folder / "noisy.csv"), trusted=str(tmp_path / "more.csv"), add_reviewed=(str(run),))
    pool = load_pool(config, 0, objects=load_reviewed(config.add_reviewed))
    assert set(pool.provenance[np.isin(pool.ids.astype(str), names)]) == {"random"}


def test_a_run_on_another_set_is_refused(sets, run, tmp_path):
    folder, truth = sets
    ids = decide(run, truth)
    fewer = pd.read_csv(folder / "noisy.csv")
    fewer[fewer["id"] != ids["random"][0]].to_csv(tmp_path / "fewer.csv", index=False)
    with pytest.raises(InputError, match=r"1 of its 10 decided rows are not in .*takes runs on the same set"):
        fit(tmp_path / "fewer.csv", add_reviewed=run, **QUICK, out=tmp_path / "second")


def test_a_given_label_that_was_changed_since_is_warned_of(sets, run, tmp_path):
    folder, truth = sets
    ids = decide(run, truth, n_random=20)
    mended = pd.read_csv(folder / "noisy.csv").set_index("id")
    mended.loc[ids["random"], "label"] = [truth[name] for name in ids["random"]]
    mended.reset_index().to_csv(tmp_path / "mended.csv", index=False)
    config = DataConfig(noisy=str(tmp_path / "mended.csv"), add_reviewed=(str(run),))
    with pytest.warns(DataWarning, match="have another given label now"):
        pool = load_pool(config, 0, objects=load_reviewed(config.add_reviewed))
    rows = np.isin(pool.ids.astype(str), ids["random"])
    assert (pool.given[rows] == pool.right[rows]).all()


def test_rows_without_ids_go_by_their_numbers_as_long_as_the_file_is_the_same(sets, tmp_path):
    folder, _ = sets
    run = tmp_path / "run"
    fit(folder / "numbered.csv", checked="checked_label", **QUICK, out=run)
    labels, _ = read_labels(run)
    with open_decisions(run) as store:
        for name in store.random_order()[:8]:
            given = labels.given_label[list(labels.id).index(name)]
            store.record(name, "keep", label=given, mode="random", reviewer="ana")
    again = fit(folder / "numbered.csv", checked="checked_label", add_reviewed=[run], **QUICK, out=tmp_path / "second")
    assert again.summary["n_trusted"] == N_TRUSTED + 8
    pd.read_csv(folder / "numbered.csv")[::-1].to_csv(tmp_path / "turned.csv", index=False)
    with pytest.raises(InputError, match="is another one in"):
        fit(tmp_path / "turned.csv", checked="checked_label", add_reviewed=run, **QUICK, out=tmp_path / "third")


def test_a_run_without_decisions_or_no_run_is_refused(run, tmp_path):
    with pytest.raises(InputError, match="nobody has decided on a row of this run yet"):
        reviewed_rows(run)
    assert not (run / DECISIONS).exists()
    with pytest.raises(InputError, match="not a run folder"):
        load_reviewed([str(tmp_path / "nothing")])


def test_a_damaged_run_is_said(run):
    (run / "labels.parquet").write_bytes(b"PAR1")
    with pytest.raises(InputError, match="another version"):
        open_decisions(run)
    pd.DataFrame({"id": ["a"]}).to_parquet(run / "labels.parquet")
    with pytest.raises(InputError, match="given_label"):
        open_decisions(run)


def test_a_new_run_in_the_folder_keeps_the_decisions(sets, run):
    folder, truth = sets
    ids = decide(run, truth)
    fit(folder / "noisy.csv", trusted=folder / "trusted.csv", **QUICK, seed=1, out=run, overwrite=True)
    with open_decisions(run) as store:
        assert set(store.latest()) > set(ids["random"])
