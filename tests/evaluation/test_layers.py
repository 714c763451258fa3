"""Layers: states and gradients are those of an independent computation, and the model is afterwards what it was."""

import copy
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from lichen.config.model import ModelConfig
from lichen.core.batch import IGNORE_TARGET
from lichen.dataset.plan import DocumentList
from lichen.evaluation.held_out import batches_of
from lichen.evaluation.layers import look
from lichen.inference.engine import Engine, SamplingConfig
from lichen.model.language_model import LanguageModel, initialise

SIZE = {"hidden_size": 16, "num_attention_heads": 2, "num_hidden_layers": 3}
KINDS = {
    "moe": {"kind": "moe", "num_experts": 4, "num_shared_experts": 1},
    "product_key": {"kind": "product_key", "num_keys": 8, "heads": 2, "key_dim": 8, "top_k": 4},
    "none": {"kind": "none"},
}


def made(kind="dense", **settings):
    by_layer = {} if kind == "dense" else {"feed_forward_by_layer": {"1": KINDS[kind]}}
    data = {"vocab_size": 40, **SIZE, **by_layer, **settings}
    return initialise(LanguageModel(ModelConfig.from_data(data)), seed=0)


def texts(lengths=(9, 30, 5, 17, 12)):
    draw = np.random.default_rng(0)
    documents = DocumentList("made", [draw.integers(0, 40, size=length).tolist() for length in lengths])
    return documents, lengths


def some_batches(at_once=4096):
    return [portion.batch for portion in batches_of(texts()[0], 32, at_once)]


def outside_view(model, documents, lengths):
    """Every text by itself: states per layer, the loss, and gradients by the usual backward pass."""
    from lichen.core.batch import Batch

    heard = [[] for _ in model.model.layers]
    hooks = [
        block.register_forward_hook(lambda module, given, output, place=place: place.append(output[0]))
        for block, place in zip(model.model.layers, heard, strict=True)
    ]
    losses = [
        model(Batch.of_tokens(torch.tensor([documents.tokens(number).tolist()])), want="nll").nll.sum()
        for number in range(len(lengths))
    ]
    for states in (states for layer in heard for states in layer):
        states.retain_grad()
    (torch.stack(losses).sum() / (sum(lengths) - len(lengths))).backward()
    for hook in hooks:
        hook.remove()
    return heard


@pytest.mark.parametrize("at_once", [4096, 32])
def test_states_are_those_of_numpy_text_by_text(at_once):
    model = made().eval()
    documents, lengths = texts()
    found = look(model, some_batches(at_once))
    heard = outside_view(copy.deepcopy(model), documents, lengths)
    assert found.targets == sum(lengths) - 5 and found.segments == 5
    for layer, per_text in zip(found.layers, heard, strict=True):
        rows = [states.detach()[0, 1:-1].double().numpy() for states in per_text]  # neither the first nor the last
        matrix = np.concatenate(rows)
        unit = [each / np.linalg.norm(each, axis=1, keepdims=True) for each in rows]
        within = [(u @ u.T).sum() - len(u) for u in unit]
        sizes = np.linalg.svd(matrix, compute_uv=False)
        shares = sizes / sizes.sum()
        values = np.linalg.eigvalsh(np.cov(matrix.T))
        together = np.concatenate(unit)
        across = len(matrix) ** 2 - sum(len(each) ** 2 for each in rows)
        assert layer.states.n == len(matrix) == sum(lengths) - 10 and layer.first.n == 5
        assert layer.states.effective_rank == pytest.approx(np.exp(-(shares * np.log(shares)).sum()), rel=1e-4)
        assert layer.states.participation_ratio == pytest.approx(values.sum() ** 2 / (values**2).sum(), rel=1e-4)
        intra = np.mean([total / (len(u) * (len(u) - 1)) for total, u in zip(within, unit, strict=True)])
        assert layer.states.cosine_intra == pytest.approx(intra, rel=1e-4)
        inter = ((together @ together.T).sum() - sum((u @ u.T).sum() for u in unit)) / across
        assert layer.states.cosine_inter == pytest.approx(inter, rel=1e-3, abs=1e-6)
        assert layer.states.residual_norm == pytest.approx(np.linalg.norm(matrix, axis=1).mean(), rel=1e-5)
        first = np.stack([states.detach()[0, 0].double().numpy() for states in per_text])
        assert layer.first.residual_norm == pytest.approx(np.linalg.norm(first, axis=1).mean(), rel=1e-5)


