"""DA-CLIP's first stage: its controller learns words and captions, and the second takes it."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader

from lit_mimdit.data.pairs import collate
from lit_mimdit.estimate import simulate
from lit_mimdit.inference.system_class import state_of
from lit_mimdit.inference.system_file import load_system, save_system
from lit_mimdit.systems.daclip import DACLIP, objective
from lit_mimdit.systems.daclip.clip import DegradationCLIP, TextConfig, VisionConfig
from lit_mimdit.systems.daclip.controller import Texts, random_view, take_towers, word_of
from lit_mimdit.systems.daclip.network import UNetConfig
from lit_mimdit.systems.optim import OptimizerConfig, parameter_groups
from lit_mimdit.training.trainer import Trainer

SIZES = {
    "embed_dim": 8,
    "vision": VisionConfig(16, 2, 16, 8, 8),
    "text": TextConfig(24, 259, 16, 2, 1),
}
PUBLISHED = OptimizerConfig(
    3e-3, "adamw", (0.9, 0.98), weight_decay=0.05, decay_vectors=False, eps=1e-6
)
controller = partial(DACLIP, **SIZES, stage="controller", optimizer=PUBLISHED)


def batch(count: int = 4) -> list[dict]:
    images = torch.rand(count, 2, 3, 20, 24, generator=torch.Generator().manual_seed(1))
    kinds = ("01Blur", "05Noise", "08Haze", "10Rain")
    return [
        {"lq": lq, "gt": gt, "seed": 5 + i, "id": f"{kinds[i % 4]}/{i}", "dataset": ""}
        | {"degradation": kinds[i % 4]}
        for i, (lq, gt) in enumerate(images)
    ]


def fit(system: DACLIP, steps: int, **more) -> Trainer:
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    options = quiet | {"enable_checkpointing": False, "limit_val_batches": 0} | more
    trainer = Trainer(accelerator="cpu", max_steps=steps, max_epochs=-1, **options)
    trainer.fit(system, DataLoader(batch(), batch_size=4, collate_fn=collate))
    return trainer


def test_a_trained_controller_is_taken_by_the_second_stage(tmp_path):
    """Only the controller and the scale learn; the towers stay as they are."""
    system = controller()
    before = {name: value.clone() for name, value in state_of(system.network).items()}
    trainer = fit(system, 3)
    after = state_of(system.network)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed and all(n.startswith(("clip.control.", "clip.logit_scale")) for n in changed)
    assert any(".zero." in name for name in changed) and "clip.logit_scale" in changed
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    save_system(tmp_path / "controller.safetensors", load_system(tmp_path / "last.ckpt"))
    for name in ("last.ckpt", "controller.safetensors"):
        unet = UNetConfig(nf=32, ch_mult=(1, 2), context_dim=8)
        second = DACLIP(unet, **SIZES, controller=str(tmp_path / name))
        second.configure_model()
        taken = second.network.clip.state_dict()
        assert all(torch.equal(taken[n.removeprefix("clip.")], after[n]) for n in after)
        assert not any(p.requires_grad for p in second.network.clip.parameters())
    other = DACLIP(unet, **SIZES | {"text": TextConfig(8, 259, 16, 2, 1)})
    other.controller = str(tmp_path / "controller.safetensors")
    with pytest.raises(ValueError, match="controller.safetensors: does not fit the configured"):
        other.configure_model()


@torch.no_grad()
def test_the_loss_is_the_published_one(tmp_path):
    rows = [f"{sample['id']},a photograph {i}" for i, sample in enumerate(batch())]
    (tmp_path / "captions.csv").write_text("\n".join(["id,caption", *rows]))
    system = controller(captions=str(tmp_path / "captions.csv"))
    for parameter in system.network.clip.control.zero.parameters():
        parameter.normal_(std=0.1)
    data, net = collate(batch()), system.network.clip
    losses = system.losses(data)
    content, degradation = net.encode(random_view(data["lq"], 16, data["seed"]))
    texts = Texts(None, {s["id"]: f"a photograph {i}" for i, s in enumerate(batch())}, 24, 259)
    told = net.text(texts.captions(data["id"])), net.text(texts.words(data["degradation"]))
    expected = objective.controller_loss(content, degradation, *told, torch.tensor(1 / 0.07))
    torch.testing.assert_close(losses.total, expected)
    assert set(losses.terms) == {"caption", "word"} and losses.per_sample.shape == (4,)


@torch.no_grad()
def test_without_captions_the_clean_image_stands_for_its_own():
    system, data = controller(), collate(batch())
    net = system.network.clip
    content, _ = net.encode(random_view(data["lq"], 16, data["seed"]))
    clean = net.content(random_view(data["gt"], 16, data["seed"]))
    found = system.losses(data).terms["caption"].mean()
    torch.testing.assert_close(found, objective.clip_loss(content, clean, torch.tensor(1 / 0.07)))


def test_the_scale_stays_between_1_and_100():
    for start, end in ((-3.0, 0.0), (9.0, 4.6052)):
        system = controller()
        system.network.clip.logit_scale.data.fill_(start)
        fit(system, 1)
        assert system.network.clip.logit_scale.item() == pytest.approx(end, abs=1e-4)


def test_parts_of_a_batch_contrast_with_all_of_it():
    """As on two GPUs: each half looks for its partners among all."""
    images, texts, scale = torch.randn(6, 5), torch.randn(6, 5), torch.tensor(9.0)
    halves = [
        objective.clip_errors(images[part], texts[part], scale, images, texts, part.start)
        for part in (slice(0, 3), slice(3, 6))
    ]
    torch.testing.assert_close(torch.cat(halves), objective.clip_errors(images, texts, scale))
    logits = scale * F.normalize(images) @ F.normalize(texts).T
    by_hand = -(logits.log_softmax(1).diag() + logits.log_softmax(0).diag()) / 2
    torch.testing.assert_close(torch.cat(halves), by_hand)


def test_words_and_bytes():
    words = [word_of(n) for n in ("01Blur", "14Lowlight", "13Rain_Haze", "22Fog")]
    assert words == ["motion-blurry", "low-light", "rainy hazy", "fog"]
    texts = Texts(None, {"a": "ab"}, 6, 259)
    assert texts.captions(["a"]).tolist() == [[257, 98, 99, 258, 0, 0]]
    assert texts.words(["05Noise"]).tolist() == [[257, *(b + 1 for b in b"nois"), 258]]
    assert Texts(None, None, 6, 259).captions(["a"]) is None
    with pytest.raises(ValueError, match="no caption for 'b'"):
        texts.captions(["a", "b"])
    with pytest.raises(ValueError, match="vocab_size is 64: without model.clip"):
        Texts(None, None, 6, 64)
    with pytest.raises(ValueError, match="vocab_size is 258: .* which need 259"):
        Texts(None, None, 6, 258)


def test_tokens_of_a_published_tokenizer_are_padded_with_0(pipeline_folder):
    texts = Texts(str(pipeline_folder / "tokenizer"), {"a": "a clean photo of a cat"}, 77, 600)
    (row,) = texts.captions(["a"])
    end = int(row.argmax())
    assert 2 < end < 76 and (row[end + 1 :] == 0).all() and row.shape == (77,)
    with pytest.raises(ValueError, match="nowhere: no tokenizer of CLIP"):
        Texts(str(pipeline_folder / "nowhere"), None, 77, 600)


@torch.no_grad()
def test_towers_come_from_clip_and_the_controller_starts_as_its_copy(tmp_path):
    torch.manual_seed(3)
    released = DegradationCLIP(*SIZES.values()).clip
    released.save_pretrained(tmp_path / "clip")
    network = DegradationCLIP(*SIZES.values())
    image = torch.randn(2, 3, 16, 16)
    take_towers(network, str(tmp_path / "clip"))
    seen = released.visual_projection(released.vision_model(image).pooler_output)
    for embedding in network.encode(image):
        torch.testing.assert_close(embedding, seen)
    with pytest.raises(ValueError, match="its sizes are not those of embed_dim, vision and text"):
        take_towers(DegradationCLIP(4, *list(SIZES.values())[1:]), str(tmp_path / "clip"))
    with pytest.raises(ValueError, match="no CLIP of transformers can be read"):
        take_towers(network, str(tmp_path / "nowhere"))


def test_crops_are_large_and_the_same_for_both_versions():
    """A ramp from left to right and one downwards tell where a crop lies."""
    ramp = torch.linspace(0, 1, 101)
    image = torch.stack(
        [ramp.expand(101, -1), ramp[:, None].expand(-1, 101), 0 * ramp.expand(101, -1)]
    )
    seeds = torch.arange(40)
    views = random_view(image.expand(40, -1, -1, -1), 16, seeds)
    assert views.shape == (40, 3, 16, 16)
    assert torch.equal(views[7], random_view(image[None], 16, seeds[7:8])[0])
    left, right = views[:, 0, 8, 0], views[:, 0, 8, 15]
    assert len({round(value, 4) for value in left.tolist()}) > 8, "crops differ"
    for edge in (left, views[:, 1, 0, 8]):  # also in their place, not in their size alone
        assert edge.max() - edge.min() > 0.1
    whole = random_view(image[None, :, :1], 16, seeds[:1])[0, 0, 0]  # too narrow to crop
    assert ((right - left) > 0.85 * (whole[15] - whole[0])).all()


def test_matrices_alone_decay():
    system = controller()
    groups = {g["name"]: g for g in parameter_groups(system.trained.named_parameters(), PUBLISHED)}
    assert groups["rest, no decay"]["weight_decay"] == 0.0 and "weight_decay" not in groups["rest"]
    assert {p.ndim for p in groups["rest, no decay"]["params"]} == {0, 1}
    assert min(p.ndim for p in groups["rest"]["params"]) == 2
    (optimizer,) = fit(system, 1).optimizers
    assert [(g["weight_decay"], g["eps"]) for g in optimizer.param_groups] == [
        (g.get("weight_decay", 0.05), 1e-6) for g in groups.values()
    ]


def test_a_controller_restores_nothing_and_is_not_validated():
    system = controller()
    with pytest.raises(ValueError, match="restores nothing by itself; train the U-Net"):
        system.restorer()
    with pytest.raises(ValueError, match="set trainer.limit_val_batches to 0"):
        trainer = Trainer(accelerator="cpu", max_steps=1, logger=False, enable_checkpointing=False)
        loader = DataLoader(batch(), batch_size=4, collate_fn=collate)
        trainer.fit(system, loader, loader)
    with pytest.raises(ValueError, match="leave model.controller and model.train_controller out"):
        controller(train_controller=True)
    with pytest.raises(ValueError, match="DACLIP has no schedule of its own"):
        system.published_rate(0)


def test_its_step_is_estimated(tmp_path):
    for captions in (None, "captions.csv"):
        arguments = controller(captions=captions).arguments
        step = simulate(DACLIP, arguments, batch=3, crop=32, precision="32-true")
        assert step.activations > 0 and step.flops > 0
