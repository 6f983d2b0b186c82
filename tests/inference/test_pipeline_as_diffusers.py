"""The pipeline under the calls that diffusers' own pipelines take.

Types of images, precisions, offloading, callbacks, batches, saving and loading.
"""

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DiffusionPipeline, FlowMatchEulerDiscreteScheduler
from PIL import Image

from lit_mimdit.inference.corrector import Corrector
from lit_mimdit.inference.loading import load_restorer
from lit_mimdit.inference.pipeline import MiMDiTPipeline
from lit_mimdit.inference.pipeline_images import photo, photos, pictures, resize
from lit_mimdit.models.fidelity import Fidelity

RNG = np.random.default_rng(5)
PIXELS = RNG.integers(0, 256, (24, 32, 3), dtype=np.uint8)
GRAY = RNG.integers(0, 65536, (24, 32), dtype=np.uint16)
EXACT = torch.from_numpy(PIXELS).permute(2, 0, 1).float() / 255


@pytest.fixture(scope="module")
def folder(branch_file, tmp_path_factory) -> Path:
    """A pipeline with a fidelity network that does something."""
    restorer = load_restorer(branch_file, None, torch.device("cpu"))
    network = Fidelity((4, 4), 1)
    leave = network.correction.leave.weight
    torch.nn.init.normal_(leave, generator=torch.Generator().manual_seed(0))
    restorer.corrector = Corrector(network, 0.5)
    path = tmp_path_factory.mktemp("diffusers") / "new"
    MiMDiTPipeline.of(restorer).save_pretrained(path)
    return path


def load(folder: Path, **options) -> MiMDiTPipeline:
    pipeline = MiMDiTPipeline.from_pretrained(folder, **options)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.fixture(scope="module")
def pipeline(folder) -> MiMDiTPipeline:
    return load(folder)


@pytest.fixture(scope="module")
def expected(pipeline) -> torch.Tensor:
    return pipeline(PIXELS, output_type="pt").images[0]


def test_every_type_of_image_keeps_its_values_and_its_precision():
    for picture in (
        PIXELS,
        Image.fromarray(PIXELS),
        EXACT,
        EXACT.double(),
        torch.from_numpy(PIXELS).permute(2, 0, 1),
        (PIXELS * np.uint16(257)),
        torch.from_numpy(PIXELS * np.uint16(257)).permute(2, 0, 1),
        PIXELS.astype(np.float64) / 255,
        Image.fromarray(PIXELS).convert("RGBA"),
    ):
        torch.testing.assert_close(photo(picture), EXACT, rtol=0, atol=1e-6)
    torch.testing.assert_close(photo(EXACT.half()), EXACT, rtol=0, atol=1e-3)
    gray = torch.from_numpy(GRAY / 65535.0).float().expand(3, -1, -1)
    for picture in (
        Image.fromarray(GRAY),
        Image.fromarray((GRAY / 65535.0).astype(np.float32)),
        np.repeat(GRAY[..., None], 3, axis=2),
        np.repeat(GRAY[..., None], 3, axis=2).astype(">u2"),
    ):
        torch.testing.assert_close(photo(picture), gray, rtol=0, atol=1e-6)
    for mode in ("1", "L", "LA", "P", "CMYK", "YCbCr", "LAB", "HSV", "RGBX"):
        converted = Image.fromarray(PIXELS).convert(mode)
        rgb = np.asarray(converted.convert("RGB")).transpose(2, 0, 1) / np.float32(255)
        np.testing.assert_allclose(photo(converted).numpy(), rgb, atol=1e-6)
    assert photo(EXACT * 1.05).max() == 1.0  # what a resize overshoots


