"""The corrector: a distribution, detached features, an optional skip link."""

from __future__ import annotations

import pytest
import torch

from ebomlc.models import Corrector, CorrectorSettings


@pytest.mark.parametrize("settings", [{}, {"skip": True}, {"dropout": 0.3, "batch_norm": True}])
def test_rows_are_distributions(settings):
    corrector = Corrector(5, 4, CorrectorSettings(**settings))
    out = corrector(torch.randn(8, 5), torch.randint(4, (8,)))
    assert out.shape == (8, 4)
    assert bool((out >= 0).all())
    torch.testing.assert_close(out.sum(1), torch.ones(8))


def test_no_gradient_reaches_the_features():
    corrector = Corrector(5, 4, CorrectorSettings())
    features = torch.randn(8, 5, requires_grad=True)
    corrector(features, torch.randint(4, (8,)))[:, 0].sum().backward()
    assert features.grad is None
    assert corrector.embedding.weight.grad is not None


def test_given_label_matters():
    corrector = Corrector(5, 4, CorrectorSettings())
    features = torch.randn(1, 5).expand(4, 5)
    out = corrector(features, torch.arange(4))
    assert len({tuple(row) for row in out.tolist()}) == 4


def test_skip_link_mixes_the_given_label_in():
    torch.manual_seed(0)
    corrector = Corrector(5, 4, CorrectorSettings(skip=True))
    features, given = torch.randn(6, 5), torch.randint(4, (6,))
    torch.nn.init.zeros_(corrector.gate.weight)
    for bias, expected in ((20.0, 1.0), (-20.0, None)):
        torch.nn.init.constant_(corrector.gate.bias, bias)
        kept = corrector(features, given)[torch.arange(6), given]
        if expected is not None:
            torch.testing.assert_close(kept, torch.full((6,), expected))
        else:
            assert bool((kept < 0.9).all())


def test_scale_and_offset_of_the_features_do_not_matter():
    corrector = Corrector(5, 4, CorrectorSettings())
    features, given = torch.randn(8, 5), torch.randint(4, (8,))
    torch.testing.assert_close(corrector(features, given), corrector(0.01 * features + 3, given), rtol=1e-2, atol=1e-3)
    assert not torch.allclose(corrector(features, given), corrector(features.flip(0), given), atol=1e-3)
