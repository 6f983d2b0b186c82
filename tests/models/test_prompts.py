"""Prompts.

The embeddings are those of diffusers' own pipeline, computed once, kept on disk, and given to the
right samples.
"""

import gc
import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusion3Pipeline
from transformers import CLIPTextModelWithProjection, T5EncoderModel

from lit_mimdit.inference.sampler import SamplingConfig
from lit_mimdit.models import encoders
from lit_mimdit.models.backbone import load_backbone
from lit_mimdit.models.branch_config import BranchConfig
from lit_mimdit.models.captions import read_captions
from lit_mimdit.models.prompts import PromptConfig, Prompts, texts_of
from lit_mimdit.systems.dit4sr import DiT4SR
from lit_mimdit.systems.mimdit import MiMDiT

CAT, RAIN = "a clean photo of a cat, high quality", "a street in the rain"


def load(folder: Path, dtype: torch.dtype = torch.float32, **config) -> Prompts:
    told = PromptConfig(**config)
    loaded = load_backbone(str(folder), dtype, texts=texts_of(told))
    return Prompts(told, str(folder), loaded.where, loaded.transformer, loaded.prompt)


def official(
    folder: Path, text: str, dtype: torch.dtype = torch.float32
) -> tuple[torch.Tensor, torch.Tensor]:
    pipeline = StableDiffusion3Pipeline.from_pretrained(folder, torch_dtype=dtype)
    with torch.no_grad():
        embeds, _, pooled, _ = pipeline.encode_prompt(
            text, None, None, do_classifier_free_guidance=False
        )
    return embeds, pooled


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("text", ["", CAT])
def test_an_embedding_is_the_official_pipelines(pipeline_folder, cache, text, dtype):
    embeds, pooled = official(pipeline_folder, text, dtype)
    for _ in ("computed", "read"):
        prompt = load(pipeline_folder, dtype, text=text).of()
        assert (
            torch.equal(prompt.embeds, embeds)
            and torch.equal(prompt.pooled, pooled)
            and prompt.embeds.dtype == dtype
        )
    assert embeds.shape == (1, 77 + 256, 32) and pooled.shape == (1, 12) and embeds.abs().sum() > 0


def test_it_is_computed_once_and_the_encoders_are_released(pipeline_folder, cache, monkeypatch):
    asked = []
    real = StableDiffusion3Pipeline.from_pretrained
    monkeypatch.setattr(
        StableDiffusion3Pipeline,
        "from_pretrained",
        lambda *a, **k: asked.append(a) or real(*a, **k),
    )
    gc.disable()  # so that no collection happens to be near
    try:
        first = load(pipeline_folder, text=CAT)
    finally:
        gc.enable()
    assert not [
        o for o in gc.get_objects() if isinstance(o, CLIPTextModelWithProjection | T5EncoderModel)
    ]
    assert len(asked) == 1, "the empty prompt and this one"
    second = load(pipeline_folder, text=CAT)
    assert len(asked) == 1 and torch.equal(first.of().embeds, second.of().embeds)
    load(pipeline_folder, text=RAIN)
    assert len(asked) == 2 and len(list((cache / "prompts").glob("*.safetensors"))) == 3
    monkeypatch.setenv("LIT_MIMDIT_CACHE", str(cache / "of the system"))  # without the empty one
    parts = BranchConfig(width=8, heads=2), SamplingConfig(tile=64, overlap=8)
    system = MiMDiT(str(pipeline_folder), *parts, prompt=PromptConfig("a system's own"))
    system.configure_model()
    assert len(asked) == 3


def test_a_system_with_a_negative_prompt_asks_for_it_too():
    sampling = SamplingConfig(tile=64, overlap=8, guidance=2.0)
    system = DiT4SR("nano", sampling, negative="blurred", prompt=PromptConfig(CAT))
    assert system.texts == [CAT, "blurred"]


