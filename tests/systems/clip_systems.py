"""What the tests of DA-CLIP, AutoDIR and DiT4SR share: small networks, and numbers of our own.

    python tests/systems/clip_systems.py          writes tests/systems/own/NAME.safetensors anew

Each file holds what small networks made of inputs in float64 and the norm of their gradients. They
say that nothing has changed; the golden files of the authors' code say that it is right.
"""

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from unittest.mock import patch

HERE = Path(__file__).resolve().parent
for folder in (str(HERE.parents[1]), str(HERE)):
    if folder not in sys.path:
        sys.path.insert(0, folder)

import check_golden  # noqa: E402
import pytest  # noqa: E402
import torch  # noqa: E402
from diffusers import AutoencoderKL, SD3Transformer2DModel, UNet2DConditionModel  # noqa: E402
from filling import fill_network, picture  # noqa: E402
from safetensors import safe_open  # noqa: E402
from safetensors.torch import save_file  # noqa: E402
from torch import Tensor, nn  # noqa: E402
from transformers import CLIPConfig, CLIPModel  # noqa: E402

from lit_mimdit.models.condition import Prompt  # noqa: E402
from lit_mimdit.systems.autodir import sampler as autodir_sampler  # noqa: E402
from lit_mimdit.systems.autodir.network import (  # noqa: E402
    AutoDIRNetwork,
    Correction,
    CorrectionConfig,
)
from lit_mimdit.systems.daclip import objective as daclip_objective  # noqa: E402
from lit_mimdit.systems.daclip import sampler as daclip_sampler  # noqa: E402
from lit_mimdit.systems.daclip.clip import (  # noqa: E402
    DegradationCLIP,
    TextConfig,
    VisionConfig,
)
from lit_mimdit.systems.daclip.network import UNet, UNetConfig  # noqa: E402
from lit_mimdit.systems.dit4sr import objective as dit4sr_objective  # noqa: E402
from lit_mimdit.systems.dit4sr import sampler as dit4sr_sampler  # noqa: E402
from lit_mimdit.systems.dit4sr.network import ControlConfig, DiT4SRNetwork  # noqa: E402

SEED = 2026
Numbers = dict[str, Tensor]


def filled(network: nn.Module, gain: float = 1.0) -> nn.Module:
    """The network with the rule's weights, ready to restore."""
    return fill_network(network, SEED, gain=gain).eval()


def normal(name: str, *shape: int) -> Tensor:
    """Standard normal numbers that depend on the name alone, float64."""
    return torch.special.ndtri(picture(SEED, name, shape, 1e-6, 1 - 1e-6).double())


def daclip_unet(**changes) -> UNet:
    sizes = {"nf": 32, "ch_mult": (1, 2), "context_dim": 8} | changes
    return filled(UNet(UNetConfig(**sizes)))


def daclip_clip() -> DegradationCLIP:
    return filled(DegradationCLIP(8, VisionConfig(16, 3, 16, 8, 8), TextConfig(6, 32, 16, 2, 1)))


def autodir() -> AutoDIRNetwork:
    common = {"intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 1}
    end = {"eos_token_id": 49407, "bos_token_id": 49406, "pad_token_id": 49407}
    clip = CLIPModel(
        CLIPConfig(
            text_config=common | end | {"hidden_size": 8, "projection_dim": 8},
            vision_config=common
            | {"hidden_size": 8, "image_size": 16, "patch_size": 8, "projection_dim": 8},
            projection_dim=8,
        )
    )
    unet = UNet2DConditionModel(
        in_channels=8,
        block_out_channels=(32, 64),
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        layers_per_block=1,
        cross_attention_dim=8,
        attention_head_dim=8,
    )
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(32, 64),
        layers_per_block=1,
    )
    return filled(
        AutoDIRNetwork(unet, vae, clip, Correction(CorrectionConfig(6, 4, (1, 1), 1, (1, 1))))
    )


def sd3(**changes) -> SD3Transformer2DModel:
    sizes = {
        "sample_size": 16,
        "num_layers": 2,
        "attention_head_dim": 16,
        "num_attention_heads": 2,
        "joint_attention_dim": 12,
        "caption_projection_dim": 32,
        "pooled_projection_dim": 10,
        "pos_embed_max_size": 12,
        "dual_attention_layers": (0,),
        "qk_norm": "rms_norm",
    }
    return SD3Transformer2DModel(**sizes | changes)


def dit4sr(prompt: Prompt | None = None, **control) -> DiT4SRNetwork:
    return filled(DiT4SRNetwork(sd3(), ControlConfig(**control), prompt))


def prompt(name: str = "text") -> Prompt:
    return Prompt(normal(name, 1, 3, 12), normal(f"{name} pooled", 1, 10))


