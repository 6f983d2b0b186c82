"""The backbone and its branch together."""

from dataclasses import fields, replace

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from lit_mimdit.models.branch_config import BranchConfig, InterConfig, IntraConfig
from lit_mimdit.models.condition import Prompt
from lit_mimdit.models.network import MiMDiTNetwork

BLOCKS, BATCH, GRID = 3, 2, (3, 5)


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def random_prompt(batch: int = 1) -> Prompt:
    return Prompt(torch.randn(batch, 4, 12), torch.randn(batch, 10))


@pytest.fixture
def prompt() -> Prompt:
    return random_prompt()


@pytest.fixture
def build(make_transformer, prompt):
    """MiMDiT with always the same weights; its Zero Linears are random unless told otherwise."""

    def network(**changes) -> MiMDiTNetwork:
        settings = {
            "width": 8,
            "heads": 2,
            "window": 2,
            "intra": IntraConfig(3, 2),
            "zero_std": 0.5,
        }
        torch.manual_seed(0)
        network = MiMDiTNetwork(make_transformer(), BranchConfig(**(settings | changes)), prompt)
        for name, parameter in network.branch.named_parameters():  # images shall choose differently
            if "router.project.weight" in name:
                nn.init.normal_(parameter)
        return network

    return network


def latents(batch: int = BATCH) -> Tensor:
    """With an offset of its own for every image."""
    return torch.randn(batch, 16, 2 * GRID[0], 2 * GRID[1]) + torch.randn(batch, 16, 1, 1)


def noisy(batch: int = BATCH) -> tuple[Tensor, Tensor]:
    return torch.randn(batch, 16, 2 * GRID[0], 2 * GRID[1]), torch.rand(batch)


