"""What git shows of the demo: its hygiene, on a small made-up notebook and on what is committed."""

import base64
import io
import subprocess
from collections import Counter

import nbformat.v4 as nb
import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from lib import config, notebooks, publish
from lib import run as run_all

CLAIM = """id,where,quantity,unit,published,measured,low,high,n,verdict,reason,made_by
a-one,Sec 1,q,–,–,1|2,–,–,–,nothing to compare,r,01_t [a-fig1]
"""


def png(side: int = 20, noise: bool = False) -> bytes:
    shade = np.random.default_rng(0).integers(0, 255, (side, side, 4)) if noise else np.full((side, side, 4), 255)
    shade[..., 3] = 255
    told, out = PngInfo(), io.BytesIO()
    told.add_itxt("Source", "profile made up")
    Image.fromarray(shade.astype(np.uint8)).save(out, "png", pnginfo=told, dpi=(200, 200))
    return out.getvalue()


def picture(data: bytes):
    return nb.new_output("display_data", {"image/png": base64.b64encode(data).decode(), "text/plain": "<Figure>"})


def pair(*outputs, count=3, ran='save("a-fig1")  # drawn'):
    """A notebook as its author wrote it, and its executed copy with these outputs of its last cell."""
    tags = {"tags": ["a-fig1"]}
    source = [
        nb.new_markdown_cell("# T"),
        nb.new_code_cell("seed = 1"),
        nb.new_code_cell('save("a-fig1")', metadata=tags),
    ]
    copy = [
        nb.new_markdown_cell("# T"),
        nb.new_code_cell("seed = 1", execution_count=1, metadata={"papermill": {"duration": 1}}),
        nb.new_code_cell("seed = 2", execution_count=2, metadata={"tags": ["injected-parameters"]}),
        nb.new_code_cell(ran, execution_count=count, outputs=list(outputs), metadata=tags),
    ]
    about = {"papermill": {"output_path": "/home/someone"}}
    return nb.new_notebook(cells=source), nb.new_notebook(cells=copy, metadata=about)


def test_outputs_come_with_counts_from_one_and_without_what_papermill_added():
    result = nb.new_output("execute_result", {"text/plain": "7"}, execution_count=3)
    shown = publish.clean(*pair(result, picture(png())))
    assert [c.get("execution_count") for c in shown.cells] == [None, 1, 2]
    assert shown.cells[2].outputs[0].execution_count == 2
    assert [o.output_type for o in shown.cells[2].outputs] == ["execute_result", "display_data"]
    assert "papermill" not in publish.nbformat.writes(shown)
    assert shown.cells[2].source == 'save("a-fig1")'


def test_no_stderr_no_progress_bar_no_widget_no_path():
    widget = {"application/vnd.jupyter.widget-view+json": {"model_id": "x"}, "text/plain": "HBox()"}
    said = f"epoch 1\repoch 2\n 50%|#####     | 5/10 [00:01<00:01]\nwrote {config.ROOT}/figures/x.png\n"
    outputs = [nb.new_output("stream", name="stderr", text="warning"), nb.new_output("display_data", widget)]
    shown = publish.clean(*pair(*outputs, nb.new_output("stream", name="stdout", text=said)))
    assert [o.text for o in shown.cells[2].outputs] == ["epoch 2\nwrote figures/x.png\n"]


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"ran": "other()"}, "executed copy of other code"),
        ({"count": None}, "cell 2 not run to its end"),
    ],
)
def test_a_copy_that_is_not_this_notebook_run_to_its_end_is_refused(changes, problem):
    with pytest.raises(ValueError, match=problem):
        publish.clean(*pair(**changes))


def test_a_path_of_another_machine_is_refused():
    with pytest.raises(ValueError, match="found '/home/s' in the output of cell 2"):
        publish.clean(*pair(nb.new_output("stream", name="stdout", text="see /home/someone/x")))


def test_a_small_picture_stays_as_it_is_and_a_large_one_keeps_its_text():
    small, large = png(), png(200, noise=True)
    assert publish.shrink(small, 10_000) == small
    shrunk = publish.shrink(large, 30_000)
    assert len(shrunk) <= 30_000 < len(large)
    assert Image.open(io.BytesIO(shrunk)).text["Source"] == "profile made up"
    assert shrunk == publish.shrink(large, 30_000)
    with pytest.raises(ValueError, match="expected at most 20"):
        publish.shrink(small, 20)


