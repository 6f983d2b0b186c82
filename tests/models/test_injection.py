"""Condition tokens as keys and values only, against the literal procedure.

Concatenate, attend with diffusers' processor, split.
"""

import logging
from functools import partial

import pytest
import torch
from diffusers import SD3Transformer2DModel
from diffusers.models import attention_dispatch
from diffusers.models.attention_processor import JointAttnProcessor2_0
from torch import Tensor
from torch.testing import assert_close

from lit_mimdit.models.injection import (
    BlockCondition,
    ConditionedJointAttention,
    hidden_states,
    install,
    project_condition,
)

BATCH, TOKENS, TEXT, WIDTH = 2, 6, 5, 16


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def random(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, dtype=dtype).requires_grad_()


def gradients(outputs: list[Tensor], inputs: list[Tensor]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    total = sum(
        (output * torch.randn(output.shape, generator=generator).to(output.dtype)).sum()
        for output in outputs
    )
    return list(torch.autograd.grad(total, inputs))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("qk_norm", [None, "rms_norm"])
@pytest.mark.parametrize("block", [0, 2], ids=["context", "context_pre_only"])
@pytest.mark.parametrize("condition_tokens", [TOKENS, 3])
def test_attention_equals_concatenate_attend_split(
    make_transformer, block, qk_norm, dtype, condition_tokens
):
    attn = make_transformer(qk_norm=qk_norm).transformer_blocks[block].attn.to(dtype)
    assert attn.context_pre_only == (block == 2) and (attn.norm_k is None) == (qk_norm is None)
    inputs = x, c, text = [
        random(BATCH, n, WIDTH, dtype=dtype) for n in (TOKENS, condition_tokens, TEXT)
    ]

    ours = ConditionedJointAttention()(attn, x, text, condition=project_condition(attn, c))

    joined, context = JointAttnProcessor2_0()(attn, torch.cat([x, c], dim=1), text)
    literal = joined[:, :TOKENS], context

    close = {} if dtype == torch.float64 else {"rtol": 1e-5, "atol": 1e-5}
    for a, b in zip(ours, literal, strict=True):
        assert_close(a, b, **close)
    for a, b in zip(gradients(ours, inputs), gradients(literal, inputs), strict=True):
        assert_close(a, b, **close)


@pytest.mark.parametrize("block", [0, 2], ids=["context", "context_pre_only"])
def test_with_latent_only_the_text_attends_as_if_there_were_no_condition(transformer, block):
    attn = transformer.transformer_blocks[block].attn.double()
    inputs = x, c, text = [random(BATCH, n, WIDTH) for n in (TOKENS, 3, TEXT)]
    condition = project_condition(attn, c)
    ours = ConditionedJointAttention(latent_only=True)(attn, x, text, condition=condition)
    latent = JointAttnProcessor2_0()(attn, torch.cat([x, c], dim=1), text)[0][:, :TOKENS]
    bare = JointAttnProcessor2_0()(attn, x, text)
    for a, b in zip(ours, (latent, bare[1]), strict=True):
        assert_close(a, b)
    for a, b in zip(gradients(ours, inputs), gradients((latent, bare[1]), inputs), strict=True):
        assert_close(a, b)
    for a, b in zip(ConditionedJointAttention(latent_only=True)(attn, x, text), bare, strict=True):
        assert_close(a, b)


@pytest.mark.parametrize("block", [0, 2], ids=["context", "context_pre_only"])
def test_gated_attention_adds_a_second_attention_behind_tanh(transformer, block):
    attn = transformer.transformer_blocks[block].attn.double()
    x, c, text = (random(BATCH, n, WIDTH) for n in (TOKENS, 3, TEXT))
    gate = random(2)
    ours = ConditionedJointAttention()(attn, x, text, condition=project_condition(attn, c, gate))

    bare = JointAttnProcessor2_0()(attn, x, text)
    q_x, q_text, keys, values = (
        layer(given).unflatten(-1, (2, 8))
        for layer, given in (
            (attn.to_q, x),
            (attn.add_q_proj, text),
            (attn.to_k, c),
            (attn.to_v, c),
        )
    )
    queries, keys = (
        torch.cat([attn.norm_q(q_x), attn.norm_added_q(q_text)], dim=1),
        attn.norm_k(keys),
    )
    weights = (torch.einsum("bqhc,bkhc->bhqk", queries, keys) / 8**0.5).softmax(-1)
    added = (gate.tanh()[:, None] * torch.einsum("bhqk,bkhc->bqhc", weights, values)).flatten(2)
    projected = [added[:, :TOKENS] @ attn.to_out[0].weight.T, added[:, TOKENS:]]
    if block == 0:
        projected[1] = projected[1] @ attn.to_add_out.weight.T
    by_hand = [a + b for a, b in zip(bare, projected, strict=True)]

    for a, b in zip(ours, by_hand, strict=True):
        assert_close(a, b)
    for a, b in zip(
        gradients(ours, [x, c, text, gate]), gradients(by_hand, [x, c, text, gate]), strict=True
    ):
        assert_close(a, b)


class LiteralConcatenation(JointAttnProcessor2_0):
    """The paper's procedure as written.

    The condition tokens join the latent tokens, and leave after the attention.
    """

    def __init__(self, c_BND: Tensor) -> None:
        super().__init__()
        self.c_BND = c_BND

    def __call__(self, attn, hidden_states, encoder_hidden_states=None, attention_mask=None):
        joined = torch.cat([hidden_states, self.c_BND], dim=1)
        output, context = super().__call__(attn, joined, encoder_hidden_states)
        return output[:, : hidden_states.shape[1]], context


def call(transformer: SD3Transformer2DModel, latent: Tensor, **kwargs) -> Tensor:
    """The transformer at a fixed prompt and fixed times."""
    generator = torch.Generator().manual_seed(2)
    return transformer(
        hidden_states=latent,
        encoder_hidden_states=torch.randn(len(latent), TEXT, 12, generator=generator),
        pooled_projections=torch.randn(len(latent), 10, generator=generator),
        timestep=1000.0 * torch.rand(len(latent), generator=generator),
        return_dict=False,
        **kwargs,
    )[0]


def project(transformer: SD3Transformer2DModel, tokens: list[Tensor]) -> tuple[BlockCondition, ...]:
    return tuple(
        project_condition(block.attn, c)
        for block, c in zip(transformer.transformer_blocks, tokens, strict=True)
    )


@pytest.mark.parametrize("qk_norm", [None, "rms_norm"])
@pytest.mark.parametrize("dual", [(), (0,), (0, 1, 2)])
def test_transformer_equals_literal_concatenation(make_transformer, qk_norm, dual):
    build = partial(make_transformer, qk_norm=qk_norm, dual_attention_layers=dual)
    ours, literal = build(), build()
    latent = random(BATCH, 16, 4, 6, dtype=torch.float32)
    tokens = [random(BATCH, TOKENS, WIDTH, dtype=torch.float32) for _ in range(3)]
    install(ours)
    for block, c in zip(literal.transformer_blocks, tokens, strict=True):
        block.attn.set_processor(LiteralConcatenation(c))

    left = call(ours, latent, joint_attention_kwargs={"condition": project(ours, tokens)})
    right = call(literal, latent)
    assert_close(left, right, rtol=1e-5, atol=1e-5)
    for a, b in zip(
        gradients([left], [latent, *tokens]), gradients([right], [latent, *tokens]), strict=True
    ):
        assert_close(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("qk_norm", [None, "rms_norm"])
def test_without_a_condition_the_transformer_is_bitwise_diffusers(make_transformer, qk_norm):
    ours, untouched = make_transformer(qk_norm=qk_norm), make_transformer(qk_norm=qk_norm)
    install(ours)
    latent = torch.randn(BATCH, 16, 4, 6)
    expected = call(untouched, latent)
    assert torch.equal(call(ours, latent), expected)
    assert torch.equal(call(ours, latent, joint_attention_kwargs={"condition": None}), expected)


def test_dual_attention_ignores_the_condition(transformer):
    install(transformer)
    attn, calls = transformer.transformer_blocks[0].attn2, []
    attn.register_forward_hook(
        lambda _module, _args, kwargs, output: calls.append((kwargs["hidden_states"], output)),
        with_kwargs=True,
    )
    tokens = [torch.randn(BATCH, TOKENS, WIDTH) for _ in range(3)]
    call(
        transformer,
        torch.randn(BATCH, 16, 4, 6),
        joint_attention_kwargs={"condition": project(transformer, tokens)},
    )
    ((given, output),) = calls
    assert torch.equal(output, JointAttnProcessor2_0()(attn, given))


def test_every_block_sees_its_own_condition(transformer):
    install(transformer)
    latent, tokens = (
        torch.randn(BATCH, 16, 4, 6),
        [torch.randn(BATCH, TOKENS, WIDTH) for _ in range(3)],
    )
    outputs = []
    for changed in (None, 0, 1, 2):
        varied = [c + (index == changed) for index, c in enumerate(tokens)]
        outputs.append(
            call(
                transformer,
                latent,
                joint_attention_kwargs={"condition": project(transformer, varied)},
            )
        )
    assert all((a - b).abs().max() > 1e-3 for i, a in enumerate(outputs) for b in outputs[:i])


def test_gradient_checkpointing_keeps_outputs_and_gradients(make_transformer):
    results = []
    for checkpointing in (False, True):
        torch.manual_seed(0)
        transformer = make_transformer().requires_grad_(False)
        install(transformer)
        runs = []
        transformer.transformer_blocks[1].ff.register_forward_hook(
            lambda *_, runs=runs: runs.append(1)
        )
        if checkpointing:
            transformer.enable_gradient_checkpointing()
        latent, tokens = (
            torch.randn(BATCH, 16, 4, 6),
            [random(BATCH, TOKENS, WIDTH, dtype=torch.float32) for _ in range(3)],
        )
        gates = random(3, 2, dtype=torch.float32)
        # the second block is gated, so that gradients of gates pass through the checkpoint too
        blocks = list(project(transformer, tokens))
        blocks[1] = blocks[1]._replace(gate=gates[1])
        output = call(transformer, latent, joint_attention_kwargs={"condition": tuple(blocks)})
        results.append((output, gradients([output], [*tokens, gates])))
        assert len(runs) == (2 if checkpointing else 1), (
            "a checkpointed block runs again in the backward pass"
        )
    (plain, plain_gradients), (checkpointed, checkpointed_gradients) = results
    assert torch.equal(plain, checkpointed)
    assert all(
        torch.equal(a, b) and a.abs().max() > 0
        for a, b in zip(plain_gradients, checkpointed_gradients, strict=True)
    )


def test_diffusers_does_not_warn_about_the_arguments(transformer):
    records = []
    handler = logging.Handler()
    handler.emit = records.append
    logger = logging.getLogger("diffusers")
    logger.addHandler(handler)
    try:
        install(transformer)
        tokens = [torch.randn(BATCH, TOKENS, WIDTH) for _ in range(3)]
        kwargs = {"condition": project(transformer, tokens)}
        call(transformer, torch.randn(BATCH, 16, 4, 6), joint_attention_kwargs=kwargs)
        assert not records
        call(transformer, torch.randn(BATCH, 16, 4, 6), joint_attention_kwargs={"conditions": None})
        assert records, "diffusers warns about unknown arguments, and this test sees it"
    finally:
        logger.removeHandler(handler)


def test_hidden_states_are_what_each_attention_receives(make_transformer):
    ours, untouched = make_transformer(), make_transformer()
    install(ours)
    received = []
    for block in untouched.transformer_blocks:
        block.attn.register_forward_pre_hook(
            lambda _module, _args, kwargs: received.append(kwargs["hidden_states"]),
            with_kwargs=True,
        )
    inputs = (
        torch.randn(BATCH, 16, 4, 6),
        torch.rand(BATCH) * 1000,
        torch.randn(BATCH, TEXT, 12),
        torch.randn(BATCH, 10),
    )
    captured = hidden_states(ours, *inputs)
    untouched(
        hidden_states=inputs[0],
        timestep=inputs[1],
        encoder_hidden_states=inputs[2],
        pooled_projections=inputs[3],
    )
    assert len(captured) == 3
    assert all(
        torch.equal(a, b) and not a.requires_grad for a, b in zip(captured, received, strict=True)
    )


@pytest.mark.parametrize("gated", [False, True])
def test_the_chosen_attention_backend_is_called_and_computes_the_same(
    transformer, gated, monkeypatch
):
    """Every attention of every block: joint, of the gated condition, and of dual blocks."""
    install(transformer)
    latent, tokens = (
        torch.randn(BATCH, 16, 4, 6),
        [torch.randn(BATCH, TOKENS, WIDTH) for _ in range(3)],
    )
    blocks = project(transformer, tokens)
    if gated:
        blocks = tuple(block._replace(gate=torch.randn(2)) for block in blocks)
    kwargs = {"joint_attention_kwargs": {"condition": blocks}}
    before = call(transformer, latent, **kwargs)
    registry, calls = attention_dispatch._AttentionBackendRegistry, []
    active = registry.get_active_backend()[0]
    name = attention_dispatch.AttentionBackendName("_native_math")
    own = registry._backends[name]
    monkeypatch.setitem(
        registry._backends, name, lambda *args, **kwargs: calls.append(1) or own(*args, **kwargs)
    )
    try:
        transformer.set_attention_backend("_native_math")
        registry.set_active_backend(active)  # of all models: the transformer's own choice counts
        assert_close(call(transformer, latent, **kwargs), before, rtol=1e-5, atol=1e-5)
    finally:
        registry.set_active_backend(active)
    dual = sum(block.attn2 is not None for block in transformer.transformer_blocks)
    assert dual > 0 and len(calls) == dual + 3 * (2 if gated else 1)


def test_installing_twice_hands_out_the_condition_once(transformer):
    install(transformer)
    install(transformer)
    tokens = [torch.randn(BATCH, TOKENS, WIDTH) for _ in range(3)]
    kwargs = {"condition": project(transformer, tokens)}
    latent = torch.randn(BATCH, 16, 4, 6)
    assert call(transformer, latent, joint_attention_kwargs=kwargs).isfinite().all()
