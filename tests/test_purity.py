"""Purity: recovered from generated mixtures and on real tumours, and PUREE's service played by a loopback server."""

from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from puree_server import Puree

from lib import purity
from lib.purity import PurityEstimator, from_column, from_puree, rank_percentiles
from lib.synthetic import SIZES, Demo

SHARED = Path(__file__).parents[1].parent / "shared"


def table(X, purities, **columns) -> ad.AnnData:
    names = [f"patient {i}" for i in range(len(X))]
    obs = pd.DataFrame({"sample_type": "tumour", "cancer_type": "lung", "purity": purities} | columns, index=names)
    return ad.AnnData(np.asarray(X, np.float32), obs, pd.DataFrame(index=[f"GENE{j}" for j in range(X.shape[1])]))


@pytest.fixture(scope="module")
def mixtures() -> ad.AnnData:
    """120 tumours of two types, two samples a donor, 80 genes: tumour and stroma mixed on the linear scale."""
    rng = np.random.default_rng(0)
    kind, share = np.arange(120) % 2, rng.uniform(0.2, 1, 120)
    programme, stroma = rng.lognormal(3, 1, (2, 80)), rng.lognormal(3, 1, 80)
    linear = share[:, None] * programme[kind] + (1 - share)[:, None] * stroma
    X = np.log2(linear * rng.lognormal(0, 0.2, linear.shape) + 1)
    donors = [f"D{i // 2}" for i in range(120)]
    return table(X, share, donor=donors, cancer_type=np.array(["lung", "skin"])[kind])


@pytest.fixture(scope="module")
def demo() -> ad.AnnData:
    """What the generator's Treehouse and DepMap measure; purity is the truth."""
    drawn = Demo(SIZES["smoke"], seed=1)
    patients = drawn.patients[drawn.patients["in_treehouse"]]
    obs = pd.concat([patients.assign(sample_type="tumour"), drawn.lines.assign(sample_type="cell line", purity=1.0)])
    obs = obs[["sample_type", "cancer_type", "purity"]]
    return ad.AnnData(np.log2(np.vstack(drawn.measured_alignment()) + 1), obs)


def test_column(mixtures):
    some = mixtures[:4].copy()
    some.obs["sample_type"] = ["tumour", "tumour", "cell line", "tumour"]
    some.obs["ABSOLUTE"] = ["0.4", "", "", 1]
    np.testing.assert_array_equal(from_column(some, "ABSOLUTE"), [0.4, np.nan, 1, 1])
    with pytest.raises(ValueError, match="no column 'puree'"):
        from_column(some, "puree")
    some.obs["note"], some.obs["percent"] = ["high", 1, 1, 1], 40.0
    with pytest.raises(ValueError, match="found 'high', expected numbers"):
        from_column(some, "note")
    with pytest.raises(ValueError, match="found 40 for patient 0, expected fractions"):
        from_column(some, "percent")


def test_rank_percentiles():
    ranks = rank_percentiles(np.array([[5.0, 0, 0, 9], [1, 2, 3, 4]]))
    np.testing.assert_array_equal(ranks, [[0.75, 0.25, 0.25, 1], [0.25, 0.5, 0.75, 1]])
    X = np.random.default_rng(0).lognormal(size=(5, 30))
    np.testing.assert_array_equal(rank_percentiles(X), rank_percentiles(np.log2(7 * X + 1)))


def test_error_of_cross_validation_is_that_of_new_samples(mixtures):
    model = PurityEstimator().fit(mixtures[:80])
    ours, guess = model.cv_.loc["ridge on ranks"], model.cv_.loc["type median"]
    assert ours["n"] == 80 and ours["rmse_low"] < ours["rmse"] < ours["rmse_high"]
    assert ours["pearson_r"] > 0.9 and ours["rmse"] < 0.5 * guess["rmse"]
    error = model.predict(mixtures[80:]) - mixtures.obs["purity"][80:]
    assert np.sqrt((error**2).mean()) == pytest.approx(ours["rmse"], rel=0.5)
    kept = model.cv_predictions_
    assert ours["mae"] == pytest.approx((kept["predicted"] - kept["purity"]).abs().mean())
    assert ours["pearson_r"] == pytest.approx(np.corrcoef(kept["predicted"], kept["purity"])[0, 1])


def test_no_purity_is_learnt_from_noise():
    rng = np.random.default_rng(0)
    noise = table(rng.normal(size=(200, 50)), rng.uniform(0.2, 1, 200))
    assert abs(PurityEstimator().fit(noise).cv_.loc["ridge on ranks", "pearson_r"]) < 0.2


