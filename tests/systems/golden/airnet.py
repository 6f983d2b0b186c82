"""What a golden file of AirNet holds."""

import torch
from golden_measures import first_calls, gradient_norms, rates, stated_error, tied
from golden_report import F64, GRADIENTS

from lit_mimdit.systems.airnet import objective
from lit_mimdit.systems.airnet.official import from_official, names_of

RESULTS = ("losses_and_gradient_norms_f64", "float32_vs_float64")
TEXTS = ("dead_in_eval", "dead_in_eval_and_training", "tied_keys")
ACTING = ("restorer.", "contrast.encoder_q.pre.")  # what restores an image


def build(golden, dtype=torch.float32):
    config = {k: tuple(v) if isinstance(v, list) else v for k, v in golden.info["config"].items()}
    return from_official(golden.state(), **config).to(dtype)


def compare(golden, report):
    report.given("input", "input_query", "input_key", "target")
    network = build(golden).eval()
    name_of = names_of(network)
    report.loaded(map(name_of, network.state_dict()), "as they act on nothing")
    _dead(report, network, name_of)
    errors = {
        kind: stated_error(golden, report, f"float32_vs_float64/{kind}", name, f"{name}_f64")
        for kind in ("output", "train_output", "train_logits")
        for name in (kind.replace("_", "."),)
    }
    with report.part():
        _restoring(golden, report, network, errors["output"])
    for dtype, ending in ((torch.float32, ""), (torch.float64, "_f64")):
        with report.part():
            _training(golden, report, dtype, ending, errors)
    with report.part():
        _gradients(golden, report)
    rates(golden, report, "AirNet", objective.learning_rate)


def _dead(report, network, name_of):
    """Compares which entries act on no restored image, and which on no training either."""
    idle = [
        name_of(name)
        for name, value in network.state_dict().items()
        if value.is_floating_point() and not name.startswith(ACTING)
    ]
    report.names("dead_in_eval", idle)
    # training takes the statistics of the batch
    report.names("dead_in_eval_and_training", [name for name in idle if ".running_" in name])
    report.names("tied_keys", tied(network, name_of))


def _restoring(golden, report, network, error):
    with torch.no_grad():
        report.float32("output", network(golden.tensors["input"]), error)
    network.double()
    name_of = names_of(network)
    modules = {
        name_of(f"{name}.").removesuffix("."): module for name, module in network.named_modules()
    }
    # taps whose official module differs: what the encoder returns last, and the head's container
    modules["E.E.encoder_q"] = network.contrast.encoder_q.pre
    modules["R.head"] = network.restorer.head
    with torch.no_grad(), first_calls(modules) as seen:
        report.tensor("output_f64", network(golden.real("input")), F64)
    report.taps("tap.", seen, error, golden.tensors["output"])


def _training(golden, report, dtype, ending, errors):
    """Compares two training calls in a row and the state after the first."""
    network = build(golden, dtype).train()
    name_of = names_of(network)
    query, key = (golden.tensors[f"input_{which}"].to(dtype) for which in ("query", "key"))
    for call, pair in (("train", (query, key)), ("train2", (key, query))):
        with torch.no_grad():
            restored, logits, labels = network.forward_pair(*pair)
        for kind, ours in (("output", restored), ("logits", logits)):
            if ending:
                report.tensor(f"{call}.{kind}_f64", ours, F64)
            else:
                report.float32(f"{call}.{kind}", ours, errors[f"train_{kind}"])
        if call == "train" and not ending:
            report.tensor("train.labels", labels, 0.0)
            state = {name_of(name): value for name, value in network.state_dict().items()}
            before = golden.state()
            for name, value in state.items():
                stored = golden.tensors.get(f"after.{name}")
                if stored is None:  # what the official call left alone must stay
                    report.value(f"unchanged/{name}", value, before[name], 0.0)
                elif stored.is_floating_point():
                    report.float32(f"after.{name}", value, errors["train_logits"])
                else:
                    report.tensor(f"after.{name}", value, 0.0)


def _gradients(golden, report):
    """Compares losses and gradients of both stages, from the first training call in float64."""
    network = build(golden, torch.float64).train()
    name_of = names_of(network)
    restored, logits, labels = network.forward_pair(
        golden.real("input_query"), golden.real("input_key")
    )
    clean = golden.real("target")
    entropy = objective.contrastive(logits, labels)
    stages = {
        "stage1": (entropy, {"ce": entropy}),
        "stage2": (
            objective.loss(restored, clean, logits, labels),
            {"ce": entropy, "l1": torch.nn.functional.l1_loss(restored, clean)},
        ),
    }
    trained = {name: value for name, value in network.named_parameters() if value.requires_grad}
    frozen = [name for name, value in network.named_parameters() if not value.requires_grad]
    for stage, (loss, parts) in stages.items():
        base = f"{RESULTS[0]}/{stage}"
        report.number(f"{base}/loss", loss.item(), F64)
        for part, value in parts.items():
            report.number(f"{base}/parts/{part}", value.item(), F64)
        norms = gradient_norms(loss, trained)
        for name, norm in norms.items():
            report.number(f"{base}/grad_l2/{name_of(name)}", norm, GRADIENTS)
        for name in frozen:
            path = f"{base}/grad_l2/{name_of(name)}"
            if path in report.facts:
                report.number(path, None, GRADIENTS)