@pytest.mark.parametrize(
    ("picture", "message"),
    [
        (EXACT * 255, "holds values from 0 to 255: give values in"),
        (EXACT * 2 - 1, "holds values from -1 to 1"),
        (EXACT.masked_fill(EXACT > 0.9, torch.nan), "holds values from nan to nan"),
        ((EXACT * 255).int(), "holds int32"),
        (EXACT > 0.5, "holds bool"),
        (PIXELS.astype(np.int64), "holds int64"),
        (Image.fromarray(GRAY.astype(np.int32)), "has mode I, integers of 32 bits"),
        (Image.fromarray(GRAY.astype(np.float32)), "holds values from .* to 6.*: give"),
        ("photo.png", "image is a str"),
        (GRAY, r"has shape \(24, 32\)"),
        (EXACT[:, :0], r"has shape \(3, 0, 32\)"),
    ],
)
def test_an_image_of_unknown_meaning_is_refused_in_one_line(picture, message):
    with pytest.raises(ValueError, match=message) as error:
        photo(picture)
    assert "\n" not in str(error.value)


def test_batches_come_back_as_diffusers_gives_them(pipeline, expected):
    batch = np.stack([PIXELS, PIXELS[::-1]])
    found = pipeline(batch, output_type="pt").images
    assert found.shape == (2, 3, 24, 32)
    torch.testing.assert_close(found[0], expected, rtol=0, atol=1e-5)
    arrays = pipeline(torch.stack([EXACT, EXACT.flip(1)]), output_type="np", return_dict=False)[0]
    np.testing.assert_allclose(arrays, found.permute(0, 2, 3, 1).numpy(), atol=1e-5)
    assert [len(photos(some)) for some in (PIXELS, batch, [PIXELS, EXACT[:, :8]])] == [1, 2, 2]
    assert isinstance(pictures([EXACT, EXACT[:, :8]], "np"), list)
    with pytest.raises(ValueError, match="image is empty"):
        pipeline([])


def test_several_images_a_photograph_differ_and_repeat(pipeline, expected):
    found = pipeline(PIXELS, num_images_per_prompt=2, output_type="pt").images
    torch.testing.assert_close(found[0], expected, rtol=0, atol=1e-5)
    assert (found[1] - found[0]).abs().max() > 0.01
    seed = torch.Generator().manual_seed(3)
    again = pipeline(PIXELS, num_images_per_prompt=2, generator=seed, output_type="pt").images
    each = [torch.Generator().manual_seed(3)]
    (first,) = pipeline(PIXELS, generator=each, output_type="pt").images
    torch.testing.assert_close(again[0], first, rtol=0, atol=1e-5)
    with pytest.raises(ValueError, match="num_images_per_prompt is 0"):
        pipeline(PIXELS, num_images_per_prompt=0)


def test_height_and_width_resize_first(pipeline):
    found = pipeline(PIXELS, height=16, width=48, output_type="pt").images[0]
    assert found.shape == (3, 16, 48)
    small = resize(EXACT, 16, 48)
    torch.testing.assert_close(pipeline(small, output_type="pt").images[0], found)
    assert pipeline(PIXELS, width=40).images[0].size == (40, 24)
    assert resize(EXACT, 24, 32) is EXACT
    for sides in ((0, None), (None, 0), (-3, 8)):
        with pytest.raises(ValueError, match="both must be at least 1"):
            pipeline(PIXELS, height=sides[0], width=sides[1])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_at_loading_and_later(folder, expected, dtype):
    """The bound is three times what the two precisions were seen to cost here."""
    loaded, moved = load(folder, torch_dtype=dtype), load(folder).to(dtype)
    for pipeline in (loaded, moved):
        assert pipeline.transformer.dtype == pipeline.fidelity.dtype == dtype
        found = pipeline(PIXELS, output_type="pt").images[0]
        assert found.dtype == torch.float32
        assert (found - expected).abs().mean() < 0.05
    torch.testing.assert_close(
        loaded(PIXELS, output_type="pt").images[0], moved(PIXELS, output_type="pt").images[0]
    )


def test_each_component_may_have_its_own_precision(folder, expected):
    kinds = {"transformer": torch.bfloat16, "default": torch.float32}
    found = load(folder, torch_dtype=kinds)(PIXELS, output_type="pt").images[0]
    assert (found - expected).abs().mean() < 0.05
    kinds = {"vae": torch.float16, "fidelity": torch.float16, "default": torch.float32}
    found = load(folder, torch_dtype=kinds)(PIXELS, output_type="pt").images[0]
    assert (found - expected).abs().mean() < 0.05


