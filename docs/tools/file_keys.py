"""What stands in the files that the commands write: every key or column, and what it means.

`tests/test_reference.py` compares these tables with files that the commands wrote. A word in
capitals, such as VERSION in `VERSION_METRIC`, stands for what differs from file to file.
"""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Keys:
    """The keys of a JSON object, or the columns of a CSV file.

    Args:
        title: heading of their table.
        meanings: by key.
        optional: keys that a file may lack.
        first: what they are called: Key, Column or Name.
    """

    title: str
    meanings: dict[str, str]
    optional: frozenset[str] = field(default_factory=frozenset)
    first: str = "Key"


def _columns(title: str, meanings: dict[str, str], optional: tuple[str, ...] = ()) -> Keys:
    return Keys(title, meanings, frozenset(optional), "Column")


# -- trained systems

CHECKPOINT = Keys(
    "Entries of a checkpoint",
    {
        "lit_mimdit": "Description of the system; see the next table.",
        "rng": "State of PyTorch's random numbers.",
        "state_dict": "Trained tensors, without the frozen backbone.",
        "callbacks": "State of each callback, such as the averaged weights of EMA.",
        "loops": "Lightning's counters, and the position in the data.",
        "optimizer_states": "State of the optimizer.",
        "lr_schedulers": "State of the learning rate's schedule.",
        "epoch": "Epoch that the last step belongs to.",
        "global_step": "Optimizer steps so far.",
        "pytorch-lightning_version": "Version of Lightning that wrote the file.",
        "FoundIRDataModule": "State of the data module: the samples that could not be read.",
    },
    frozenset({"FoundIRDataModule", "callbacks"}),
)
DESCRIPTION = Keys(
    "Description of a system",
    {
        "format": "Version of the description.",
        "class_path": "Class of the system, such as `lit_mimdit.systems.mimdit.MiMDiT`.",
        "arguments": "Arguments of its constructor, without those that only training needs.",
        "backbone": "Identity of the frozen backbone, or `null`.",
        "sampling": "Sampling defaults of the system, or `null`.",
        "prompt": "Text that the backbone was told in training.",
        "official": "Names of the authors' files, for imported weights.",
        "prefix": "How the names of its tensors begin in `state_dict`. Only checkpoints have it.",
        "run": "Class that was trained. Only checkpoints have it.",
        "helpers": "How the names of tensors begin that only training needs. Only checkpoints of"
        " FewStep have it.",
    },
    frozenset({"official", "prefix", "run", "helpers"}),
)
FIDELITY = Keys(
    "Metadata `lit_mimdit` of the file, as JSON",
    {
        "format": "Version of the file.",
        "widths": "Channels of the U-Net by level.",
        "blocks": "Residual blocks on each level.",
        "gain": "Whether the network has gains.",
        "cleaner": "Widths, blocks and gain of the cleaner that comes first.",
        "light": "Width and blocks of the light of a scene, which comes behind the first networks.",
        "deblurrer": "Widths, blocks and gain of the deblurrer behind the cleaner.",
    },
    frozenset({"cleaner", "light", "deblurrer"}),
)
REPOSITORY = Keys(
    "Files of a repository",
    {
        "model.safetensors": "The exported system.",
        "config.json": "Its description as JSON, with the keys of an exported system.",
        "README.md": "The model card.",
    },
    first="Name",
)
PIPELINE = Keys(
    "Files and folders of a pipeline",
    {
        "model_index.json": "Index that diffusers reads; see the next table.",
        "transformer": "Frozen backbone.",
        "vae": "VAE of the backbone.",
        "scheduler": "Scheduler of the backbone.",
        "branch": "Trained branch, with the embeddings of the prompts that it knows.",
        "fidelity": "Fidelity network.",
        "pipeline.py": "Python file that loads the classes that diffusers does not have.",
        "README.md": "The model card.",
    },
    frozenset({"fidelity"}),
    "Name",
)
INDEX = Keys(
    "Keys of model_index.json",
    {
        "_class_name": "File and class of the pipeline.",
        "_diffusers_version": "Version of diffusers that wrote it.",
        "transformer": "Library and class of the backbone.",
        "vae": "Library and class of the VAE.",
        "scheduler": "Library and class of the scheduler.",
        "branch": "File and class of the branch.",
        "fidelity": "File and class of the fidelity network, or two `null`.",
        "fidelity_weight": "Strength of the correction unless a call says otherwise.",
        "sampling": "Sampling settings unless a call says otherwise.",
        "backbone": "Identity of the backbone, for records.",
        "prompt": "Text whose embeddings the branch holds.",
    },
)

