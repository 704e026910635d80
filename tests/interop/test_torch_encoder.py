"""`torch.nn.TransformerEncoder`: its parameters here, the same outputs, and back."""

import jax
import numpy as np
import pytest
import torch
from oracles import worst

import resnorm_jax as rn
from resnorm_jax.errors import UserError
from resnorm_jax.interop.torch_encoder import from_torch_encoder, to_torch_encoder

D, H, F, N = 8, 2, 12, 3


def theirs(norm_first, final):
    torch.manual_seed(0)
    layer = torch.nn.TransformerEncoderLayer(
        D, H, F, 0.0, activation="relu", batch_first=True, norm_first=norm_first
    )
    norm = torch.nn.LayerNorm(D) if final else None
    made = torch.nn.TransformerEncoder(layer, N, norm, enable_nested_tensor=False).eval()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return made


def ours(norm_first, final):
    norms = {} if final == norm_first else {"final_norm": "layer" if final else "none"}
    return rn.TransformerEncoder(
        depth=N, heads=H, mlp_width=F, arrangement="pre_ln" if norm_first else "post_ln",
        norm_epsilon=1e-5, activation="relu", norms=norms,
    )  # fmt: skip


def state_of(model):
    return {name: value.numpy() for name, value in model.state_dict().items()}


@pytest.mark.parametrize(("norm_first", "final"), [(True, True), (True, False), (False, False)])
def test_it_computes_the_same_and_goes_back(norm_first, final):
    torch_model, encoder = theirs(norm_first, final), ours(norm_first, final)
    state = state_of(torch_model)
    params = from_torch_encoder(state, encoder, D)
    x = np.random.default_rng(0).normal(size=(2, 5, D)).astype(np.float32)
    mask = np.arange(5) < np.array([5, 3])[:, None]
    with torch.no_grad():
        expected = torch_model(torch.tensor(x), src_key_padding_mask=torch.tensor(~mask)).numpy()
    found = np.asarray(jax.jit(encoder.apply)({"params": params}, x, mask))
    assert worst(found[mask], expected[mask]) < 1e-5
    back = to_torch_encoder(params, encoder, D)
    assert set(back) == set(state)
    for name, value in state.items():
        np.testing.assert_array_equal(back[name], value, err_msg=name)


def test_what_does_not_fit_is_told():
    state = state_of(theirs(True, True))
    with pytest.raises(UserError, match=r"the file has norm\.bias, norm\.weight"):
        from_torch_encoder(state, ours(True, False), D)
    del state["layers.1.linear1.bias"]
    with pytest.raises(UserError, match=r"layers\.1\.linear1\.bias"):
        from_torch_encoder(state, ours(True, True), D)