def test_a_half_precision_fidelity_network_keeps_the_images_own_values():
    """With no difference to correct the restored image must come back, not in 8 bits."""
    network = Fidelity((4, 4), 1).to(torch.bfloat16)
    restored = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    found = network(restored, restored)
    torch.testing.assert_close(found, restored, rtol=0, atol=1e-6)


def test_diffusers_own_class_finds_the_pipeline_where_the_code_is_trusted(folder, expected):
    found = DiffusionPipeline.from_pretrained(folder, trust_remote_code=True)
    assert isinstance(found, MiMDiTPipeline)
    found.set_progress_bar_config(disable=True)
    torch.testing.assert_close(found(PIXELS, output_type="pt").images[0], expected)
    with pytest.raises(ValueError, match="trust_remote_code=True"):
        DiffusionPipeline.from_pretrained(folder)


def test_saved_again_it_loads_again(pipeline, folder, expected, tmp_path):
    pipeline.save_pretrained(tmp_path / "same", max_shard_size="20KB")
    again = load(tmp_path / "same")
    torch.testing.assert_close(again(PIXELS, output_type="pt").images[0], expected)
    assert (tmp_path / "same" / "pipeline.py").is_file()
    pipeline.save_pretrained(tmp_path / "variant", variant="fp16")
    assert list((tmp_path / "variant" / "branch").glob("*.fp16.safetensors"))
    found = load(tmp_path / "variant", variant="fp16")
    torch.testing.assert_close(found(PIXELS, output_type="pt").images[0], expected)
    with pytest.raises(ValueError, match="variant=bf16"):
        load(tmp_path / "variant", variant="bf16")
    bare = load(folder, fidelity=None)
    assert bare.fidelity is None
    bare.save_pretrained(tmp_path / "bare")
    assert load(tmp_path / "bare").fidelity is None


def test_from_pipe_shares_the_components(pipeline, expected):
    other = MiMDiTPipeline.from_pipe(pipeline)
    other.set_progress_bar_config(disable=True)
    assert other.transformer is pipeline.transformer
    assert other.config.sampling == pipeline.config.sampling
    torch.testing.assert_close(other(PIXELS, output_type="pt").images[0], expected)
    made = MiMDiTPipeline(**pipeline.components)
    assert made.branch is pipeline.branch
    assert set(pipeline.components) == {"transformer", "vae", "scheduler", "branch", "fidelity"}


def test_a_callback_sees_every_step_changes_latents_and_stops(pipeline, expected):
    seen = []

    def watch(pipe, step, timestep, given):
        seen.append((step, round(float(timestep), 3), tuple(given["latents"].shape)))
        return given

    found = pipeline(PIXELS, num_inference_steps=3, callback_on_step_end=watch, output_type="pt")
    plain = pipeline(PIXELS, num_inference_steps=3, output_type="pt").images
    torch.testing.assert_close(found.images, plain)
    assert [step for step, _, _ in seen] == [0, 1, 2] and pipeline.num_timesteps == 3
    assert seen[0][1] == 1000.0 and seen[2][1] > 0 and len(set(seen)) == 3

    def zeros(pipe, step, timestep, given):
        return {"latents": torch.zeros_like(given["latents"])} if step == 2 else None

    def stop(pipe, step, timestep, given):
        pipe._interrupt = step == 0
        seen.append(step)

    black = pipeline(PIXELS, num_inference_steps=3, callback_on_step_end=zeros, output_type="pt")
    assert (black.images - plain).abs().max() > 0.01
    seen.clear()
    cut = pipeline(PIXELS, num_inference_steps=3, callback_on_step_end=stop, output_type="pt")
    assert seen == [0] and (cut.images - plain).abs().max() > 0.01
    tiled = pipeline(
        np.tile(PIXELS, (2, 2, 1)), num_inference_steps=2, callback_on_step_end=watch, tile=32
    )
    assert tiled.images[0].size == (64, 48) and len(seen) == 3
    nothing = pipeline(
        PIXELS,
        callback_on_step_end=lambda pipe, step, timestep, given: seen.append(given),
        callback_on_step_end_tensor_inputs=[],
        output_type="pt",
    )
    assert seen[-1] == {} and torch.allclose(nothing.images[0], expected, atol=1e-5)
    with pytest.raises(ValueError, match="holds 'prompt_embeds': choose among latents"):
        pipeline(PIXELS, callback_on_step_end_tensor_inputs=["prompt_embeds"])