def test_few_colours_survive_shrinking_unchanged():
    bands = np.zeros((300, 300, 3), dtype=np.uint8)
    bands[:150], bands[150:] = (213, 94, 0), (0, 114, 178)
    out = io.BytesIO()
    Image.fromarray(bands).save(out, "png", compress_level=0)
    shrunk = Image.open(io.BytesIO(publish.shrink(out.getvalue(), 20_000))).convert("RGB")
    assert np.array_equal(np.asarray(shrunk), bands)


def test_a_notebook_of_many_pictures_stays_below_its_size():
    large = picture(png(250, noise=True))
    text = publish._with_small_pictures(publish.clean(*pair(*[large] * 4)))
    assert len(text.encode()) <= publish.NOTEBOOK_BYTES < 4 * len(large.data["image/png"])
    assert publish.nbformat.reads(text, as_version=4).cells[2].outputs


@pytest.fixture
def run(empty_repository):
    source, executed = pair(picture(png()))
    publish.nbformat.write(source, notebooks.FOLDER / "01_t.ipynb")
    loaded = config.load("demo")
    (loaded.figures / "notebooks").mkdir(parents=True)
    publish.nbformat.write(executed, notebooks.executed_path(loaded, "01_t"))
    (loaded.figures / "a-fig1.png").write_bytes(png(240, noise=True))
    (loaded.figures / "claims.csv").write_text(CLAIM)
    return loaded


def test_publishing_makes_nothing_out_of_date(run):
    path = run.figures / "a-fig1.png"
    code, before = notebooks.code_digest(notebooks.code("01_t")), path.stat().st_mtime_ns
    publish.publish(run)
    assert notebooks.read("01_t").cells[2].outputs
    assert path.stat().st_size <= publish.PICTURE_BYTES
    assert (notebooks.code_digest(notebooks.code("01_t")), path.stat().st_mtime_ns) == (code, before)
    shown = [(notebooks.FOLDER / "01_t.ipynb").read_bytes(), path.read_bytes()]
    publish.publish(run)
    assert shown == [(notebooks.FOLDER / "01_t.ipynb").read_bytes(), path.read_bytes()]


def test_the_index_has_every_picture_with_its_notebook_and_claims(run):
    publish.publish(run)
    text = (run.figures / "README.md").read_text()
    for words in ("### a-fig1", "(a-fig1.png)", "[01_t](../../notebooks/01_t.ipynb)", "| – | 1\\|2 | – |"):
        assert words in text


def test_nothing_is_written_where_something_is_missing(run):
    before = (notebooks.FOLDER / "01_t.ipynb").read_bytes()
    (run.figures / "a-fig1.png").unlink()
    with pytest.raises(ValueError, match="found no a-fig1 in profile demo"):
        publish.publish(run)
    assert (notebooks.FOLDER / "01_t.ipynb").read_bytes() == before
    assert not (run.figures / "README.md").exists()


def test_a_demo_that_is_out_of_date_is_not_published(run, monkeypatch):
    monkeypatch.setattr(run_all, "_plan", lambda *rest: (Counter({"01_t": 1}), []))
    with pytest.raises(run_all.RunError, match="found 01_t out of date, expected the whole demo built"):
        run_all.publish([])
    assert not notebooks.read("01_t").cells[2].outputs


def tracked(*patterns):
    listed = subprocess.run(["git", "ls-files", *patterns], cwd=config.ROOT, capture_output=True, text=True, check=True)
    return [config.ROOT / name for name in listed.stdout.splitlines()]


def test_what_is_committed_is_small():
    too_large = [p.name for p in tracked("figures/demo/*.png") if p.stat().st_size > publish.PICTURE_BYTES]
    too_large += [p.name for p in tracked("notebooks/*.ipynb") if p.stat().st_size > publish.NOTEBOOK_BYTES]
    assert too_large == []


def test_the_committed_index_links_to_files_that_are_committed():
    readme = config.ROOT / "figures" / "demo" / "README.md"
    if readme not in tracked("figures/demo/README.md"):
        pytest.skip("figures/demo/README.md is not committed: ./run_all.sh publish writes it")
    links = set(publish.re.findall(r"\]\(([^)]+)\)", readme.read_text()))
    committed = set(tracked("figures/demo", "notebooks"))
    assert links
    assert [link for link in links if (readme.parent / link).resolve() not in committed] == []
