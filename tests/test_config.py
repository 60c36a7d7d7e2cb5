import pytest

from lib import config


def write(folder, text):
    path = folder / "own.yaml"
    path.write_text(f"base: demo\nname: own\n{text}")
    return path


@pytest.mark.parametrize("name", sorted(p.stem for p in config.PROFILES.glob("*.yaml")))
def test_committed_profiles_are_valid(name, tmp_path):
    run = config.load(name, data_dir=tmp_path)
    assert run.name == name
    assert set(run.estimates) >= {"archives", "01_curation", "02_training"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("rnalign: {epoch: 5}", "unknown key rnalign.epoch (did you mean epochs?)"),
        ("rnalign: {epochs: -5}", "key rnalign.epochs: found -5, expected: greater than 0"),
        ("rnalign: {lr: fast}", "key rnalign.lr: found 'fast'"),
        ("rnalign: {epochs: '200'}", "key rnalign.epochs: found '200'"),
        ("tissue: {split: patient}", "key tissue.split: found 'patient', expected: 'sample' or 'study'"),
        ("tissue: {test_fraction: 0.85}", "must stay below 0.9"),
        ("rnalign_search: {sigma: [1.0, 0.2]}", "key rnalign_search.sigma: lower bound first"),
        ("tissue: {validation_fraction: 0.0}", "found 0, but tissue_vae selects on that part"),
        ("base: mini\ntissue: {source: deposit}", "found deposit with data of kind files, expected archives"),
        ("sead: 1", "unknown key sead (did you mean seed?)"),
        ("data: {kind: files}", "key data.alignment: missing"),
        ("data: [", "not valid YAML"),
    ],
)
def test_bad_profile_is_one_clear_line(tmp_path, text, expected):
    with pytest.raises(ValueError, match=r"^own\.yaml: ") as error:
        config.load(write(tmp_path, text))
    assert expected in str(error.value)
    assert "\n" not in str(error.value)


def test_unknown_profile_suggests_the_nearest():
    with pytest.raises(FileNotFoundError, match="did you mean study"):
        config.load("studdy")


def test_base_is_merged_and_data_of_another_kind_replaced(tmp_path):
    demo, own = (
        config.load("demo"),
        config.load(write(tmp_path, "rnalign: {epochs: 7}\ndata: {kind: archives}")),
    )
    assert own.rnalign.epochs == 7
    assert own.rnalign.lr == demo.rnalign.lr
    assert own.data.model_dump() == {"kind": "archives"}


def test_a_copy_does_not_take_a_shipped_profile_s_folders(tmp_path):
    path = tmp_path / "copy.yaml"
    path.write_text("base: demo\nname: mini")
    with pytest.raises(ValueError, match=r"copy\.yaml: key name: found 'mini', a profile of this repository"):
        config.load(path)
    path.write_text("base: demo")
    assert config.load(path).name == "copy"


def test_base_that_leads_back_to_itself(tmp_path):
    path = tmp_path / "own.yaml"
    path.write_text(f"base: {path}\nname: own")
    with pytest.raises(ValueError, match="leads back to itself"):
        config.load(path)


def test_another_seed_has_folders_of_its_own():
    demo, other = config.load("demo"), config.load("demo", seed=7)
    assert (other.seed, other.name) == (7, "demo-seed7")
    assert {demo.raw, demo.processed, demo.figures}.isdisjoint({other.raw, other.processed, other.figures})


def test_own_files_need_a_folder():
    with pytest.raises(ValueError, match="relative to --data DIR"):
        _ = config.load("mini").raw


def test_paper_profile_holds_the_papers_settings():
    paper = config.load("paper")
    search = paper.rnalign_search
    assert (paper.rnalign.epochs, paper.alignment.genes, search.trials) == (1000, 3000, 20)
    assert (search.log10_lr, search.n_layers, search.dropout) == ([-5, -2], [1, 2, 3], [0.2, 0.4, 0.6])
    vae = paper.tissue_vae
    assert (vae.latent, vae.batch_size, vae.patience, vae.max_epochs) == (121, 32, 10, 500)
    assert (paper.tissue.cap, paper.tissue.subset, paper.tissue.subset_seed) == (10000, 411318, 42)


def test_a_search_is_repeated_under_another_seed_only_where_its_result_is_used(tmp_path):
    for best, under_another in (("false", 0), ("true", 3)):
        path = write(tmp_path, f"rnalign_search: {{trials: 3, use_best: {best}}}")
        own, other = config.load(path), config.load(path, seed=7)
        assert own.trials(own.rnalign_search, path) == 3
        assert other.trials(other.rnalign_search, path) == under_another