def test_offloading_wakes_what_is_used(folder, expected, monkeypatch):
    """On a CPU: the hooks report which models they woke, and in which order."""
    woken = []
    from accelerate.hooks import CpuOffload

    wake = CpuOffload.pre_forward

    def note(hook, module, *args, **kwargs):
        woken.append(type(module).__name__)
        return wake(hook, module, *args, **kwargs)

    monkeypatch.setattr(CpuOffload, "pre_forward", note)
    whole = load(folder)
    whole.enable_model_cpu_offload(device="cpu")
    torch.testing.assert_close(whole(PIXELS, output_type="pt").images[0], expected)
    assert woken[:2] == ["AutoencoderKL", "SD3Transformer2DModel"]
    torch.testing.assert_close(whole(PIXELS, output_type="pt").images[0], expected)
    grouped = load(folder)
    grouped.enable_group_offload(torch.device("cpu"))
    torch.testing.assert_close(grouped(PIXELS, output_type="pt").images[0], expected)
    with pytest.raises(ValueError, match="offload_type is 'block_level'"):
        grouped.enable_group_offload(torch.device("cpu"), offload_type="block_level")


def test_sequential_offloading_gives_the_same_image_and_is_refused_on_a_cpu(folder, expected):
    """diffusers' own loop over the components, on the CPU, where its method cannot be called."""
    from accelerate import cpu_offload

    pipeline = load(folder)
    for device in (None, "cpu", torch.device("cpu")):
        if device is None and torch.accelerator.is_available():
            continue
        with pytest.raises(ValueError, match="needs a GPU to compute on") as error:
            pipeline.enable_sequential_cpu_offload(device=device)
        assert "\n" not in str(error.value)
    for name in ("transformer", "vae"):
        model = getattr(pipeline, name)
        cpu_offload(model, torch.device("cpu"), offload_buffers=len(model._parameters) > 0)
    assert next(pipeline.transformer.parameters()).device.type == "meta"
    for _ in range(2):
        torch.testing.assert_close(pipeline(PIXELS, output_type="pt").images[0], expected)


def test_switches_of_memory_change_nothing(folder, expected):
    pipeline = load(folder)
    for switch in ("enable_attention_slicing", "disable_attention_slicing"):
        getattr(pipeline, switch)()
        torch.testing.assert_close(pipeline(PIXELS, output_type="pt").images[0], expected)
    pipeline.vae.enable_slicing()
    pipeline.vae.enable_tiling()
    pipeline.transformer.enable_layerwise_casting(
        storage_dtype=torch.bfloat16, compute_dtype=torch.float32
    )
    found = pipeline(PIXELS, output_type="pt").images[0]
    assert (found - expected).abs().mean() < 0.05


def test_another_scheduler_is_taken_or_refused(folder, expected):
    pipeline = load(folder)
    pipeline.scheduler = FlowMatchEulerDiscreteScheduler.from_config(
        pipeline.scheduler.config, shift=9.0
    )
    assert (pipeline(PIXELS, output_type="pt").images[0] - expected).abs().max() > 1e-3
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pipeline.scheduler = DDIMScheduler()
    with pytest.raises(ValueError, match="scheduler is a DDIMScheduler"):
        pipeline(PIXELS)


def test_what_a_diffusers_user_tries_and_has_no_meaning_is_named(pipeline):
    for option in ("prompt", "negative_prompt", "latents", "guidance_scale", "callback"):
        with pytest.raises(ValueError, match=f"{option} is no option: choose among"):
            pipeline(PIXELS, **{option: None})


@pytest.mark.parametrize("image", [None, "photo.jpg", Path("photo.jpg"), 3])
def test_what_is_no_picture_is_refused_in_one_line(image):
    with pytest.raises(ValueError, match=f"image is a {type(image).__name__}: give a PIL image"):
        photos(image)