# -- restored images

RESTORATION = Keys(
    "Keys of restoration.json",
    {
        "format": "Version of this file.",
        "lit_mimdit": "Version of this package.",
        "commit": "Commit of the source tree, or `null` for an installed package.",
        "checkpoint": "The system's file; see the next table. `null` if it was in memory only.",
        "config_hash": "Hash of all settings that decide what an image looks like.",
        "system": "Class, arguments and what else tells the system. One on a backbone has none.",
        "backbone": "Identity of the backbone, or `null`.",
        "sampling": "Sampling settings.",
        "prompt": "Text and captions that the backbone was told; empty without.",
        "fidelity": "Fidelity network and its weight, or `null`.",
        "colour_fix": "How colours were brought back, or `none`.",
        "what_if": "Routers' decisions that were given by --inter or --intra.",
        "vae": "Tiny autoencoder in the place of the VAE.",
        "seed": "Seed of the noise, or in words how each image got its own.",
        "device": "Device that restored.",
        "torch": "Version of PyTorch.",
        "mixed": "The keys above of each call, where calls had different settings.",
        "routing": "`true` where --routing asked for the weights of every image.",
        "images": "Inter-MoE weights of each image by name: a list of groups for each block. Empty"
        " where no branch was asked.",
        "files": "What is known of each image's file by name. `predict` writes none.",
    },
    frozenset({"system", "what_if", "vae", "mixed", "routing", "files"}),
)
RESTORATION_CHECKPOINT = Keys(
    "Keys of `checkpoint`",
    {
        "name": "Name of the file.",
        "sha256": "Hash of the file.",
        "hub": "Repository and commit, as OWNER/NAME@COMMIT.",
        "official": "Names of the authors' files, for imported weights.",
    },
    frozenset({"hub", "official"}),
)
RESTORATION_FILE = Keys(
    "Keys of each of `files`",
    {
        "source": "Path of the photograph.",
        "source_sha256": "Hash of the photograph.",
        "sha256": "Hash of the restored image.",
        "run": "Which entry of `mixed` made it.",
    },
    frozenset({"run"}),
)

# -- evaluations

HEADER = Keys(
    "Keys of the first line",
    {"format": "Version of this file.", "settings": "What all scores depend on."},
)
SETTINGS = Keys(
    "Keys of `settings`",
    {
        "metrics": "Metrics by key, as in summary.json.",
        "images": "Hash of names, sizes and times of all image files.",
        "dataset": "Name of the data set; empty for plain folders.",
        "device": "Kind of device that scored.",
    },
)
SUMMARY = Keys(
    "Keys of summary.json",
    {
        "name": "What the method is called in tables.",
        "lit_mimdit": "Version of this package.",
        "commit": "Commit of the source tree, or `null` for an installed package.",
        "torch": "Version of PyTorch.",
        "pyiqa": "Version of pyiqa.",
        "device": "Device that scored.",
        "image_rule": "Which part of each image was scored, in words.",
        "paired_by": "How restored images and references were paired.",
        "intersection": "Whether images without a partner were left out.",
        "problems": "Images without a partner, with the reason.",
        "restoration": "Keys of restoration.json, without `images`; `null` if there is none.",
        "format": "Version of this file.",
        "metrics": "Metrics by key; see below.",
        "versions": "Versions of each image that were scored.",
        "groups": "Means of each data set and degradation, and of `all`; see below.",
        "failed": "Scores that could not be computed; see below.",
        "tiled_images": "Images scored in tiles, by metric.",
        "sizes": "Images of each size, such as `256 x 256`.",
        "bootstrap": "How the intervals were computed: resamples, seed, level and method.",
    },
    frozenset(
        {
            "lit_mimdit",
            "commit",
            "torch",
            "pyiqa",
            "device",
            "paired_by",
            "intersection",
            "problems",
        }
    ),
)
METRIC = Keys(
    "Keys of each of `metrics`",
    {
        "label": "Name in tables.",
        "pyiqa_name": "Name in pyiqa, or `null`.",
        "version": "What computed it.",
        "direction": "Whether higher or lower is better.",
        "weights": "Hash of each file of weights.",
        "published_weights": "Whether these are the published files.",
        "cap_pixels": "Pixels above which an image is scored in tiles, or `null`.",
        "status": "`computed`, or why it was not.",
    },
)
GROUP = Keys(
    "Keys of each of `groups`",
    {
        "dataset": "Name of the data set; empty where there is one only.",
        "degradation": "Degradation, or `all`.",
        "n": "Number of images.",
        "versions": "Values of each version by metric; see below.",
        "gain": "Restored less degraded by metric; see below. Empty without both versions.",
    },
)
VALUE = Keys(
    "Keys of each value and gain",
    {
        "mean": "Mean, or `null` where there is no number.",
        "low": "Lower end of the 95% interval, or `null`.",
        "high": "Upper end of the 95% interval, or `null`.",
        "n": "Number of images that count.",
        "better": "Images that restoration improved. Gains only.",
        "worse": "Images that it made worse. Gains only.",
        "tied": "Images that it left alike. Gains only.",
    },
    frozenset({"better", "worse", "tied"}),
)
FAILED = Keys(
    "Keys of each of `failed`",
    {
        "dataset": "Name of the data set; empty where there is one only.",
        "id": "Name of the image.",
        "version": "Which version of the image.",
        "metric": "Key of the metric, or `file`.",
        "reason": "Why there is no score.",
    },
)
SCORES = _columns(
    "Columns of scores.csv",
    {
        "dataset": "Name of the data set; empty where there is one only.",
        "id": "Name of the image in its data set.",
        "degradation": "Degradation of the image.",
        "height": "Height of the image, pixels.",
        "width": "Width of the image, pixels.",
        "VERSION_METRIC": "Score of one version, such as `restored_psnr`.",
        "VERSION_file": "Path of one version, relative to this file's folder.",
        "failed": "Scores that failed, with their reasons; else empty.",
    },
    ("VERSION_file",),
)

