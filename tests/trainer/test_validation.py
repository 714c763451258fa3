"""The loss over held-out text: every document once, in bits per byte of it."""

import math

import pytest
import torch

from lichen.dataset.loader import ValidationBatches
from lichen.trainer.step import OutOfMemory
from lichen.trainer.validation import validate


def look(found, batches, parts=1):
    validation = validate(found.model, found.objective, batches, 0, found.runtime, lambda: False, parts=parts)
    assert validation is not None
    return validation


def test_it_is_the_mean_over_all_targets_and_bytes(tiny, tmp_path):
    found = tiny.training(tmp_path, tiny.recipe())
    documents = tiny.documents(12, 2)
    batches = ValidationBatches(tiny.data(tiny.recipe()).validation, 4, 0)
    validation = look(found, batches)
    assert (validation.targets, validation.num_bytes) == (
        sum(documents.lengths) - len(documents),
        sum(documents.bytes),
    )
    with torch.no_grad():
        nll = torch.cat([found.module(portion.batch, want="nll").nll for portion in batches])
    assert validation.loss == pytest.approx(float(nll.mean()), rel=1e-5)
    assert validation.perplexity == pytest.approx(math.exp(validation.loss))
    assert validation.bits_per_byte == pytest.approx(float(nll.sum()) / math.log(2) / sum(documents.bytes), rel=1e-5)


def test_parts_and_training_mode_change_nothing(tiny, tmp_path):
    found = tiny.training(tmp_path, tiny.recipe())
    whole = look(found, found.validation)
    assert look(found, found.validation, parts=2).loss == pytest.approx(whole.loss, rel=1e-6)
    assert found.model.training
    assert all(parameter.grad is None for parameter in found.module.parameters())


def test_an_interruption_leaves_no_result(tiny, tmp_path):
    found = tiny.training(tmp_path, tiny.recipe())
    assert validate(found.model, found.objective, found.validation, 0, found.runtime, lambda: True) is None


def test_averaged_weights_have_their_own_and_the_weights_themselves_count(tiny, tmp_path):
    found = tiny.training(tmp_path, tiny.recipe(averages={"enabled": True, "decay": 0.5}))
    seen = []
    look_once = found.look
    found.look = lambda weights: seen.append(look_once(weights)) or seen[-1]
    found.run()
    assert [look.weights for look in seen] == ["current", "averaged"] * 2
    assert seen[0].loss != seen[1].loss
    assert found.state.best_score == min(look.loss for look in seen if look.weights == "current")


class OnMps(torch.Tensor):
    """A tensor of a device that has no float64."""

    def double(self):
        raise TypeError("no float64 here")

    def cpu(self):
        return self.as_subclass(torch.Tensor)


def test_the_sums_need_no_float64_on_the_device(tiny, tmp_path):
    found = tiny.training(tmp_path, tiny.recipe())
    expected, objective = look(found, found.validation), found.objective

    class Elsewhere:
        weight = objective.weight

        def __call__(self, model, batch):
            reduced = objective(model, batch)
            return reduced._replace(sum=reduced.sum.as_subclass(OnMps))

    found.objective = Elsewhere()
    assert look(found, found.validation) == expected


def test_out_of_memory_ends_with_advice(tiny, tmp_path):
    found = tiny.training(tmp_path, tiny.recipe())

    def full(model, batch):
        raise torch.OutOfMemoryError("fake: out of memory")

    full.weight = found.objective.weight
    found.objective = full
    with pytest.raises(OutOfMemory, match=r"4 × 32 tokens.*--train.accumulation 2"):
        look(found, found.validation)
    assert found.model.training
