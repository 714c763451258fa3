"""Sums and weights of the next token."""

from dataclasses import replace

import torch

from lichen.trainer.objectives import NextToken


def test_weights_count_only_where_there_is_a_target(tiny, tmp_path):
    found = tiny.training(tmp_path, tiny.recipe())
    batch = next(found.data.batches(0))
    objective = NextToken()
    plain = objective(found.module, batch)
    weights = torch.rand(batch.tokens.shape, generator=torch.Generator().manual_seed(0))
    weighted = replace(batch, weights=weights)
    nll = found.module(batch, want="nll")
    chosen = weights.view(-1)[nll.index]
    torch.testing.assert_close(objective(found.module, weighted).sum, (nll.nll * chosen).sum())
    assert abs(objective.weight(weighted) - float(chosen.sum())) < 1e-4
    torch.testing.assert_close(plain.sum, nll.nll.sum())
    assert objective.weight(batch) == batch.num_targets == len(nll.nll)