def test_a_damaged_cache_is_computed_anew(pipeline_folder, cache):
    expected = load(pipeline_folder, text=CAT).of()
    for damage in (b"", b"not safetensors", "cut", "shape"):
        for file in (cache / "prompts").glob("*.safetensors"):
            if damage == "shape":
                from safetensors.torch import save_file

                save_file({"embeds": torch.zeros(1, 333, 31), "pooled": torch.zeros(1, 12)}, file)
            else:
                file.write_bytes(file.read_bytes()[:-9] if damage == "cut" else damage)
        found = load(pipeline_folder, text=CAT)
        assert torch.equal(found.of().embeds, expected.embeds), damage
        assert torch.equal(found.of().pooled, expected.pooled), damage
        assert found.empty.embeds.shape == (1, 333, 32), damage


def test_other_encoders_are_not_answered_from_the_cache(pipeline_folder, tmp_path, cache):
    """Same folder name, text and transformer; one weight of one encoder differs.

    And a copy elsewhere is the same encoder.
    """
    other = Path(shutil.copytree(pipeline_folder, tmp_path / "other"))
    assert encoders.encoder_identity(str(other)) == encoders.encoder_identity(str(pipeline_folder))
    before = load(other, text=CAT).of()
    file = next((other / "text_encoder_2").glob("*.safetensors"))
    data = bytearray(file.read_bytes())
    data[-300:-200] = bytes(100)
    file.write_bytes(bytes(data))
    assert encoders.encoder_identity(str(other)) != encoders.encoder_identity(str(pipeline_folder))
    after = load(other, text=CAT).of()
    assert not torch.equal(after.pooled, before.pooled)
    assert torch.equal(after.pooled, official(other, CAT)[1])


def test_large_files_of_weights_are_told_apart_by_blocks(tmp_path, monkeypatch):
    monkeypatch.setattr(encoders, "BLOCK", 4)
    (tmp_path / "text_encoder").mkdir()
    file = tmp_path / "text_encoder" / "model.safetensors"
    seen = set()
    for place in (0, 4999, 9999):
        file.write_bytes(bytes(1 if i == place else 0 for i in range(10000)))
        seen.add(encoders.encoder_identity(str(tmp_path)))
    file.write_bytes(bytes(10001))
    assert len(seen | {encoders.encoder_identity(str(tmp_path))}) >= 3, (
        "first and last bytes and the size count"
    )


def test_captions_reach_their_images(pipeline_folder, cache, tmp_path):
    file = tmp_path / "captions.csv"
    file.write_text(f'id,caption\n01Blur/0001,"{CAT}"\n05Noise/0002,{RAIN}\n', encoding="utf-8")
    prompts = load(pipeline_folder, text="haze", captions=str(file))
    found = prompts.of(["05Noise/0002", "unknown", "01Blur/0001"])
    for row, text in enumerate((RAIN, "haze", CAT)):
        embeds, pooled = official(pipeline_folder, text)
        assert torch.equal(found.embeds[row], embeds[0]) and torch.equal(
            found.pooled[row], pooled[0]
        )
    assert torch.equal(found.row(2).embeds, official(pipeline_folder, CAT)[0])
    assert torch.equal(prompts.of().embeds, official(pipeline_folder, "haze")[0])


def test_dropout_gives_the_empty_prompt_by_the_samples_seed(pipeline_folder, cache):
    prompts = load(pipeline_folder, text=CAT, dropout=0.25)
    seeds = torch.arange(400) * 1_000_003
    dropped = (prompts.of_training(["x"] * 400, seeds).pooled == prompts.empty.pooled).all(1)
    assert 70 < int(dropped.sum()) < 130, "400 x 0.25 = 100, four standard deviations are 35"
    one = prompts.of_training(["x"], seeds[:1])
    kept = prompts.of_training(["x", "x"], seeds[:2])
    assert torch.equal(one.embeds[0], kept.embeds[0]), (
        "a sample's draw does not depend on its neighbours"
    )
    never = load(pipeline_folder, text=CAT).of_training(["x"] * 400, seeds)
    assert len(never.embeds) == 1 and torch.equal(never.pooled, prompts.fixed.pooled)