def bare(transformer: nn.Module, x_t: Tensor, t: Tensor, prompt: Prompt) -> Tensor:
    """The untouched backbone, called as diffusers' pipeline does."""
    return transformer(
        hidden_states=x_t,
        timestep=1000 * t,
        encoder_hidden_states=prompt.embeds.repeat(len(x_t) // len(prompt.embeds), 1, 1),
        pooled_projections=prompt.pooled.repeat(len(x_t) // len(prompt.pooled), 1),
    ).sample


def received_by_attention(
    transformer: nn.Module, x_t: Tensor, t: Tensor, prompt: Prompt
) -> list[Tensor]:
    """What the joint attention of every block of the untouched backbone is given, (B, N, D)."""
    received, hooks = [], []
    for block in transformer.transformer_blocks:
        hook = block.attn.register_forward_pre_hook(
            lambda _m, _a, kwargs: received.append(kwargs["hidden_states"]), with_kwargs=True
        )
        hooks.append(hook)
    with torch.no_grad():
        bare(transformer, x_t, t, prompt)
    for hook in hooks:
        hook.remove()
    return received


def keys_and_values(transformer: nn.Module, tokens: list[Tensor]) -> list[tuple[Tensor, Tensor]]:
    """(B, N, H, D/H) by the untouched backbone's projections."""
    pairs = []
    for block, c in zip(transformer.transformer_blocks, tokens, strict=True):
        key, value = (
            layer(c).unflatten(-1, (2, 8)) for layer in (block.attn.to_k, block.attn.to_v)
        )
        pairs.append((block.attn.norm_k(key), value))
    return pairs


# --- at the start ---------------------------------------------------------------------------------


def test_no_condition_is_bitwise_the_backbone(build, make_transformer, prompt):
    x_t, t = noisy()
    assert torch.equal(build()(x_t, t, None), bare(make_transformer(), x_t, t, prompt))


def test_zero_gated_starts_bitwise_at_the_backbone(build, make_transformer, prompt):
    for zero_std in (0.0, 0.5):
        network, (x_t, t) = build(fusion="zero_gated", zero_std=zero_std), noisy()
        assert torch.equal(
            network(x_t, t, network.condition(latents())), bare(make_transformer(), x_t, t, prompt)
        )
        nn.init.ones_(network.branch.gates)
        assert (
            network(x_t, t, network.condition(latents())) - network(x_t, t, None)
        ).abs().max() > 1e-3


def test_concat_latent_is_concat_but_for_what_the_text_reads(build, make_transformer, prompt):
    """In the first block the latent tokens get the same; the text differs, and with it what later
    blocks compute.
    """
    results, z_lq, (x_t, t) = {}, latents(), noisy()
    for fusion in ("concat", "concat_latent"):
        network, seen = build(fusion=fusion), []
        for block in network.backbone.transformer_blocks:
            block.register_forward_hook(
                lambda _module, _args, output, kept=seen: kept.append(output)
            )
        results[fusion] = network(x_t, t, network.condition(z_lq)), seen
    (joint, blocks), (apart, others) = results["concat"], results["concat_latent"]
    assert_close(blocks[0][1], others[0][1], rtol=1e-5, atol=1e-5)
    assert (blocks[0][0] - others[0][0]).abs().max() > 1e-3 and (joint - apart).abs().max() > 1e-3


def test_concat_of_zero_tokens_knows_nothing_of_the_image_but_is_not_the_backbone(build):
    """A zero token takes its share of every softmax.

    The paper's start is near the backbone, not at it.
    """
    network, (x_t, t) = build(zero_std=0.0), noisy()
    first, second = (network(x_t, t, network.condition(latents())) for _ in range(2))
    assert torch.equal(first, second)
    backbone = network(x_t, t, None)
    assert (first - backbone).abs().mean() > 0.01 * backbone.abs().mean()


# --- the condition --------------------------------------------------------------------------------


@pytest.mark.parametrize("positions", [True, False])
def test_branch_receives_the_embedded_latent(build, make_transformer, positions):
    network, z_lq, given = build(positions=positions), latents(), []
    for mim in network.branch.mims:
        mim.project.register_forward_pre_hook(lambda _module, args: given.append(args[0]))
    network.condition(z_lq)
    embed = make_transformer().pos_embed
    patches = (
        z_lq.unfold(2, 2, 2).unfold(3, 2, 2).permute(0, 2, 3, 1, 4, 5).flatten(3).flatten(1, 2)
    )  # (B, N, 16 * 2 * 2)
    expected = patches @ embed.proj.weight.flatten(1).T + embed.proj.bias
    if positions:
        rows, columns = (
            slice((8 - n) // 2, (8 - n) // 2 + n) for n in GRID
        )  # the centre of the backbone's 8 x 8 positions
        expected = expected + embed.pos_embed.unflatten(1, (8, 8))[:, rows, columns].flatten(1, 2)
    assert len(given) == BLOCKS
    for x in given:
        assert_close(x, expected)


def test_condition_tokens_become_keys_and_values(build, make_transformer):
    network, z_lq = build(), latents()
    condition = network.condition(z_lq)
    tokens, _ = network.branch(make_transformer().pos_embed(z_lq), GRID)
    for (key, value), block in zip(
        keys_and_values(make_transformer(), tokens), condition.blocks, strict=True
    ):
        assert_close(block.key, key)
        assert_close(block.value, value)
        assert block.gate is None


@pytest.mark.parametrize("base", ["embed", "position", "reference"])
@pytest.mark.parametrize("zero_std", [0.0, 0.5])
def test_base_by_hand(build, make_transformer, prompt, base, zero_std):
    network, untouched, z_lq = build(base=base, zero_std=zero_std), make_transformer(), latents()
    x = untouched.pos_embed(z_lq)
    if base == "embed":
        variance, mean = torch.var_mean(x, dim=-1, correction=0, keepdim=True)
        bases = [(x - mean) / (variance + 1e-5).sqrt()] * BLOCKS
    elif base == "position":
        bases = received_by_attention(
            untouched, torch.zeros(1, *z_lq.shape[1:]), torch.ones(1), prompt
        )
    else:
        bases = received_by_attention(untouched, z_lq, torch.zeros(BATCH), prompt)
    tokens, _ = network.branch(x, GRID)
    expected = keys_and_values(untouched, [b + c for b, c in zip(bases, tokens, strict=True)])
    for (key, value), block in zip(expected, network.condition(z_lq).blocks, strict=True):
        assert_close(block.key, key, rtol=1e-4, atol=1e-5)
        assert_close(block.value, value, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("base", ["position", "reference"])
def test_bases_depend_on_each_images_own_prompt(build, base):
    network, z_lq, prompts = build(base=base, zero_std=0.0), latents(), random_prompt(BATCH)
    together = network.condition(z_lq, prompts)
    for image in range(BATCH):
        alone = network.condition(
            z_lq[image : image + 1],
            Prompt(prompts.embeds[image : image + 1], prompts.pooled[image : image + 1]),
        )
        for a, b in zip(together.blocks, alone.blocks, strict=True):
            assert_close(a.key[image : image + 1], b.key, rtol=1e-4, atol=1e-5)
    assert (together.blocks[0].key[0] - together.blocks[0].key[1]).abs().max() > 1e-3


def routing_by_hand(router: nn.Module, x: Tensor, top_k: int) -> tuple[Tensor, Tensor]:
    gates = (x.mean(1) @ router.project.weight.T + router.project.bias).softmax(-1)
    kept = gates.topk(top_k)
    return torch.zeros_like(gates).scatter(1, kept.indices, kept.values), kept.indices


def test_routing_is_what_the_routers_decide(build, make_transformer):
    network, z_lq = build(), latents(4)
    condition = network.condition(z_lq)
    x = make_transformer().pos_embed(z_lq)
    for mim, routing in zip(network.branch.mims, condition.routing, strict=True):
        normed = nn.functional.layer_norm(mim.project(x), (8,), mim.norm.weight, mim.norm.bias)
        assert_close(routing.inter.weights, routing_by_hand(mim.router, normed, 4)[0])
        assert len(routing.intra) == 4
        for group, intra in zip(mim.groups, routing.intra, strict=True):
            weights, selected = routing_by_hand(group.router, normed, 2)
            assert_close(intra.weights, weights)
            assert torch.equal(intra.selected, selected)


# --- the velocity ---------------------------------------------------------------------------------


@pytest.mark.parametrize("fusion", ["concat", "concat_latent", "zero_gated"])
@pytest.mark.parametrize("base", ["zero", "reference"])
def test_a_condition_serves_every_step_exactly(build, fusion, base):
    network, z_lq = build(fusion=fusion, base=base), latents()
    if network.branch.gates is not None:
        nn.init.ones_(network.branch.gates)
    once = network.condition(z_lq)
    for x_t, t in (noisy(), noisy()):
        assert torch.equal(network(x_t, t, once), network(x_t, t, network.condition(z_lq)))


@pytest.mark.parametrize("base", ["zero", "embed", "position", "reference"])
@pytest.mark.parametrize("fusion", ["concat", "concat_latent", "zero_gated"])
def test_a_batch_of_four_is_four_batches_of_one(build, base, fusion):
    network, z_lq, (x_t, t) = build(base=base, fusion=fusion), latents(4), noisy(4)
    if network.branch.gates is not None:
        nn.init.ones_(network.branch.gates)
    together = network(x_t, t, network.condition(z_lq))
    alone = [
        network(x_t[i : i + 1], t[i : i + 1], network.condition(z_lq[i : i + 1])) for i in range(4)
    ]
    assert_close(together, torch.cat(alone), rtol=1e-4, atol=1e-5)
    assert (together - network(x_t, t, network.condition(z_lq.flip(0)))).abs().max() > 1e-3, (
        "the condition should matter here"
    )


def test_training_mode_changes_nothing(build):
    network, z_lq, (x_t, t) = build(), latents(), noisy()
    reference = network.eval()(x_t, t, network.condition(z_lq))
    assert torch.equal(network.train()(x_t, t, network.condition(z_lq)), reference)


def test_a_given_prompt_replaces_the_empty_one(build, make_transformer):
    network, (x_t, t), other = build(), noisy(), random_prompt(BATCH)
    assert torch.equal(network(x_t, t, None, other), bare(make_transformer(), x_t, t, other))


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_branch_that_restores_computes_in_the_backbones_precision(build, dtype, training):
    """In training the trainer's precision rules.

    Its weights stay, and so does what its routers compute in.
    """
    network = build().train(training)
    network.backbone.to(dtype)
    dtypes = []
    network.branch.mims[0].feed_forward[1].register_forward_hook(
        lambda _module, _inputs, output: dtypes.append(output.dtype)
    )
    condition = network.condition(latents())
    assert dtypes == [torch.float32 if training else dtype]
    assert {p.dtype for p in network.branch.parameters()} == {torch.float32}
    assert {r.logits.dtype for mim in condition.routing for r in (mim.inter, *mim.intra)} == {
        torch.float32
    }


@pytest.mark.parametrize("base", ["zero", "embed", "position", "reference"])
@pytest.mark.parametrize("fusion", ["concat", "concat_latent", "zero_gated"])
@pytest.mark.parametrize("branch_dtype", [torch.float32, torch.bfloat16])
def test_bfloat16_backbone(build, base, fusion, branch_dtype):
    """The prompt and the branch may stay float32 beside a bfloat16 backbone, or follow it."""
    network, z_lq, (x_t, t) = build(base=base, fusion=fusion), latents(), noisy()
    if network.branch.gates is not None:
        nn.init.ones_(network.branch.gates)
    reference = network(x_t, t, network.condition(z_lq))
    network.backbone.bfloat16()
    network.branch.to(branch_dtype)
    velocity = network(x_t, t, network.condition(z_lq))
    assert velocity.dtype == torch.float32
    assert (velocity - reference).abs().mean() < 0.1 * reference.abs().mean()
    velocity.square().mean().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in network.branch.parameters())


# --- what is trained ------------------------------------------------------------------------------


@pytest.mark.parametrize("fusion", ["concat", "concat_latent", "zero_gated"])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_only_the_branch_is_trained_and_all_of_it(build, make_transformer, fusion, checkpointing):
    network = build(fusion=fusion, intra=IntraConfig(3, 1)).train()
    if fusion == "zero_gated":
        nn.init.ones_(network.branch.gates)
    if checkpointing:
        network.backbone.enable_gradient_checkpointing()
    x_t, t = noisy()
    condition = network.condition(latents())
    network(x_t, t, condition).square().mean().backward()

    assert all(
        parameter.grad is None and not parameter.requires_grad
        for parameter in network.backbone.parameters()
    )
    # sub-experts that no image selected: their gradient is 0, not missing, since other processes
    # may have one
    idle = set()
    for block, routing in enumerate(condition.routing):
        for group, intra in enumerate(routing.intra):
            idle |= {
                f"mims.{block}.groups.{group}.experts.{e}."
                for e in range(3)
                if e not in intra.selected
            }
    assert idle
    for name, parameter in network.branch.named_parameters():
        if name.startswith(tuple(idle)):
            assert parameter.grad is not None and not parameter.grad.any(), name
        else:
            assert parameter.grad is not None and parameter.grad.abs().max() > 0, name

    torch.optim.SGD([p for p in network.parameters() if p.requires_grad], lr=1.0).step()
    for name, tensor in make_transformer().state_dict().items():
        assert torch.equal(network.backbone.state_dict()[name], tensor), name


def test_first_step_from_zero(build):
    """At the paper's start only the Zero Linears have gradients; after a step they pass them on."""
    network, (x_t, t), z_lq = build(zero_std=0.0), noisy(), latents()
    optimizer = torch.optim.SGD(network.branch.parameters(), lr=1.0)
    moved = []
    for _ in range(2):
        optimizer.zero_grad()
        network(x_t, t, network.condition(z_lq)).square().mean().backward()
        moved.append(
            {
                name
                for name, p in network.branch.named_parameters()
                if p.grad is not None and p.grad.any()
            }
        )
        optimizer.step()
    assert moved[0] == {
        name for name, _ in network.branch.named_parameters() if "zero_linear" in name
    }
    assert any("router" in name for name in moved[1]) and any(
        "experts" in name for name in moved[1]
    )


def test_gates_have_a_gradient_at_the_start(build):
    network, (x_t, t) = build(fusion="zero_gated"), noisy()
    network(x_t, t, network.condition(latents())).square().mean().backward()
    assert (network.branch.gates.grad != 0).all()


def test_train_leaves_the_backbone_in_evaluation_mode(build):
    network = build()
    for mode in (True, False, True):
        network.train(mode)
        assert all(module.training == mode for module in network.branch.modules())
        assert not any(module.training for module in network.backbone.modules())


# --- every setting --------------------------------------------------------------------------------

KNOBS = [  # the setting, its other value, and what it needs around it
    ("width", 16, {}),
    ("heads", 4, {"groups": ["spatial"]}),
    ("window", 3, {"groups": ["swin"]}),
    ("groups", ["spatial", "channel", "se", "swin"], {}),
    ("inter.router", "top1", {}),
    ("intra.experts", 4, {}),
    ("intra.top_k", 1, {}),
    ("intra.router", "dense", {}),
    ("intra.renormalise", True, {}),
    ("ff_ratio", 1.0, {}),
    ("se_reduction", 2, {"groups": ["se"]}),
    ("routers", "shared", {}),
    ("chained", True, {}),
    ("positions", False, {}),
    ("base", "embed", {}),
    ("base", "position", {}),
    ("base", "reference", {}),
    ("fusion", "zero_gated", {}),
    ("zero_std", 0.1, {}),
]


def test_the_list_of_settings_is_complete():
    parts = {"inter": InterConfig, "intra": IntraConfig}
    names = {field.name for field in fields(BranchConfig)} - set(parts)
    names |= {f"{part}.{field.name}" for part, kind in parts.items() for field in fields(kind)}
    assert {name for name, *_ in KNOBS} == names


@pytest.mark.parametrize(("name", "value", "around"), KNOBS, ids=str)
def test_every_setting_matters(build, name, value, around):
    """With all weights equal that both have, the velocity differs.

    It is the setting, not another random start.
    """
    ours = build(**around)
    part, _, leaf = name.rpartition(".")
    changes = (
        {part: replace(getattr(ours.branch.config, part), **{leaf: value})}
        if part
        else {name: value}
    )
    other = build(**around, **changes)
    mine = ours.branch.state_dict()
    with torch.no_grad():
        for key, tensor in other.branch.state_dict().items():
            if key in mine and mine[key].shape == tensor.shape and name != "zero_std":
                tensor.copy_(mine[key])
            elif name == "window" and key.endswith(
                "bias_table"
            ):  # of another size: without it only the window differs
                tensor.zero_()
                mine[key].zero_()
    z_lq, (x_t, t) = latents(), noisy()
    left, right = (network(x_t, t, network.condition(z_lq)) for network in (ours, other))
    assert (left - right).abs().max() > 1e-4 * left.abs().max()


# --- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "names"),
    [
        ((2, 4, 8, 8), ["(2, 4, 8, 8)", "16"]),
        ((2, 16, 8), ["(2, 16, 8)", "height"]),
        ((2, 16, 7, 8), ["7 x 8", "patch size 2"]),
        ((2, 16, 8, 9), ["8 x 9", "patch size 2"]),
        ((1, 16, 18, 4), ["9 x 2 tokens", "8 x 8", "smaller tiles"]),
        ((1, 16, 4, 18), ["2 x 9 tokens", "8 x 8", "smaller tiles"]),
    ],
)
def test_latents_of_another_shape_are_refused(build, shape, names):
    network, latent = build(), torch.zeros(shape)
    for attempt in (
        lambda: network.condition(latent),
        lambda: network(latent, torch.rand(shape[0]), None),
    ):
        with pytest.raises(ValueError) as error:
            attempt()
        for name in names:
            assert name in str(error.value)


@pytest.mark.parametrize("grid", [(1, 1), (1, 7), (5, 3), (8, 8)])
def test_any_grid(build, grid):
    network = build()
    x_t = torch.randn(1, 16, 2 * grid[0], 2 * grid[1])
    velocity = network(x_t, torch.rand(1), network.condition(torch.randn_like(x_t)))
    assert velocity.shape == x_t.shape and velocity.isfinite().all()
