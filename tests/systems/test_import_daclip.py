"""DA-CLIP's two published files become one that restores; its loss is the published one."""

import json

import clip_systems as own
import pytest
import torch
from test_golden_daclip import clip_file, unet_file

from lit_mimdit.data.pairs import collate
from lit_mimdit.inference.loading import load_restorer
from lit_mimdit.systems.daclip import DACLIP, objective
from lit_mimdit.systems.daclip.clip import DegradationCLIP, TextConfig, VisionConfig
from lit_mimdit.systems.daclip.network import UNetConfig
from lit_mimdit.systems.daclip.sampler import clip_pixels, clip_view, first_state, trajectory
from lit_mimdit.systems.import_weights import import_weights
from lit_mimdit.systems.optim import OptimizerConfig, configure

HEADS = {"vision_cfg": {"head_width": 8}, "text_cfg": {"heads": 2}}
SIZES = {
    "unet": UNetConfig(nf=32, ch_mult=(1, 2), context_dim=8),
    "embed_dim": 8,
    "vision": VisionConfig(16, 3, 16, 8, 8),
    "text": TextConfig(6, 32, 16, 2, 1),
}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("daclip")
    torch.save({"state_dict": clip_file(own.daclip_clip()), "epoch": 4}, folder / "clip.pt")
    torch.save(unet_file(), folder / "unet.pth")
    return [folder / "clip.pt", folder / "unet.pth"]


@torch.no_grad()
def test_the_authors_files_restore_by_their_sampler(files, tmp_path):
    output, override = tmp_path / "daclip.safetensors", json.dumps(HEADS | {"steps": 4})
    import_weights("daclip", files[::-1], output=output, override=override)
    lq = torch.rand(1, 3, 9, 14, generator=torch.Generator().manual_seed(2))
    found, _ = load_restorer(output, device="cpu")(lq, torch.tensor([7]), ids=["a"])

    unet, clip, sde = own.daclip_unet(), own.daclip_clip(), objective.build_sde(sample_T=4)
    seen = (lq[0] * 255).round().byte().permute(1, 2, 0).numpy()
    content, degradation = clip.encode(clip_pixels(seen, 16)[None])
    draw = torch.Generator().manual_seed(7)
    noises = [torch.randn(lq.shape, generator=draw) for _ in range(5)]
    start = first_state(sde, lq, noises[0])

    def noise(x, t):
        return unet(x, lq, t, degradation, content)

    *_, expected = trajectory(sde, noise, lq, start, "posterior", iter(noises[1:]))
    torch.testing.assert_close(found, expected.clamp(0, 1), rtol=0, atol=1e-5)


def test_one_file_of_two_is_refused(files, tmp_path):
    with pytest.raises(ValueError, match="published as two files"):
        import_weights("daclip", files[1:], output=tmp_path / "x.safetensors")


def test_files_of_two_variants_are_refused_by_their_names():
    clip = own.filled(DegradationCLIP(512, SIZES["vision"], SIZES["text"]))
    wild = own.daclip_unet(context_dim=768, use_degra_context=False, scale=0.5)
    expected = r"of the universal variant with ViT-B/32 .* U-Net of the wild variant with ViT-L/14"
    with pytest.raises(ValueError, match=expected):
        DACLIP.from_official(wild.state_dict(), clip_file(clip), **HEADS)


def test_training_needs_a_controller_and_reads_it(files):
    with pytest.raises(ValueError, match=r"model\.controller is missing"):
        DACLIP(**SIZES).configure_optimizers()
    system = DACLIP(**SIZES, controller=str(files[0]))
    system.configure_model()
    expected = own.daclip_clip().state_dict()
    assert all(torch.equal(v, expected[k]) for k, v in system.network.clip.state_dict().items())
    assert not any(p.requires_grad for p in system.network.clip.parameters())
    other = SIZES | {"vision": VisionConfig(16, 2, 16, 8, 8)}
    with pytest.raises(ValueError, match=r"clip\.pt: its sizes are"):
        DACLIP(**other, controller=str(files[0])).configure_model()
    with pytest.raises(ValueError, match="context_dim is 8 and model.embed_dim 16"):
        DACLIP(**SIZES | {"embed_dim": 16})


def test_the_loss_of_the_system_is_the_published_one(files):
    system = DACLIP(**SIZES, controller=str(files[0]))
    system.configure_model()
    images = torch.rand(3, 2, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    about = {"degradation": "01Blur", "dataset": "", "id": "a"}
    batch = collate([{"lq": a, "gt": b, "seed": 5 + i} | about for i, (a, b) in enumerate(images)])
    losses = system.losses(batch)
    noise = torch.empty_like(batch["gt"])
    normal = torch.empty(3)
    for row, seed in enumerate((5, 6, 7)):
        draw = torch.Generator().manual_seed(seed)
        noise[row], normal[row] = (
            torch.randn(3, 16, 16, generator=draw),
            torch.randn((), generator=draw),
        )
    t, (mu, clean) = objective.draw_step(normal, 100), (batch["lq"], batch["gt"])
    content, degradation = system.network.clip.encode(clip_view(mu, 16))
    x_t = objective.marginal(system.sde, clean, mu, t, noise)
    predicted = system.network.unet(x_t, mu, t.float(), degradation, content)
    expected = objective.restoration_loss(system.sde, x_t, mu, t, predicted, clean)
    torch.testing.assert_close(losses.total, expected)


def test_steps_are_drawn_evenly():
    normal = torch.tensor([-9.0, -0.001, 0.001, 9.0])
    assert objective.draw_step(normal, 100).tolist() == [1, 50, 51, 100]


def test_the_rate_falls_from_the_first_iteration_to_the_last():
    rates = [objective.learning_rate(at) * 2e-4 for at in (0, 350_000, 700_000, 900_000)]
    assert rates == pytest.approx([2e-4, 1.005e-4, 1e-6, 1e-6])


@pytest.mark.parametrize(("changes", "last"), [({}, 700_000), ({"use_degra_context": False}, 5e5)])
def test_the_published_schedule_counts_steps(changes, last):
    """An optimizer of the recipe ends at 1e-6, at the variant's own length."""
    unet = UNetConfig(nf=32, ch_mult=(1, 2), context_dim=8, **changes)
    system = DACLIP(**SIZES | {"unet": unet})
    config = OptimizerConfig(name="adamw", lr=2e-4, schedule="published")
    rate, unit = system.published_rate, system._steps_per_epoch()
    made = configure(system.trained.named_parameters(), config, last, rate, unit)
    (factor,) = made["lr_scheduler"]["scheduler"].lr_lambdas
    rates = [2e-4 * factor(int(step)) for step in (0, last / 2, last)]
    assert rates == pytest.approx([2e-4, 1.005e-4, 1e-6])


@pytest.mark.parametrize("size", [(24, 24), (20, 33), (40, 17)])
def test_training_and_restoring_show_clip_the_same(size):
    coarse = torch.rand(1, 3, 5, 5, generator=torch.Generator().manual_seed(3))
    (image,) = torch.nn.functional.interpolate(coarse, size, mode="bilinear")
    image = (image * 255).round() / 255
    exact = clip_pixels((image * 255).round().byte().permute(1, 2, 0).numpy(), 16)
    # two grey levels: Pillow rounds after each axis
    assert (clip_view(image[None], 16)[0] - exact).abs().max() < 2 / 255 / 0.26