def test_nano_has_its_empty_prompt_and_no_other(cache):
    prompts = load("nano")
    assert prompts.of().embeds.shape == (1, 4, 64)
    with pytest.raises(
        ValueError,
        match=(
            "backbone 'nano' has no text encoders for the prompt 'a cat': leave prompt.text empty"
        ),
    ):
        load("nano", text="a cat")


def test_a_backbone_that_has_neither_encoders_nor_an_empty_prompt(pipeline_folder, cache, tmp_path):
    folder = Path(shutil.copytree(pipeline_folder, tmp_path / "bare"))
    shutil.rmtree(folder / "text_encoder")
    with pytest.raises(ValueError, match="has no text encoders for the empty prompt"):
        load(folder)


def test_encoders_of_another_transformer_are_refused(
    pipeline_folder, make_transformer, cache, tmp_path
):
    folder = Path(shutil.copytree(pipeline_folder, tmp_path / "mixed"))
    shutil.rmtree(folder / "transformer")
    make_transformer(joint_attention_dim=40, pooled_projection_dim=12).save_pretrained(
        folder / "transformer"
    )
    with pytest.raises(
        ValueError,
        match=r"give embeddings of \(1, 333, 32\) and \(1, 12\), which do not fit its transformer",
    ):
        load(folder)
    assert not list(cache.rglob("*.safetensors"))


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_a_cache_that_cannot_be_written(pipeline_folder, cache):
    cache.mkdir()
    cache.chmod(0o500)
    with pytest.raises(ValueError, match="set LIT_MIMDIT_CACHE"):
        load(pipeline_folder)


def test_a_cache_in_the_way_of_a_file_is_named(pipeline_folder, cache):
    cache.write_text("a file")
    with pytest.raises(OSError, match="cache"):
        load(pipeline_folder)


def test_captions_as_json_lines(tmp_path):
    file = tmp_path / "captions.jsonl"
    rows = [{"id": "a/1", "caption": "two\nlines, ünd more"}, {"id": "b", "caption": ""}]
    file.write_text("\n".join(json.dumps(row) for row in rows) + "\n\n", encoding="utf-8")
    assert read_captions(file) == {"a/1": "two\nlines, ünd more", "b": ""}


@pytest.mark.parametrize(
    "name, content, message",
    [
        ("c.txt", "id,caption\n", "give a .csv with the columns id and caption, or a .jsonl"),
        ("c.csv", None, "cannot be read .No such file"),
        (
            "c.csv",
            "name,text\na,b\n",
            "its first line is 'name,text'; the columns id and caption are needed",
        ),
        ("c.csv", "", "its first line is ''"),
        ("c.csv", "id,caption\n", "no captions in it"),
        ("c.csv", "id,caption\na,b\na,c\n", "line 3: a second caption for 'a'"),
        ("c.csv", "id,caption\na\n", "line 2: an id and a caption are needed"),
        ("c.jsonl", '{"id": "a", "caption": "b"}\n{"id": ', "line 2: not JSON"),
        (
            "c.jsonl",
            '{"id": "a", "caption": 3}\n',
            "line 1: an id and a caption are needed, both text",
        ),
        ("c.jsonl", "[1]\n", "line 1: an id and a caption"),
    ],
)
def test_what_is_wrong_with_captions_is_one_line(tmp_path, name, content, message):
    file = tmp_path / name
    if content is not None:
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError, match=message) as raised:
        read_captions(file)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"dropout": 1.0, "text": "a"}, "prompt.dropout is 1.0"),
        ({"dropout": 0.1}, "all prompts are empty"),
    ],
)
def test_impossible_settings_are_named(wrong, message):
    with pytest.raises(ValueError, match=message):
        PromptConfig(**wrong)