def test_groups_stay_in_one_fold(mixtures):
    """Donors' second samples are copies: seen in training they would be recalled."""
    rng = np.random.default_rng(0)
    X, share = rng.normal(size=(60, 200)), rng.uniform(0.2, 1, 60)
    twice = table(np.vstack([X, X]), np.r_[share, share], donor=[f"D{i % 60}" for i in range(120)])
    honest = PurityEstimator().fit(twice).cv_.loc["ridge on ranks", "pearson_r"]
    del twice.obs["donor"]
    leaking = PurityEstimator().fit(twice).cv_.loc["ridge on ranks", "pearson_r"]
    assert honest < 0.3 and leaking > 0.6
    unseen = PurityEstimator(folds=2).fit(mixtures, groups="cancer_type").cv_predictions_
    assert unseen.groupby(mixtures.obs["cancer_type"], observed=True)["type_median"].nunique().eq(1).all()


def test_predictions(mixtures):
    model = PurityEstimator().fit(mixtures)
    changed = mixtures[:6, ::-1].copy()
    changed.X = 2 ** (3 * changed.X)  # another unit, another order of genes
    np.testing.assert_allclose(model.predict(changed), model.predict(mixtures)[:6], atol=1e-6)
    changed.obs["sample_type"] = ["cell line"] * 2 + ["tumour"] * 4
    assert model.predict(changed)[:2].eq(1).all()
    extreme = changed.copy()
    extreme.X = np.where(model.coef_[::-1] > 0, 9.0, 1.0)[None].repeat(6, 0)
    assert model.predict(extreme).between(0, 1).all() and model.predict(extreme).iloc[-1] == 1


def test_imputed_purities_are_no_reference(mixtures):
    filled = mixtures.copy()
    filled.obs["purity_imputed"] = np.arange(120) < 60
    filled.obs.loc[filled.obs["purity_imputed"], "purity"] = 0.5
    model, expected = PurityEstimator().fit(filled), PurityEstimator().fit(mixtures[60:])
    np.testing.assert_array_equal(model.coef_, expected.coef_)
    assert model.cv_.loc["ridge on ranks", "n"] == 60


def test_recovers_the_generators_purity(demo):
    tumours = demo[demo.obs["sample_type"] == "tumour"]
    model = PurityEstimator().fit(demo[::2])
    assert model.cv_.loc["ridge on ranks", "rmse"] < 0.7 * model.cv_.loc["type median", "rmse"]
    predicted = model.predict(demo)[tumours.obs_names][1::2]
    assert np.corrcoef(predicted, tumours.obs["purity"][1::2])[0, 1] > 0.8
    assert model.predict(demo)[demo.obs["sample_type"] == "cell line"].eq(1).all()


@pytest.mark.parametrize("genes", [192, 474])
def test_real_tumours(genes):
    path = SHARED / "real" / f"alignment_{genes}genes.h5ad"
    if not path.is_file():
        pytest.skip(f"{path.name}: not there, real data are not part of the repository")
    errors = PurityEstimator().fit(ad.read_h5ad(path)).cv_
    assert errors.loc["ridge on ranks", "pearson_r"] > 0.85 and errors.loc["ridge on ranks", "rmse_high"] < 0.085
    assert errors.loc["ridge on ranks", "rmse_high"] < errors.loc["type median", "rmse_low"]


def test_save_load(mixtures, tmp_path):
    model = PurityEstimator(folds=4, seed=3).fit(mixtures)
    model.save(tmp_path / "purity.json")
    assert [p.name for p in tmp_path.iterdir()] == ["purity.json"]
    assert "patient" not in (tmp_path / "purity.json").read_text()
    again = PurityEstimator.load(tmp_path / "purity.json")
    np.testing.assert_array_equal(again.predict(mixtures), model.predict(mixtures))
    pd.testing.assert_frame_equal(again.cv_, model.cv_)
    assert again.get_params() == model.get_params() and again.alpha_ == model.alpha_
    with pytest.raises(FileNotFoundError, match="no such file"):
        PurityEstimator.load(tmp_path / "none.json")
    (tmp_path / "other.json").write_text('{"kind": "RNAlign"}')
    with pytest.raises(ValueError, match=r"other\.json: not a saved PurityEstimator"):
        PurityEstimator.load(tmp_path / "other.json")


