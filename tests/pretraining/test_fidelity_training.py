"""The fidelity network's training: triples cut alike, a file at the end."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from skimage.metrics import peak_signal_noise_ratio

from lit_mimdit.cli import main
from lit_mimdit.data.layouts import read_layout
from lit_mimdit.models.fidelity import Fidelity
from lit_mimdit.pretraining.fidelity import error_per_image, psnr
from lit_mimdit.pretraining.restored import RestoredImages


@pytest.fixture(scope="module")
def pairs(data_root):
    return read_layout("foundir", data_root, meta=data_root / "train.txt").pairs


@pytest.fixture(scope="module")
def restored(pairs, tmp_path_factory) -> Path:
    """In a restorer's place: the mean of LQ and GT, so that where a crop came from can be told."""
    folder = tmp_path_factory.mktemp("restored")
    for pair in pairs:
        lq, gt = (np.asarray(Image.open(path).convert("RGB"), np.uint16) for path in (pair.lq, pair.gt))
        Image.fromarray(np.uint8((lq + gt) // 2)).save(folder / f"{pair.lq.stem}.png")
    return folder


def test_the_three_images_are_cut_and_turned_alike(pairs, restored):
    data = RestoredImages(pairs, restored, crop=32, random=True, seed=0)
    samples = [data[(epoch, index)] for epoch in range(4) for index in range(len(pairs))]
    for sample in samples:
        mean = (sample["lq"] + sample["gt"]) / 2
        assert sample["restored"].shape == (3, 32, 32) and (sample["restored"] - mean).abs().max() < 0.5 / 255 + 1e-6
    assert not torch.equal(samples[0]["gt"], samples[len(pairs)]["gt"])  # other epochs, other crops
    assert torch.equal(data[(1, 0)]["gt"], samples[len(pairs)]["gt"])


def test_missing_restored_images_and_small_ones_are_named(pairs, restored, tmp_path):
    with pytest.raises(ValueError, match=f"{len(pairs)} pairs have no image in .*restore them all"):
        RestoredImages(pairs, tmp_path, 32, True, 0)
    with pytest.raises(ValueError, match="smaller than data.crop"):
        RestoredImages(pairs, restored, 64, True, 0)


def test_the_error_of_each_image_by_hand():
    reference = torch.zeros(2, 3, 2, 2)
    image = reference.clone()
    image[0, :, 0, 0] = 0.4  # one of four pixels; of two differences a direction, one is 0.4
    torch.testing.assert_close(error_per_image(image, reference, 0.5), torch.tensor([0.1 + 0.5 * (0.2 + 0.2), 0.0]))


def test_psnr_equals_scikit_image():
    a, b = torch.rand(2, 3, 8, 9), torch.rand(2, 3, 8, 9)
    expected = [peak_signal_noise_ratio(b[i].numpy(), a[i].numpy(), data_range=1.0) for i in range(2)]
    torch.testing.assert_close(psnr(a, b), torch.tensor(expected, dtype=torch.float32))


def test_fit_writes_the_averaged_network(data_root, restored, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    yaml = Path(__file__).parents[2] / "experiments" / "nano" / "fidelity.yaml"
    data = {"root": data_root, "val_root": data_root, "restored": restored, "val_restored": restored, "meta": "train.txt"}
    args = [word for key, value in data.items() for word in (f"--data.init_args.{key}", str(value))]
    args += ["--data.init_args.crop", "32", "--data.init_args.batch_size", "2"]
    args += ["--model.init_args.widths", "[4,4]", "--model.init_args.blocks", "1", "--trainer.val_check_interval", "2"]
    assert main(["fit", "-c", str(yaml), *args, "--trainer.max_steps", "4", "--model.init_args.output", "out/f.safetensors"]) == 0
    tensors = load_file(tmp_path / "out" / "f.safetensors")
    assert all(tensor.dtype == torch.float16 for tensor in tensors.values())
    assert any(tensor.abs().max() > 0 for name, tensor in tensors.items() if "leave" in name)
    Fidelity((4, 4), 1).load_state_dict(tensors)
