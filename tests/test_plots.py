import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from lib import config, plots


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.setattr(config, "ROOT", tmp_path)
    loaded = config.load("smoke")
    plots.use_style(loaded)
    return loaded


def test_a_figure_is_saved_as_png_and_pdf_with_its_numbers_and_its_profile(run):
    fig, ax = plt.subplots()
    ax.plot([1, 2], [3, 4])
    plots.save(fig, "a-fig-test", data=pd.DataFrame({"x": [1, 2], "y": [3, 4]}))
    plt.close(fig)
    assert sorted(p.name for p in run.figures.glob("*.*")) == ["a-fig-test.pdf", "a-fig-test.png"]
    assert "seed 42" in Image.open(run.figures / "a-fig-test.png").text["Description"]
    assert (run.figures / "data" / "a-fig-test.csv").read_text() == "x,y\n1,3\n2,4\n"


def test_a_table_says_which_profile_made_it_and_never_nan(run):
    plots.save_table(pd.DataFrame({"type": ["a", "b"], "value": [1 / 3, np.nan]}), "a-table-test", "A test")
    csv = (run.figures / "tables" / "a-table-test.csv").read_text()
    assert csv.splitlines()[1:] == ["a,0.333333,smoke", "b,not estimable,smoke"]
    assert "not estimable" in (run.figures / "tables" / "a-table-test.md").read_text()


def test_a_failed_save_leaves_the_old_file(run):
    plots.save_data(pd.DataFrame({"x": [1]}), "kept")
    with pytest.raises(AttributeError):
        plots.save_data(None, "kept")
    assert (run.figures / "data" / "kept.csv").read_text() == "x\n1\n"


def test_a_cancer_type_has_one_colour_whichever_others_are_there():
    some, more = plots.cancer_type_colours(["Lung"]), plots.cancer_type_colours(["Lung", "Zebra"])
    assert some["Lung"] == more["Lung"]
    assert len(set(some.values())) == len(some)


def test_every_organ_system_and_source_has_its_own_colour():
    for palette in (plots.ORGAN_SYSTEMS, plots.SOURCES):
        assert len(set(palette.values())) == len(palette)
    own = plots.source_colours(["GTEx", "lab A", "lab B"])
    assert len(set(own.values())) == 3


def test_a_map_leaves_out_the_name_of_a_type_without_tumours():
    xy = np.random.default_rng(0).normal(size=(12, 2))
    kinds, types = ["tumour"] * 8 + ["cell line"] * 4, ["lung"] * 8 + ["eye"] * 4
    obs = pd.DataFrame({"sample_type": kinds, "cancer_type": types})
    fig, ax = plt.subplots()
    plots.alignment_map(ax, xy, obs, "cancer_type", {"eye": plots.GREY, "lung": plots.GREY}, ["lung", "eye"])
    assert [text.get_text() for text in ax.texts] == ["lung"]
    plt.close(fig)
