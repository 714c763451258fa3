"""One update: the gradient is that of the mean over all targets, and what is not finite changes nothing."""

import math

import pytest
import torch

from lichen.core.runs import Run
from lichen.trainer.step import OutOfMemory, UpdateFailed


def test_the_gradient_is_that_of_the_mean_over_targets(tiny, tmp_path):
    found = tiny.training(tmp_path, tiny.recipe(optim={"name": "sgd"}, train={"steps": 1, "clip": 0.0}))
    gradient = tiny.first_gradient(tiny.training(tmp_path / "other", tiny.recipe(train={"steps": 1, "clip": 0.0})))
    batch = next(found.data.batches(0))
    found.module(batch, want="nll").nll.mean().backward()
    for name, parameter in found.module.named_parameters():
        torch.testing.assert_close(gradient[name], parameter.grad, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("accumulation", [2, 4])
def test_accumulation_changes_nothing(tiny, tmp_path, accumulation):
    whole = tiny.first_gradient(tiny.training(tmp_path / "1", tiny.recipe()))
    train = {**tiny.RECIPE["train"], "accumulation": accumulation}
    parts = tiny.first_gradient(tiny.training(tmp_path / "2", tiny.recipe(train=train)))
    for name, gradient in whole.items():
        torch.testing.assert_close(parts[name], gradient, rtol=1e-5, atol=1e-7)


def test_clipping_scales_the_whole_gradient(tiny, tmp_path):
    free = tiny.first_gradient(tiny.training(tmp_path / "1", tiny.recipe(train={"clip": 0.0})))
    clipped = tiny.first_gradient(tiny.training(tmp_path / "2", tiny.recipe(train={"clip": 0.01})))
    norm = math.sqrt(sum(float(gradient.square().sum()) for gradient in free.values()))
    for name, gradient in free.items():
        torch.testing.assert_close(clipped[name], gradient * 0.01 / norm, rtol=1e-4, atol=1e-8)


@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_what_is_not_finite_changes_nothing(tiny, tmp_path, poison, where):
    found = tiny.training(tmp_path, tiny.recipe(averages={"enabled": True}))
    batches = found.data.batches(0)
    for _ in range(2):
        batch = next(batches)
        found.take_note(batch, totals := found.count(batch)[0], found.step(batch, totals))
    before, lr = tiny.fingerprint(found), found.lr()
    weight = found.module.model.norm.weight
    hook = weight.register_hook(lambda gradient: gradient * poison)
    if where == "loss":
        hook.remove()
        hook = found.module.model.norm.register_forward_hook(lambda module, inputs, output: output * poison)
    batch = next(batches)
    result = found.step(batch, totals := found.count(batch)[0])
    found.take_note(batch, totals, result)
    assert not result.applied
    assert (tiny.fingerprint(found), found.lr()) == (before, lr)
    assert (found.state.step, found.state.skipped, found.state.skipped_in_a_row) == (3, 1, 1)
    hook.remove()
    batch = next(batches)
    found.take_note(batch, totals := found.count(batch)[0], found.step(batch, totals))
    assert tiny.fingerprint(found) != before
    assert (found.state.skipped, found.state.skipped_in_a_row) == (1, 0)


def test_out_of_memory_gives_advice_or_halves(tiny, tmp_path, monkeypatch):
    def training(name, **train):
        found = tiny.training(tmp_path / name, tiny.recipe(train={"steps": 1, "batch_size": 4, **train}))
        forward = found.module.forward

        def limited(batch, **options):
            if batch.rows > 2:
                raise torch.OutOfMemoryError("fake: out of memory")
            return forward(batch, **options)

        monkeypatch.setattr(found.module, "forward", limited)
        return found

    with pytest.raises(OutOfMemory, match=r"4 × 32 tokens.*--train.accumulation 2"):
        training("advice").run()
    halved = training("halved", halve_on_out_of_memory=True)
    halved.run()
    plain = tiny.training(tmp_path / "plain", tiny.recipe(train={"steps": 1, "batch_size": 4, "accumulation": 2}))
    plain.run()
    assert tiny.fingerprint(halved) == tiny.fingerprint(plain)


def test_auxiliary_losses_are_means_weighed_by_name(tiny, tmp_path):
    def gradient(name, weight, accumulation):
        train = {"steps": 1, "clip": 0.0, "accumulation": accumulation, "aux_weights": {"size": weight}}
        found = tiny.training(tmp_path / name, tiny.recipe(train={**tiny.RECIPE["train"], **train}))
        objective = found.objective

        class WithSize:
            weight = objective.weight

            def __call__(self, model, batch):
                reduced = objective(model, batch)
                count = torch.tensor(float(batch.num_tokens))
                return reduced._replace(aux={"size": (found.module.model.norm.weight.sum() * count, count)})

        found.objective = WithSize()
        return tiny.first_gradient(found)["model.norm.weight"]

    plain, aux = gradient("0", 0.0, 1), gradient("1", 0.5, 1)
    torch.testing.assert_close(aux - plain, torch.full_like(plain, 0.5))
    torch.testing.assert_close(gradient("2", 0.5, 2), aux, rtol=1e-5, atol=1e-6)


def test_out_of_memory_in_the_update_is_never_repeated_nor_saved(tiny, tmp_path):
    train = {**tiny.RECIPE["train"], "halve_on_out_of_memory": True}
    found = tiny.training(tmp_path, tiny.recipe(train=train))
    update, updates = found.optimizer.step, []

    def full():
        updates.append(update())
        if len(updates) == 2:
            raise torch.OutOfMemoryError("fake: out of memory")

    found.optimizer.step = full
    with pytest.raises(UpdateFailed, match="out of memory on cpu"):
        found.run()
    assert len(updates) == 2 and not Run(tmp_path).checkpoint_folders()


def test_the_wait_for_the_device_counts_as_forward_and_backward(tiny, tmp_path, monkeypatch):
    found = tiny.training(tmp_path, tiny.recipe())
    norm, parts = torch.nn.utils.get_total_norm, []
    monkeypatch.setattr(
        torch.nn.utils, "get_total_norm", lambda tensors: parts.append(found.times._open[-1]) or norm(tensors)
    )
    batch = next(found.data.batches(0))
    found.step(batch, found.count(batch)[0])
    assert parts == ["forward_backward"]
