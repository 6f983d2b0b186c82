"""`evaluate --checkpoint FILE` restores the degraded images before it scores them.

The images go through the code path of `restore`, into the folder `restored` of the results.
"""

from pathlib import Path

from lit_mimdit.evaluation.league import label_of
from lit_mimdit.evaluation.pairing import data_set
from lit_mimdit.inference.corrector import choose_fidelity
from lit_mimdit.inference.loading import load_restorer
from lit_mimdit.inference.plan import Plan, plan
from lit_mimdit.inference.restore_files import carry_out
from lit_mimdit.inference.run_record import describe_run, read_record
from lit_mimdit.inference.system_file import PACKAGE, system_path

FOLDER = "restored"  # below the results
SEED = 0  # that of `restore`


def restore_first(
    checkpoint: Path,
    output: Path,
    reference: Path | None,
    degraded: Path | None,
    layout: str | None,
    options: dict[str, str | Path | None],
    device: str,
) -> Path:
    """Restores degraded images, those that are there already excepted.

    Args:
        checkpoint: what `restore --checkpoint` takes.
        output: folder of the results.
        reference: with `layout`, the root of the data set.
        degraded: folder of degraded images; with `layout` it is not needed.
        layout: of the data set, or None for plain folders.
        options: of the layout.
        device: where to compute.

    Returns:
        The folder of the restored images. An image that cannot be restored is named on stderr.

    Raises:
        ValueError: there are no degraded images, or the checkpoint does not restore.
    """
    folder = output / FOLDER
    if layout is not None:
        _, pairs = data_set(layout, reference, degraded, options)
        jobs = [(pair.lq, folder / f"{pair.id}.png") for pair in pairs.values()]
        made = Plan(jobs, folder)
    elif degraded is None:
        raise ValueError(
            "checkpoint is given without --degraded: set --degraded to the folder of the images to"
            " restore"
        )
    else:
        made = plan([degraded], folder)
    fidelity = choose_fidelity("auto", own_branch=str(checkpoint) == PACKAGE)
    path = system_path(checkpoint)
    restorer = load_restorer(path, None, device, fidelity=fidelity)
    carry_out(restorer, made, describe_run(restorer, path, SEED), False, False)
    return folder


def name_of(checkpoint: Path, folder: Path) -> str:
    """Returns what a method is called in tables.

    That is "restored" for a system of the paper's tables, which `report` calls by its own name.
    Else it is the name of its file.
    """
    about = {"name": "restored", "restoration": read_record(folder)}
    return checkpoint.stem if label_of(about) == "restored" else "restored"