ROUTING_OF_IMAGES = Keys(
    "Keys of routing.json",
    {"IMAGE": "Inter-MoE weights of the image of this id: a list of groups for each block."},
)

# -- runs and studies

RUN = Keys(
    "Keys of run.json",
    {
        "command": "Program and arguments.",
        "job": "Id of the Slurm job, or `null`.",
        "restarts": "How often the job was started again.",
        "nodes": "Names of the hosts.",
        "processes": "Number of processes.",
        "strategy": "Class of the strategy.",
        "precision": "Precision of the trainer.",
        "device": "Name of the GPU, or of the processor.",
        "resumed_from": "Checkpoint that it goes on from, or `null`.",
        "commit": "Commit of the source tree, or `null` for an installed package.",
        "python": "Version of Python.",
        "packages": "Version of each installed package.",
    },
)
QUARANTINE = _columns(
    "Columns of quarantine.csv",
    {
        "id": "Name of the pair.",
        "reason": "Why it cannot be used.",
        "epoch": "Epoch in which the run met it; empty from `data shard`.",
        "step": "Optimizer step at which the run met it; empty from `data shard`.",
    },
)
RESULTS = _columns(
    "Columns of results.csv",
    {
        "variant": "Name of the variant; `degraded` is the input, where a test scored it.",
        "metric": "Key of the metric.",
        "degradation": "Degradation, or `all`.",
        "seeds": "Number of seeds that count.",
        "images": "Number of images that count.",
        "value": "Mean of the variant.",
        "value_low": "Lower end of the mean's 95% interval.",
        "value_high": "Upper end of the mean's 95% interval.",
        "full": "Mean of the full model.",
        "difference": "Variant less full model, paired by seed and image.",
        "low": "Lower end of the difference's 95% interval.",
        "high": "Upper end of the difference's 95% interval.",
        "interval_over": "What the interval is over: `seeds x images`, or `seeds`.",
        "finding": "What the interval says of the variant.",
        "paper_value": "Value of the variant in the paper.",
        "paper_full": "Value of the full model in the paper.",
        "paper_difference": "Variant less full model in the paper.",
        "verdict": "Whether the paper's difference appears here.",
        "trained_parameters": "Number of trained parameters.",
        "branch_flops": "FLOPs of the branch for one image.",
        "forward_flops": "FLOPs of the forward pass of a training step, without the VAE.",
        "restore_flops": "FLOPs of restoring one image.",
        "trained_parameters_of_full": "`trained_parameters` over the full model's.",
        "branch_flops_of_full": "`branch_flops` over the full model's.",
        "forward_flops_of_full": "`forward_flops` over the full model's.",
        "restore_flops_of_full": "`restore_flops` over the full model's.",
        "seconds_per_megapixel": "Seconds of restoring a megapixel.",
        "steps": "Optimizer steps of training, mean over the seeds.",
        "seconds": "Seconds of training, mean over the seeds.",
    },
)
CURVES = _columns(
    "Columns of curves.csv",
    {
        "variant": "Name of the variant.",
        "seed": "Seed of the run.",
        "step": "Optimizer step.",
        "loss": "Training loss at that step.",
    },
)

