"""`python -m lit_mimdit restore`: photographs of any size, in files or folders."""

from contextlib import nullcontext
from pathlib import Path
from typing import Any, Literal

from lit_mimdit.data.image_file import allowed_megapixels
from lit_mimdit.inference.corrector import choose_fidelity
from lit_mimdit.inference.loading import load_restorer
from lit_mimdit.inference.plan import plan, require_free
from lit_mimdit.inference.restore_files import carry_out
from lit_mimdit.inference.run_record import describe_run
from lit_mimdit.inference.system_file import PACKAGE, system_path


def restore(
    inputs: list[Path],
    *,
    output: Path,
    checkpoint: Path | None = None,
    backbone: str | None = None,
    steps: int | None = None,
    solver: Literal["euler", "heun", "dpmpp_2m", "unipc"] | None = None,
    start: Literal["noise", "lq"] | None = None,
    strength: float | None = None,
    tile: int | None = None,
    overlap: int | None = None,
    tile_batch: int | None = None,
    overview: int | None = None,
    overview_samples: int | None = None,
    longest: int | None = None,
    prompt: str | None = None,
    captions: Path | None = None,
    guidance: float | None = None,
    colour: Literal["none", "adain", "wavelet"] | None = None,
    condition_gb: float | None = None,
    dtype: Literal["auto", "float32", "bfloat16"] = "auto",
    backbone_quantize: str | None = None,
    fidelity: str = "auto",
    fidelity_weight: float = 1.0,
    compile: bool = False,
    offload: Literal["model", "sequential"] | None = None,
    vae: str | None = None,
    inter: str | None = None,
    intra: str | None = None,
    routing: bool = False,
    seed: int = 0,
    device: str = "auto",
    trust: bool = False,
    overwrite: bool = False,
    strip_metadata: bool = False,
    max_megapixels: float | None = None,
) -> int:
    """Restore photographs: any aspect ratio, grayscale, RGBA, 16-bit, EXIF-rotated; the output has
    the input's size.

    Without --checkpoint the branch and backbone that come with the package are used. Content
    decides what is a photograph, not the name. Whatever is left out of a folder is named on stderr
    with its reason. Of animations and files of several pages the first is restored. Colours
    that a profile, PNG chunks, a video code or EXIF state are converted: the output is sRGB then,
    with an sRGB profile. A second call with the same settings skips finished photographs; an
    interrupted one goes on.

    Args:
        inputs: Photographs, or folders of them.
        output: File or folder to write. A file takes one photograph and ends in .png, .jpg, .tif or
            .webp. A folder gets PNG files of the same names, and restoration.json, which says how
            they were made.
        checkpoint: File of an exported system or a training checkpoint, or repository on the hub.
            Name a repository as OWNER/NAME or OWNER/NAME@REVISION; a file of that name is taken
            first. `package` is the branch that comes with the package.
        backbone: Folder or hub id of the backbone, if it is not where it was in training.
        steps: Solver steps. More is slower and more detailed.
        solver: How steps are taken. `euler` is the paper's, of first order. `unipc`, `dpmpp_2m` and
            `heun` are of second order. `heun` evaluates the network twice a step, the others once.
        start: What restoring starts from: `noise`, or `lq`, the degraded image at time --strength.
        strength: Time in (0, 1] at which the start `lq` begins.
        tile: Side of the tiles that large photographs are cut into, pixels.
        overlap: Pixels that neighbouring tiles share.
        tile_batch: Tiles computed at once.
        overview: Longer side, in pixels, of a small copy of a large photograph. It tells the tiles
            light and colours. 0 does without.
        overview_samples: How often the small copy is restored, each time from other noise. Light
            and colours are those of the mean. A photograph that is no larger is its own copy.
        longest: Longer side, in pixels, to which a larger photograph is reduced before it is
            sampled. The fidelity network then brings its detail back, so without that network, or
            at a weight below 1, nothing is reduced. 0 never reduces.
        prompt: What the backbone is told about the photographs; the prompt of training unless
            given. Needs a backbone with text encoders.
        captions: File with a caption for each photograph: .csv with the columns id and caption, or
            .jsonl. The id is the path below the input folder without its ending.
        guidance: More than 1 follows the prompt further than the network would by itself, at twice
            the cost. 1 does without.
        colour: `adain` or `wavelet` bring the colours back to the input's. Do not use them for dark
            or hazy photographs.
        condition_gb: GiB that the kept keys and values of a large photograph's tiles may take. Less
            is slower; the picture is the same.
        dtype: Precision of the backbone and VAE. `auto` is that of training. On a processor that
            has instructions for bfloat16, it takes that in the place of float32.
        backbone_quantize: Keep the backbone and the large text encoder in fewer bits: `nf4`,
            `int8`, `fp8`, `gguf:FILE`, or `none`. The way of training unless given.
        fidelity: Network that corrects the result by the pixels of the input. Give a file
            (experiments/nano/fidelity.yaml), `package`, or `none`, as in the paper. `package` goes
            with the branch that comes with it. `auto` is `package` without --checkpoint, else
            `none`.
        fidelity_weight: Strength of that network's correction, from 0 to 1.
        compile: Compile the blocks of backbone and branch, for a GPU. The first photograph waits
            for it, so it is for folders. On a CPU it gains nothing.
        offload: Keep weights in main memory while they rest. `model` has backbone or VAE on the
            GPU; `sequential` has one layer at a time, which is slow. The picture is the same.
        vae: Folder or hub id of a tiny autoencoder (AutoencoderTiny) in the place of the backbone's
            VAE, such as madebyollin/taesd3. It needs less memory and time, and keeps less fine
            detail.
        inter: Weights of expert groups in the place of the Inter routers', such as
            `spatial=0,channel=1`. Groups that are not named keep the router's weight, and
            `others=0` switches them off. `spatial@2=0` changes block 2 alone.
        intra: Sub-experts in the place of the Intra routers', such as `swin=0+2`. They keep the
            router's gates; `swin=0:0.7` sets one.
        routing: Record in restoration.json what the Inter routers weigh of every photograph. Else
            the branch is spared where the fidelity network takes nothing of it, as of scenes that
            are neither dark nor hazy. The picture is the same, and takes a fraction of the time.
        seed: Seed of the noise. The same seed gives the same picture.
        device: Where it runs: `auto`, `cpu`, `cuda`, `cuda:1` or `mps`.
        trust: Accept a class that lies outside lit_mimdit.systems, too. Its code then runs.
        overwrite: Replace files that exist, even if restore did not make them.
        strip_metadata: Leave out EXIF (date, camera, place), XMP, texts and resolution. Else they
            are copied, with orientation 1 and without thumbnails.
        max_megapixels: Photographs with more megapixels are refused; 250 unless given. A photograph
            is held as planes of floats, about 0.09 GB a megapixel beside the model.

    Returns:
        0, or 1 if any file was left out or could not be restored.
    """
    with nullcontext() if max_megapixels is None else allowed_megapixels(max_megapixels):
        made = plan(inputs, output)
        if made.to_file:
            require_free(made, set(), overwrite)
        options: dict[str, Any] = {
            "steps": steps,
            "solver": solver,
            "start": start,
            "strength": strength,
            "tile": tile,
            "overlap": overlap,
            "tile_batch": tile_batch,
            "overview": overview,
            "overview_samples": overview_samples,
            "longest": longest,
            "guidance": guidance,
            "colour": colour,
            "condition_gb": condition_gb,
        }
        corrector: dict[str, Any] = {
            "fidelity": choose_fidelity(
                fidelity, own_branch=checkpoint is None or str(checkpoint) == PACKAGE
            ),
            "fidelity_weight": fidelity_weight,
        }
        path = system_path(checkpoint)
        restorer = load_restorer(
            path,
            backbone,
            device,
            trust=trust,
            prompt=prompt,
            captions=captions,
            dtype=dtype,
            backbone_quantize=backbone_quantize,
            compile=compile,
            offload=offload,
            vae=vae,
            **corrector,
            inter=inter,
            intra=intra,
            **options,
        )
        if hasattr(restorer, "skip_unused"):
            restorer.skip_unused = not routing
        run = describe_run(restorer, path, seed) | ({"routing": True} if routing else {})
        return carry_out(restorer, made, run, overwrite, strip_metadata)