def daclip_numbers() -> Numbers:
    unet, clip = daclip_unet().double(), daclip_clip().double()
    image = picture(SEED, "clip", (2, 3, 16, 16), -1.0).double()
    content, degradation = clip.encode(image)
    mu, clean = (picture(SEED, name, (1, 3, 6, 7)).double() for name in ("lq", "clean"))
    contexts = degradation[:1].detach(), content[:1].detach()
    sde = daclip_objective.build_sde(sample_T=4)
    x = daclip_sampler.first_state(sde, mu, normal("first", 1, 3, 6, 7))
    noises = iter(normal("steps", 4, 1, 3, 6, 7))
    with torch.no_grad():
        states = list(
            daclip_sampler.trajectory(
                sde, lambda x, t: unet(x, mu, t, *contexts), mu, x, "posterior", noises
            )
        )
    t = torch.tensor([3])
    x_t = daclip_objective.marginal(sde, clean, mu, t, normal("noise", 1, 3, 6, 7))
    loss = daclip_objective.restoration_loss(
        sde, x_t, mu, t, unet(x_t, mu, sde.time[t], *contexts), clean
    )
    captions = clip.text(torch.tensor([[3, 9, 31, 0, 0, 0], [4, 31, 0, 0, 0, 0]]))
    control = daclip_objective.clip_loss(degradation, captions, clip.logit_scale.exp())
    return {
        "restored": states[-1],
        "contexts": torch.cat([content, degradation]),
        "losses": torch.stack([loss, control]),
        "gradients": torch.stack([_gradient(unet, loss), _gradient(clip, control)]),
    }


def autodir_numbers() -> Numbers:
    network = autodir().double()
    image = picture(SEED, "image", (1, 3, 16, 20), -1.0).double()

    def noises(number: int):
        return normal("first", 1, 4, 8, 10), iter(normal("steps", 2, 1, 4, 8, 10))

    with torch.no_grad():
        step = next(autodir_sampler.restore(network, image, noises, 2, 2.0, 1.5))
    return {
        "probabilities": step.probabilities,
        "context": step.context[:, :12],
        "decoded": step.decoded,
        "corrected": step.corrected,
    }


def dit4sr_numbers() -> Numbers:
    network = dit4sr().double()
    z_lq, clean = normal("lq", 1, 16, 6, 8), normal("clean", 1, 16, 6, 8)
    velocity = dit4sr_sampler.guided(network, z_lq, prompt(), prompt("negative"), 4.0, 6, 2)
    with torch.no_grad():
        states = dit4sr_sampler.trajectory(
            velocity, normal("first", 1, 16, 6, 8), dit4sr_sampler.sigmas(3)
        )
        restored = list(states)[-1]
    levels = dit4sr_objective.training_sigmas(torch.tensor([300]))
    z = dit4sr_objective.noisy(clean, normal("noise", 1, 16, 6, 8), levels)
    loss = dit4sr_objective.loss(z, network(z, levels, z_lq, prompt()), levels, clean)
    return {
        "restored": restored,
        "losses": loss[None],
        "gradients": _gradient(network, loss)[None],
    }


def _gradient(network: nn.Module, loss: Tensor) -> Tensor:
    """The L2 norm of the gradient of all trained parameters together."""
    trained = [value for value in network.parameters() if value.requires_grad]
    gradients = torch.autograd.grad(loss, trained, allow_unused=True)
    return sum(g.square().sum() for g in gradients if g is not None).sqrt()


CASES: dict[str, Callable[[], Numbers]] = {
    "daclip": daclip_numbers,
    "autodir": autodir_numbers,
    "dit4sr": dit4sr_numbers,
}


def own_path(name: str) -> Path:
    return HERE / "own" / f"{name}.safetensors"


# float32 parts within: the embedding of diffusers' time, and DiT4SR's output
def demand_own_numbers(name: str, tolerance: float = 1e-6) -> None:
    """AssertionError unless today's numbers are those of the file in the repository."""
    numbers = CASES[name]()
    with safe_open(own_path(name), "pt") as file:
        stored = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    assert numbers.keys() == stored.keys()
    for key, value in stored.items():
        largest = value.abs().max().item()
        difference = (numbers[key].detach() - value).abs().max().item()
        assert difference <= tolerance * largest, (key, difference)


def demand_authors_numbers(name: str, capsys) -> None:
    """AssertionError unless every number of ../shared/systems/NAME is recomputed; else skips."""
    path = check_golden.SHARED / name
    if not path.is_file():
        pytest.skip(f"{path} is not here, so nothing is compared with the authors' code")
    good = check_golden.check(path, quiet=True)
    assert good, capsys.readouterr().out


def official_keys(name: str) -> dict:
    """The content of ../shared/systems/NAME_keys.json; skips without it."""
    path = check_golden.SHARED / f"{name}_keys.json"
    if not path.is_file():
        pytest.skip(f"{path} is not here, so no official names are compared")
    return json.loads(path.read_text())


def hollow(shapes: dict[str, list[int]]) -> dict[str, Tensor]:
    """Tensors of these names and shapes without values."""
    return {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}


@contextmanager
def without_values() -> Iterator[None]:
    """Networks of any size are built on the meta device, without drawing values."""
    layers = nn.Linear, nn.modules.conv._ConvNd
    with ExitStack() as stack:
        for layer in layers:
            stack.enter_context(patch.object(layer, "reset_parameters", lambda self: None))
        stack.enter_context(torch.device("meta"))
        yield


def size(network: nn.Module) -> int:
    """How many values the parameters have."""
    return sum(value.numel() for value in network.parameters())


def main() -> None:
    torch.set_num_threads(1)
    (HERE / "own").mkdir(exist_ok=True)
    for name, make in CASES.items():
        save_file({k: v.detach().contiguous() for k, v in make().items()}, own_path(name))
        print(name, own_path(name).stat().st_size, "bytes")


if __name__ == "__main__":
    main()