# -- routing

ROUTING = Keys(
    "Keys of routing.json",
    {
        "format": "Version of this file.",
        "checkpoints": "Names of the checkpoints.",
        "groups": "Kinds of the expert groups.",
        "top_k": "Sub-experts that an image uses in each group.",
        "lit_mimdit": "Version of this package.",
        "commit": "Commit of the source tree, or `null` for an installed package.",
        "data": "Folder of the images.",
        "images": "Number of images.",
        "image rule": "Which part of each image the routers saw, in words.",
        "files": "Each checkpoint's file; see the next table.",
        "severity": "Where the severities come from, in words.",
        "permutations": "Permutations in each test.",
        "seed": "Seed of the permutations.",
        "health": "Dead sub-experts and collapsed routers, in words, by checkpoint. `null` where"
        " there are too few images to tell.",
        "agreement_with_table6": "How alike the weights and table 6 are; see below.",
        "against_equal_share": "Verdicts of table6.csv against the equal share, counted.",
        "against_own_mean": "Verdicts of table6.csv against the group's own mean, counted.",
    },
    frozenset({"agreement_with_table6", "against_equal_share", "against_own_mean"}),
)
ROUTING_FILE = Keys(
    "Keys of each of `files`",
    {
        "name": "Name of the file, or its repository.",
        "sha256": "Hash of the file.",
        "tile": "Side of the tiles that large images are cut into, pixels.",
        "overlap": "Pixels that neighbouring tiles share.",
    },
)
AGREEMENT = Keys(
    "Keys of `agreement_with_table6`",
    {
        "spearman_weights": "Rank correlation of the weights.",
        "spearman_contrasts": "Rank correlation of the weights less the group's mean.",
        "same_heaviest_group": "Degradations whose heaviest group is the paper's.",
    },
)
_CHECKPOINT = {"checkpoint": "Name of the checkpoint."}
_DEGRADATION = {"degradation": "Degradation, or `all`."}
_PLACE = {
    "block": "Number of the block, from 0.",
    "group": "Number and kind of the expert group, such as `0_spatial`.",
}
_IMAGES = {"images": "Number of images."}
_TEST = {
    "by_chance_bits": "Mean of that information when labels are permuted.",
    "p": "Share of the permutations with as much information.",
    "q": "`p` corrected for the number of tests of a checkpoint.",
}
_WEIGHTS = {
    "degradation": "Degradation.",
    "group": "Kind of the expert group.",
    **_IMAGES,
    "mean": "Mean Inter weight over images and blocks.",
    "low": "Lower end of its 95% interval.",
    "high": "Upper end of its 95% interval.",
    "contrast": "Mean less the group's mean over the degradations.",
    "contrast_low": "Lower end of its 95% interval.",
    "contrast_high": "Upper end of its 95% interval.",
    "published": "Weight in table 6 of the paper.",
    "published_contrast": "Contrast in table 6 of the paper.",
    "against_equal_share": "Whether the published side of 1 / groups appears here.",
    "against_own_mean": "Whether the published side of the group's mean appears here.",
    "standard_error_over_images": "Standard error over images, mean of the checkpoints.",
    "checkpoints": "Number of checkpoints. The intervals of one are over images.",
}
_PAPER = ("published", "published_contrast", "against_equal_share", "against_own_mean")
ROUTING_TABLES = {
    "table6": _columns("Columns of table6.csv", _WEIGHTS, _PAPER),
    "degradations": _columns("Columns of degradations.csv", _WEIGHTS, _PAPER),
    "blocks": _columns(
        "Columns of blocks.csv",
        {
            **_CHECKPOINT,
            **_DEGRADATION,
            **_PLACE,
            **_IMAGES,
            "mean": "Mean Inter weight over images.",
            "standard_error": "Its standard error.",
            "deviation": "Standard deviation over images.",
        },
    ),
    "sub_experts": _columns(
        "Columns of sub_experts.csv",
        {
            **_CHECKPOINT,
            **_DEGRADATION,
            "severity": "`light`, `medium`, `heavy` or `all`.",
            **_PLACE,
            "sub_expert": "Number of the sub-expert, from 0.",
            **_IMAGES,
            "share": "Share of the images that it worked on.",
            "mean_gate": "Mean gate before the selection.",
        },
    ),
    "routers": _columns(
        "Columns of routers.csv",
        {
            **_CHECKPOINT,
            "router": "`inter` or `intra`.",
            "block": "Number of the block, from 0.",
            "group": "Number and kind of the expert group; empty for `inter`.",
            "experts": "What the router chooses among.",
            "effective_experts": "How many equally used experts its choices amount to.",
            "entropy_nats": "Mean entropy of one image's weights or gates, nats.",
            "information_on_degradation_bits": "What its choice tells of the degradation, bits.",
            **_TEST,
        },
    ),
    "severity": _columns(
        "Columns of severity.csv",
        {
            **_CHECKPOINT,
            "degradation": "Degradation with images of at least two severities.",
            **_PLACE,
            **_IMAGES,
            "severities": "Severities that are compared.",
            "information_bits": "What the choice tells of the severity, bits.",
            **_TEST,
        },
    ),
    "records": _columns(
        "Columns of records.csv",
        {
            **_CHECKPOINT,
            "id": "Name of the image.",
            "degradation": "Degradation of the image.",
            "severity": "Severity of the image; empty where it is not known.",
            "inter_block_BLOCK_GROUP": "Inter weight of a group, such as"
            " `inter_block_00_0_spatial`.",
            "gate_block_BLOCK_GROUP_expert_EXPERT": "Gate of a sub-expert before the selection.",
            "chosen_block_BLOCK_GROUP_expert_EXPERT": "1 where the sub-expert worked on the image,"
            " else 0; in tiles their share.",
        },
    ),
}

