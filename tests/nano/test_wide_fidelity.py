"""Batches under wide degradations, and the training of the fidelity network on them."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from lit_mimdit.data import photographs
from lit_mimdit.data.wide_photos import WideBatches, WidePhotos
from lit_mimdit.inference.corrector import load_corrector
from lit_mimdit.inference.fidelity_file import save_fidelity
from lit_mimdit.models.fidelity import Fidelity, deblurred
from lit_mimdit.nano.wide_fidelity import WideFidelity
from lit_mimdit.systems.optim import OptimizerConfig


@pytest.fixture(scope="module")
def levels():
    return [photographs.load("astronaut")[:200, :300]]


def test_a_batch_is_a_function_of_its_place(levels):
    batches = WideBatches(levels, 32, 4, 3, seed=5)
    first, again, other = batches[1], batches[1], batches[2]
    assert torch.equal(first["lq"], again["lq"]) and not torch.equal(first["lq"], other["lq"])
    batches.epoch = 1
    assert not torch.equal(first["lq"], batches[1]["lq"])
    for name in ("lq", "gt"):
        assert first[name].shape == (4, 3, 32, 32) and first[name].dtype == torch.float32
        assert first[name].min() >= 0 and first[name].max() <= 1
    with pytest.raises(IndexError):
        batches[3]


def test_kinds_come_in_turn_from_weak_to_strong(levels):
    batches = WideBatches(levels, 32, 8, 4, seed=0, kinds=["noise", "clean"])
    noisy, clean = batches[0], batches[1]
    assert noisy["kind"] == "noise" and clean["kind"] == "clean"
    assert torch.equal(clean["lq"], clean["gt"])
    apart = (noisy["lq"] - noisy["gt"]).square().mean((1, 2, 3))
    assert apart[4:].mean() > 4 * apart[:4].mean() > 0


def test_the_crop_lies_in_the_photograph(levels):
    clean = WideBatches(levels, 32, 1, 1, seed=3, kinds=["clean"])[0]["gt"][0]
    crop = (clean.permute(1, 2, 0) * 255).round().byte().numpy()
    shapes = [np.rot90(x, k) for x in (crop, crop[:, ::-1]) for k in range(4)]
    windows = np.lib.stride_tricks.sliding_window_view(levels[0], (32, 32, 3))[:, :, 0]
    assert any((windows[..., 0, 0, :] == s[0, 0]).all(-1).any() for s in shapes)
    found = False
    for s in shapes:
        for y, x in np.argwhere((windows[..., 0, 0, :] == s[0, 0]).all(-1)):
            found = found or np.array_equal(windows[y, x], s)
    assert found


def test_brightened_crops_lose_what_exceeds_white(levels):
    plain, bright = (
        WideBatches(levels, 32, 64, 1, seed=3, kinds=["clean"], brighten=share)[0]["gt"]
        for share in (0.0, 1.0)
    )
    assert bright.mean() > 1.3 * plain.mean()
    assert (bright == 1).float().mean() > 5 * (plain == 1).float().mean() + 0.05
    assert torch.equal(plain, WideBatches(levels, 32, 64, 1, seed=3, kinds=["clean"])[0]["gt"]), (
        "seeds of older runs stay"
    )


def test_softened_crops_lose_their_finest_detail(levels, tmp_path):
    """The light of the scene stays."""
    plain, soft = (
        WideBatches(levels, 32, 64, 1, seed=3, kinds=["clean"], soften=share)[0]["gt"]
        for share in (0.0, 1.0)
    )
    assert soft.diff(dim=-1).abs().mean() < 0.8 * plain.diff(dim=-1).abs().mean()
    assert abs(soft[0].mean() - plain[0].mean()) < 0.01, "the first crop is the same"
    Image.fromarray(levels[0]).save(tmp_path / "a.png")
    details = []
    for share in (0.0, 1.0):
        data = WidePhotos(str(tmp_path), str(tmp_path), crop=32, batch_size=64, soften=share)
        data.setup("fit")
        details.append(data.train[0]["gt"].diff(dim=-1).abs().mean())
    assert details[1] < 0.8 * details[0], "the setting is read"


def test_settings_are_checked():
    with pytest.raises(ValueError, match=r"data\.dim is 2"):
        WidePhotos("a", "b", dim=2)
    with pytest.raises(ValueError, match=r"data\.soften is -0\.1"):
        WidePhotos("a", "b", soften=-0.1)
    with pytest.raises(ValueError, match=r"data\.crop is 0"):
        WidePhotos("a", "b", crop=0)
    with pytest.raises(ValueError, match=r"data\.workers is -1"):
        WidePhotos("a", "b", workers=-1)


@pytest.mark.usefixtures("processes")
def test_any_number_of_workers_gives_the_same_batches(tmp_path):
    """Training batches of two epochs, which differ, and those of validation."""
    Image.fromarray(photographs.load("chelsea")[:100, :120]).save(tmp_path / "a.png")
    lists = []
    for workers in (0, 2):
        data = WidePhotos(
            str(tmp_path), str(tmp_path), 32, 2, batches=3, val_batches=1, workers=workers
        )
        data.trainer = SimpleNamespace(current_epoch=0)
        data.setup("fit")
        batches = list(data.val_dataloader())
        for data.trainer.current_epoch in (0, 1):
            loader = data.train_dataloader()
            assert loader.num_workers == workers
            batches += loader
        lists.append(batches)
    alone, shared = lists
    assert len(alone) == len(shared) == 7 + 2 * 3
    assert not torch.equal(alone[-1]["lq"], alone[-4]["lq"])
    for one, other in zip(alone, shared, strict=True):
        assert one["kind"] == other["kind"]
        assert torch.equal(one["lq"], other["lq"]) and torch.equal(one["gt"], other["gt"])


def module(tmp_path, **settings):
    torch.manual_seed(0)
    return WideFidelity(
        optimizer=OptimizerConfig(lr=2e-3),
        output=str(tmp_path / "network.safetensors"),
        widths=(8, 8),
        blocks=1,
        **settings,
    )


@pytest.mark.parametrize("smooth", [0.0, 0.02])
@pytest.mark.parametrize("kind", ["relative", "l1", "log"])
def test_loss(tmp_path, kind, smooth, levels):
    """Each loss against its formula, on a network that does nothing yet: there e = e_lq."""
    training = module(tmp_path, kind=kind, floor=0.1, gradient_weight=0.5, smooth=smooth)
    training.log = lambda *_, **__: None
    batch = WideBatches(levels, 32, 4, 1, seed=1)[0]
    d = (batch["lq"] - batch["gt"]).double().numpy()
    parts = [(d, 1.0), (np.diff(d, axis=3), 0.5), (np.diff(d, axis=2), 0.5)]
    e = torch.from_numpy(sum(w * (np.hypot(p, smooth) - smooth).mean((1, 2, 3)) for p, w in parts))
    expected = {"relative": e / (e + 0.1), "l1": e, "log": torch.log(e + 0.1)}[kind].mean()
    assert training.training_step(batch, 0).item() == pytest.approx(expected.item(), rel=1e-4)


def test_small_errors_count_by_their_square(tmp_path):
    training, zero = module(tmp_path, smooth=0.02), torch.zeros(1, 3, 8, 8)
    small, twice, large = (training.error(zero + d, zero).item() for d in (1e-3, 2e-3, 0.5))
    assert twice == pytest.approx(4 * small, rel=0.02)
    assert large == pytest.approx(0.5 - 0.02, abs=1e-3)


def test_a_linear_part_beside_the_logarithm(tmp_path, levels):
    batch = WideBatches(levels, 32, 4, 1, seed=1)[0]
    losses = []
    for linear in (0.0, 3.0):
        training = module(tmp_path, kind="log", linear=linear)
        training.log = lambda *_, **__: None
        losses.append(training.training_step(batch, 0).item())
    e = training.error(batch["lq"], batch["gt"]).mean().item()
    assert losses[1] - losses[0] == pytest.approx(3 * e, rel=1e-3)
    for wrong in ({"kind": "log", "linear": -1}, {"kind": "l1", "linear": 1}):
        with pytest.raises(ValueError, match=r"model\.linear is .* with model\.kind log"):
            module(tmp_path, **wrong)


def test_floor_must_be_positive(tmp_path):
    with pytest.raises(ValueError, match=r"model\.floor is 0"):
        module(tmp_path, floor=0)


def test_gains_multiply_the_degraded_image():
    network = Fidelity((8, 8), 1, gain=True)
    with torch.no_grad():
        bias = network.correction.leave.bias.view(8, 4)
        bias[5:] = 0.5  # g
        bias[2:5] = 0.25  # r
    x = torch.rand(1, 3, 16, 16)
    torch.testing.assert_close(network(x, x), 1.5 * x + 0.25)
    assert Fidelity((8, 8), 1).correction.leave.bias.numel() == 5 * 4


def test_training_writes_what_restore_reads(two_epochs, tmp_path):
    for split in ("train", "val"):
        (tmp_path / split).mkdir()
        Image.fromarray(photographs.load("chelsea")[:160, :160]).save(tmp_path / split / "a.png")
    data = WidePhotos(
        str(tmp_path / "train"), str(tmp_path / "val"), 32, 4, batches=3, val_batches=1
    )
    training = module(tmp_path)
    trainer = two_epochs(training, data)
    assert {"val/clean", "val/haze"} <= trainer.callback_metrics.keys()
    corrector = load_corrector(str(tmp_path / "network.safetensors"))
    assert corrector.network.gain
    x = torch.rand(1, 3, 40, 48)
    torch.testing.assert_close(
        corrector(x, x), training.network(x, x).clamp(0, 1), atol=5e-3, rtol=0
    )


def test_cleaner_and_deblurrer_stay_as_they_are(two_epochs, tmp_path):
    first = {}
    for name, deviation in (("cleaner", 0.1), ("deblurrer", 0.6)):
        first[name] = Fidelity((4, 8), 1)
        torch.nn.init.normal_(first[name].correction.leave.weight, std=deviation)
        save_fidelity(tmp_path / f"{name}.safetensors", first[name])
    training = module(tmp_path, **{name: str(tmp_path / f"{name}.safetensors") for name in first})
    for split in ("train", "val"):
        (tmp_path / split).mkdir()
        Image.fromarray(photographs.load("chelsea")[:160, :160]).save(tmp_path / split / "a.png")
    folders = str(tmp_path / "train"), str(tmp_path / "val")
    two_epochs(training, WidePhotos(*folders, 32, 4, batches=3, val_batches=1))
    written = load_corrector(str(tmp_path / "network.safetensors")).network
    x = torch.rand(1, 3, 16, 16)
    clean = first["cleaner"](x, x)
    sharp = deblurred(first["deblurrer"](clean, clean), clean)
    assert min((clean - x).abs().max(), (sharp - clean).abs().max()) > 0.01
    torch.testing.assert_close(written.cleaned(x), sharp, atol=4e-3, rtol=0)
    assert written.correction.leave.bias.abs().max() > 0
    for name in first:
        with pytest.raises(
            ValueError, match=rf"model\.{name} .* has a cleaner or deblurrer itself"
        ):
            module(tmp_path, **{name: str(tmp_path / "network.safetensors")})


def test_kinds_that_the_clean_image_keeps(levels):
    shares = {"rain": 1.0, "haze": 1.0}
    plain = WideBatches(levels, 32, 40, 1, seed=3, shares=shares)[0]
    kept = WideBatches(levels, 32, 40, 1, seed=3, shares=shares, kept=["haze"])[0]
    changed = (plain["lq"] - plain["gt"]).abs().amax((1, 2, 3)) > 0
    still = (kept["lq"] - kept["gt"]).abs().amax((1, 2, 3)) > 0
    moved = (kept["gt"] - plain["gt"]).abs().amax((1, 2, 3)) > 0
    assert (still < changed).any()  # haze alone is nothing to take away
    assert moved.any() and not moved.all()
    only = WideBatches(levels, 32, 40, 1, seed=3, shares={"jpeg": 1.0}, kept=["jpeg"])[0]
    assert torch.equal(only["lq"], only["gt"])


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"shares": {"fog": 1.0}}, r"data\.shares has 'fog': the kinds are blur, noise"),
        ({"kept": ["fog"]}, r"data\.kept has 'fog'"),
        ({"shares": {"rain": 0.0}}, r"data\.shares is .* not all of them 0"),
        ({"shares": {"rain": -1.0, "haze": 1.0}}, r"data\.shares is .* 0 or more"),
    ],
)
def test_wrong_kinds_are_named(wrong, message):
    with pytest.raises(ValueError, match=message):
        WidePhotos("a", "b", **wrong)


def test_the_finished_weights_are_blended_with_the_start(two_epochs, tmp_path):
    start = Fidelity((8, 8), 1)
    torch.nn.init.normal_(start.correction.leave.weight, std=0.1)
    save_fidelity(tmp_path / "start.safetensors", start)
    for split in ("train", "val"):
        (tmp_path / split).mkdir()
        Image.fromarray(photographs.load("chelsea")[:160, :160]).save(tmp_path / split / "a.png")
    folders = str(tmp_path / "train"), str(tmp_path / "val")
    written = {}
    for blend in (0.25, 1.0):
        training = module(
            tmp_path, gain=False, init=str(tmp_path / "start.safetensors"), blend=blend
        )
        two_epochs(training, WidePhotos(*folders, 32, 4, batches=3, val_batches=1))
        network = load_corrector(str(tmp_path / "network.safetensors")).network
        written[blend] = network.correction.leave.weight
    first = start.correction.leave.weight
    assert (written[1.0] - first).abs().max() > 5e-3
    torch.testing.assert_close(written[0.25], first.lerp(written[1.0], 0.25), atol=5e-4, rtol=0)
    for wrong in ({"blend": 0.0}, {"blend": 0.5}):
        with pytest.raises(ValueError, match=r"model\.blend is .* and model\.init None"):
            module(tmp_path, **wrong)