@pytest.mark.parametrize("at_once", [4096, 32])
@pytest.mark.parametrize("kind", ["dense", "none", "moe", "product_key"])
def test_gradients_are_those_of_a_backward_pass(kind, at_once):
    model = made(kind).eval()
    documents, lengths = texts()
    found = look(model, some_batches(at_once))
    other = copy.deepcopy(model)
    heard = outside_view(other, documents, lengths)

    def norm(*prefixes):
        named = other.named_parameters()
        chosen = [p.grad for name, p in named if name.startswith(prefixes) and p.grad is not None]
        return math.sqrt(sum(float(gradient.double().square().sum()) for gradient in chosen))

    for layer in found.layers:
        prefix = f"model.layers.{layer.layer}."
        assert layer.gradients.total == pytest.approx(norm(prefix), rel=1e-4)
        assert layer.gradients.parts["attention"] == pytest.approx(norm(f"{prefix}self_attn."), rel=1e-4)
        flowing = math.sqrt(sum(float(states.grad.double().square().sum()) for states in heard[layer.layer]))
        assert layer.gradients.residual == pytest.approx(flowing, rel=1e-4)
    parts, mlp = found.layers[1].gradients.parts, "model.layers.1.mlp."
    if kind == "dense":
        assert parts["feed_forward"] == pytest.approx(norm(mlp), rel=1e-4) and set(parts) == {
            "attention",
            "feed_forward",
        }
    elif kind == "moe":
        assert parts["router"] == pytest.approx(norm(f"{mlp}gate."), rel=1e-3) and parts["router"] > 0
        assert parts["feed_forward"] == pytest.approx(norm(f"{mlp}experts.", f"{mlp}shared_experts."), rel=1e-4)
    elif kind == "product_key":
        assert parts["router"] == pytest.approx(norm(f"{mlp}query_", f"{mlp}keys."), rel=1e-3) and parts["router"] > 0
        assert found.elsewhere["shared"] == pytest.approx(norm("shared."), rel=1e-4)
    else:
        assert set(parts) == {"attention"} and found.layers[1].kind == "none"
    assert found.gradient_norm == pytest.approx(norm(""), rel=1e-4)
    assert found.elsewhere["embedding"] == pytest.approx(norm("model.embed_tokens."), rel=1e-4)
    assert found.loss == pytest.approx(look(model, some_batches()).loss, rel=1e-5)


def test_a_model_that_reads_facts_has_a_router_and_a_reader(load_beside):
    memory = load_beside(str(Path(__file__).parents[1] / "model" / "conftest.py"), "memory_models")
    model = memory.reading(router="language-loss").eval()
    Engine(model).generate([[5, 6, 7]], SamplingConfig(max_new_tokens=2))  # its index was made without gradients
    found = look(model, some_batches())
    parts = found.layers[1].gradients.parts
    assert set(parts) == {"attention", "feed_forward", "router", "reader"} and min(parts.values()) > 0
    assert set(found.layers[0].gradients.parts) == {"attention", "feed_forward"} and "shared" in found.elsewhere
    model.shared["knowledge"].set_entries(memory.Entries.of(tokens=[], keys=[], subject_lengths=[]))
    emptied = look(model, some_batches())
    assert emptied.layers[1].gradients.parts["reader"] == emptied.layers[1].gradients.parts["router"] == 0


@pytest.mark.parametrize("kind", ["dense", "moe", "product_key"])
def test_the_model_is_afterwards_what_it_was(kind):
    model = made(kind, tie_word_embeddings=False)
    model.train()
    before = copy.deepcopy(model.state_dict())
    hooks = [len(block._forward_hooks) for block in model.model.layers]
    state = torch.random.get_rng_state()
    batches = some_batches()
    with torch.no_grad():
        first = look(model, batches)
    assert model.training and all(module.training for module in model.modules())
    assert all(parameter.grad is None and parameter.requires_grad for parameter in model.parameters())
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert hooks == [len(block._forward_hooks) for block in model.model.layers]
    assert torch.equal(state, torch.random.get_rng_state())
    with torch.inference_mode():
        assert look(model, batches) == first
    assert "head" in first.elsewhere


def test_targets_only_and_texts_that_do_not_see_each_other():
    model = made().eval()
    [batch] = some_batches()
    found = look(model, [batch])
    padded = batch.targets == IGNORE_TARGET
    assert padded.any(), "the test needs padding"
    other = copy.deepcopy(batch)
    other.tokens[padded] = 7
    again = look(model, [other])
    assert [layer.states for layer in again.layers] == [layer.states for layer in found.layers]