# -- data sets

SAMPLES = _columns(
    "Columns of samples.csv",
    {
        "id": "Name of the pair.",
        "split": "`train`, `val` or `test`.",
        "type": "FoundIR type folder.",
        "severity": "`light`, `medium` or `heavy`.",
        "photograph": "Name of the photograph.",
        "left": "Left edge of the crop in the photograph, pixels.",
        "top": "Top edge of the crop, pixels.",
        "right": "Right edge of the crop, pixels.",
        "bottom": "Bottom edge of the crop, pixels.",
        "seed": "Seed of the degradation.",
        "jpeg_quality": "Quality of the JPEG file; empty for other types.",
        "gt": "Path of the clean image in the tree.",
        "lq": "Path of the degraded image in the tree.",
    },
)
CAPTIONS = _columns(
    "Columns of the CSV, or keys of each JSON line",
    {
        "id": "Name of the sample, or path of the photograph below its folder without its ending.",
        "caption": "Text for that image.",
    },
)
MEMBERS = Keys(
    "Members of a tile in the tar file",
    {
        "json": "Pair, degradation, size of the image, and box of the tile; see the next table.",
        "lq.FORMAT": "Degraded tile, in shards of images.",
        "gt.FORMAT": "Clean tile, in shards of images.",
        "vNUMBER.safetensors": "Tensors of one orientation, in shards of latents.",
    },
    frozenset({"lq.FORMAT", "gt.FORMAT", "vNUMBER.safetensors"}),
    "Name",
)
TILE = Keys(
    "Keys of a tile's JSON",
    {
        "id": "Name of the pair.",
        "degradation": "Degradation of the pair.",
        "size": "Height and width of the image, pixels.",
        "box": "Top, left, height and width of the tile, pixels.",
    },
)
IMAGE_SETTINGS = Keys(
    "Keys of `settings` in a manifest of images",
    {
        "tile": "Side of the tiles, pixels, or `null` for whole images.",
        "overlap": "Pixels that neighbouring tiles share at least.",
        "codec": "How tiles are encoded.",
        "quality": "Quality of lossy tiles, or `null`.",
        "shard_pairs": "Pairs in a shard.",
        "seed": "Seed of the order of the pairs.",
    },
)
LATENT_SETTINGS = Keys(
    "Keys of `settings` in a manifest of latents",
    {
        "tile": "Side of the tiles that were encoded, pixels.",
        "augment": "Augmentation whose orientations are stored.",
        "dtype": "Precision of the stored latents.",
        "backbone": "Backbone whose VAE encoded.",
        "vae": "Hash of that VAE.",
        "teacher": "What tells the teacher: branch, backbone, prompt, steps and solver.",
        "noise_seed": "Seed of the command that stored the teacher's results.",
    },
    frozenset({"teacher", "noise_seed"}),
)
LATENT_TENSORS = Keys(
    "Tensors of an orientation",
    {
        "lq": "Mode of the degraded tile's latent.",
        "gt": "Mode of the clean tile's latent.",
        "lq_logvar": "Log-variance of the degraded tile's latent.",
        "gt_logvar": "Log-variance of the clean tile's latent.",
        "teacher": "Latent that the teacher restored.",
        "noise_seed": "Seed of the noise that the teacher started from.",
    },
    frozenset({"teacher", "noise_seed"}),
    "Tensor",
)
