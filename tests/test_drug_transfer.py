"""The network for drug response: MMD against its definition, learning, adaptation, repeatability."""

import numpy as np
import pytest
import torch

from lib.models.drug_transfer import BANDWIDTHS, DrugTransfer, mmd


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    lines, tumours = rng.normal(size=(120, 20)), rng.normal(size=(200, 20)) + 1.5
    response = lines[:, :3] * 2 + rng.normal(size=(120, 3)) * 0.2 + 7
    response[rng.random(response.shape) < 0.1] = np.nan
    return lines, response, tumours


def test_mmd_is_its_definition_and_zero_for_the_same_sample():
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.randn(n, 4, generator=generator, dtype=torch.float64) for n in (7, 9))
    both = torch.cat([x, y])
    squared = ((both[:, None] - both[None]) ** 2).sum(-1)
    kernel = sum(torch.exp(-squared / (s * squared.median())) for s in BANDWIDTHS) / len(BANDWIDTHS)
    weights = torch.cat([torch.full((7,), 1 / 7), torch.full((9,), -1 / 9)]).double()
    assert mmd(x, y).item() == pytest.approx((weights @ kernel @ weights).item())
    assert mmd(x, x).item() == pytest.approx(0, abs=1e-12)
    assert mmd(x, y + 3) > mmd(x, y)


def test_it_learns_the_lines_response_in_its_units(data):
    lines, response, tumours = data
    model = DrugTransfer(epochs=60, dropout=0.0, mmd_weight=0.0).fit(lines, response, tumours)
    known = np.isfinite(response)
    assert np.corrcoef(model.predict(lines)[known], response[known])[0, 1] > 0.9
    assert model.history_[-1] < 0.3 * model.history_[0]


def test_adaptation_draws_the_latent_representations_together(data):
    lines, response, tumours = data
    distance = {}
    for weight in (0.0, 3.0):
        encoder = DrugTransfer(epochs=40, mmd_weight=weight).fit(lines, response, tumours).module_.encoder
        with torch.no_grad():
            distance[weight] = mmd(*(encoder(torch.tensor(x, dtype=torch.float32)) for x in (lines, tumours))).item()
    assert distance[3.0] < 0.5 * distance[0.0]


def test_same_seed_same_predictions_and_torch_s_state_is_left_alone(data):
    before = torch.get_rng_state()
    first, again, other = (DrugTransfer(epochs=3, seed=s).fit(*data).predict(data[2]) for s in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert not np.allclose(first, other)
    assert torch.equal(before, torch.get_rng_state())


def test_bad_input_is_named(data):
    lines, response, tumours = data
    with pytest.raises(ValueError, match="the same genes"):
        DrugTransfer().fit(lines, response, tumours[:, :5])
    with pytest.raises(ValueError, match="without any measured line"):
        DrugTransfer().fit(lines, np.full(response.shape, np.nan), tumours)