def test_bad_input(mixtures):
    with pytest.raises(ValueError, match="found 9 tumours with a purity of their own, expected at least 10"):
        PurityEstimator().fit(mixtures[:9])
    with pytest.raises(ValueError, match="found 3 groups, expected at least 5"):
        PurityEstimator().fit(table(mixtures.X, mixtures.obs["purity"], donor=[f"D{i % 3}" for i in range(120)]))
    with pytest.raises(ValueError, match=r"found 0\.5 for all 20 tumours"):
        PurityEstimator().fit(table(mixtures.X[:20], 0.5))
    with pytest.raises(ValueError, match="groups: found 'study'"):
        PurityEstimator().fit(mixtures, groups="study")
    broken = mixtures.copy()
    broken.X[3, 3] = np.nan
    with pytest.raises(ValueError, match="found 1 NaN"):
        PurityEstimator().fit(broken)
    model = PurityEstimator().fit(mixtures)
    with pytest.raises(ValueError, match="2 of the model's 80 genes are missing"):
        model.predict(mixtures[:, 2:])
    scaled = mixtures.copy()
    scaled.uns["unit"] = "z-score"
    with pytest.raises(ValueError, match="found z-scores"):
        model.predict(scaled)


# --- PUREE ---------------------------------------------------------------------------------------------------


@pytest.fixture
def cohort() -> ad.AnnData:
    X = np.random.default_rng(0).uniform(1, 99, (7, 20)).round(2)
    return table(X, np.nan, sample_type=["tumour"] * 3 + ["cell line"] * 2 + ["tumour"] * 2)


def ask(cohort, server, **options):
    return from_puree(cohort, consent=True, url=server.url, **{"poll": 0.01, "wait": 5, "timeout": 5} | options)


def test_nothing_is_sent_without_consent(cohort):
    with Puree() as server:
        message = r"consent: found False; this would send .* 5 tumours × 20 genes .* to 127\.0\.0\.1; expected consent="
        with pytest.raises(ValueError, match=message):
            from_puree(cohort, url=server.url)
        with pytest.raises(ValueError, match=r"puree\.genome\.sg"):
            from_puree(cohort, consent="yes")
        assert server.requests == []


def test_puree(cohort, monkeypatch):
    monkeypatch.setattr(purity, "PUREE_BATCH", 3)
    with Puree(pending=2, busy=2) as server:
        result = ask(cohort, server)
    expected = np.where(cohort.obs["sample_type"] == "cell line", 1.0, cohort.X[:, 0] / 100)
    np.testing.assert_allclose(result, expected, rtol=1e-5)
    assert list(result.index) == list(cohort.obs_names)
    assert [method for method, _ in server.requests].count("POST") == 2
    assert all("patient" not in body and "lung" not in body for body in server.uploads)
    assert all("HGNC" in body and "PUREE_genes" in body and "GENE19" in body for body in server.uploads)


def test_only_lines_need_no_service(cohort):
    assert from_puree(cohort[3:5]).eq(1).all()


@pytest.mark.parametrize(
    ("behaviour", "error", "message"),
    [
        ({"accepts": False}, OSError, "upload not accepted, HTTP 200"),
        ({"state": "ERROR: no gene\nwas recognised"}, OSError, "job 1 failed: ERROR: no gene was recognised"),
        ({"pending": 10**6}, TimeoutError, "job 1 not ready in time, last answer .*File is not ready"),
        ({"answer": "<!doctype html><p>hello</p>"}, OSError, "found no table of 5 purities, HTTP 200: '<!doctype"),
        ({"answer": "\tpurity\nSample_1\t0.5\n"}, OSError, "found no table of 5 purities"),
        ({"redirect": "http://127.0.0.1:9/elsewhere"}, OSError, "redirects to .*/elsewhere; nothing was sent there"),
        ({"busy": 10**6}, OSError, "found no table of 5 purities, HTTP 503: 'busy'"),
    ],
)
def test_failures_of_the_service(cohort, behaviour, error, message):
    with Puree(**behaviour) as server, pytest.raises(error, match=r"^127\.0\.0\.1: " + message) as raised:
        ask(cohort, server, wait=0.2)
    assert "\n" not in str(raised.value)


def test_unreachable_service(cohort):
    server = Puree()
    server.server_close()
    with pytest.raises(OSError, match=r"^127\.0\.0\.1: could not be reached \(ConnectionError\)"):
        ask(cohort, server)
    with pytest.raises(ValueError, match="expected https://"):
        from_puree(cohort, consent=True, url="http://puree.example/server")
