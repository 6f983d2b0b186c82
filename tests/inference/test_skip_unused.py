"""Scenes whose light is sound: the branch is spared, and the picture is the same."""

import json
from copy import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lit_mimdit import cli
from lit_mimdit.data import photographs
from lit_mimdit.inference import corrector, latent_restorer
from lit_mimdit.inference.corrector import Corrector
from lit_mimdit.inference.loading import load_restorer
from lit_mimdit.inference.pipeline import MiMDiTPipeline


@pytest.fixture(scope="module")
def shipped():
    return load_restorer(fidelity="package")


@pytest.fixture(scope="module")
def scenes() -> torch.Tensor:
    """A photograph as it is, and in the dark, (2, 3, 104, 136)."""
    photo = torch.from_numpy(photographs.load("chelsea")[40:144, 100:236].copy())
    photo = photo.permute(2, 0, 1)[None] / 255
    return torch.cat([photo, 0.08 * photo])


def skipping(restorer):
    other = copy(restorer)
    other.skip_unused = True
    return other


def counted(restorer, monkeypatch) -> list[int]:
    """Returns a list that gets the number of images whenever something is sampled."""
    asked: list[int] = []
    sampled = type(restorer)._sampled

    def count(self, padded, *rest):
        asked.append(len(padded))
        return sampled(self, padded, *rest)

    monkeypatch.setattr(type(restorer), "_sampled", count)
    return asked


def test_only_the_dark_scene_is_sampled_and_both_come_out_the_same(shipped, scenes, monkeypatch):
    # else nothing of this scene's result depends on the noise, or has a spot
    monkeypatch.setattr(corrector, "QUIET", -1.0)
    monkeypatch.setattr(corrector, "LOUD", -0.5)
    monkeypatch.setattr(latent_restorer, "without_spots", lambda restored, lq: restored.sqrt())
    seeds = torch.tensor([0, 1])
    alone = [shipped(scenes[i : i + 1], seeds[i : i + 1]) for i in range(2)]
    asked, progress = counted(shipped, monkeypatch), []
    prepare, looks = Corrector.prepared, []
    monkeypatch.setattr(
        Corrector, "prepared", lambda self, lq: (looks.append(len(lq)), prepare(self, lq))[1]
    )
    restored, routing = skipping(shipped)(scenes, seeds, progress.append)
    assert asked == [1] and looks == [1, 1]  # no network looks twice
    for row, (expected, (decisions,)) in enumerate(alone):
        assert torch.equal(restored[row : row + 1], expected)
        assert len(decisions) == 6
        assert len(routing[row]) == (0 if row == 0 else 6)
    assert sum(progress) == 2 * shipped.evaluations(104, 136)
    assert (restored[1] - scenes[1]).mean() > 0.05  # it was lit: the branch counted


def test_what_counts_for_less_or_is_watched_is_sampled(shipped, scenes, monkeypatch):
    asked, seed = counted(shipped, monkeypatch), torch.tensor([0])
    half = skipping(shipped.corrected_by(Corrector(shipped.corrector.network, 0.5)))
    none = skipping(shipped.corrected_by(None))
    watched = skipping(shipped)
    watched.on_step = lambda step, time, latent: latent
    for number, one in enumerate((half, none, watched, shipped), start=1):
        assert len(one(scenes[:1], seed)[1][0]) == 6
        assert asked == [1] * number


def test_a_network_without_light_always_needs_the_branch(shipped, scenes, monkeypatch):
    network = copy(shipped.corrector.network)
    network._modules = network._modules | {"scene_light": None}
    asked = counted(shipped, monkeypatch)
    one = skipping(shipped.corrected_by(Corrector(network)))
    assert len(one(scenes[:1], torch.tensor([0]))[1][0]) == 6 and asked == [1]


def test_restore_spares_the_branch_unless_routing_is_asked_for(tmp_path, monkeypatch, scenes):
    monkeypatch.chdir(tmp_path)
    pixels = (scenes[0].permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
    Image.fromarray(pixels).save("cat.png")

    def weights(*options: str) -> tuple[list, bytes]:
        assert cli.main(["restore", "cat.png", "-o", "out", *options]) == 0
        record = json.loads(Path("out/restoration.json").read_text())
        return record["images"]["cat.png"], Path("out/cat.png").read_bytes()

    spared, picture = weights()
    assert spared == []
    told, same = weights("--routing", "true")  # it is no finished photograph for this call
    assert [len(row) for row in told] == [4] * 6 and same == picture


def test_restore_takes_the_size_that_is_sampled(tmp_path, monkeypatch, scenes):
    monkeypatch.chdir(tmp_path)
    dark = (scenes[1].permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
    Image.fromarray(dark).save("cat.png")
    made = {}
    for longest in (0, 64):
        out = f"out{longest}"
        options = ["--longest", str(longest), "--routing", "true"]
        assert cli.main(["restore", "cat.png", "-o", out, *options]) == 0
        record = json.loads(Path(out, "restoration.json").read_text())
        assert record["sampling"]["longest"] == longest
        made[longest] = record["images"]["cat.png"]
    assert made[0] != made[64]  # the routers saw another size


def test_the_pipeline_spares_it(shipped, scenes, monkeypatch):
    asked = counted(shipped, monkeypatch)
    pipeline = MiMDiTPipeline.of(shipped)
    pipeline.set_progress_bar_config(disable=True)
    restored = pipeline(scenes, output_type="pt").images
    assert asked == [1] and restored.shape == scenes.shape
