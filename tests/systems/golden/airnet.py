"""What a golden file of AirNet holds."""

import torch
from check_golden import F64, GRADIENTS, first_calls, float32_tolerance, gradient_norms, rates

from lit_mimdit.systems.airnet import objective
from lit_mimdit.systems.airnet.official import from_official, names_of

RESULTS = ("losses_and_gradient_norms_f64",)


def build(golden, dtype=torch.float32):
    config = {k: tuple(v) if isinstance(v, list) else v for k, v in golden.info["config"].items()}
    return from_official(golden.state(), **config).to(dtype)


def compare(golden, report):
    tensors, errors = golden.tensors, golden.info["float32_vs_float64"]
    report.given("input", "input_query", "input_key", "target")
    network = build(golden).eval()
    with torch.no_grad():
        restored = network(tensors["input"])
        report.tensor("output", restored, float32_tolerance(tensors["output"], errors["output"]))
    network.double()
    name_of = names_of(network)
    modules = {
        name_of(f"{name}.").removesuffix("."): module for name, module in network.named_modules()
    }
    # taps whose official module differs: what the encoder returns last, and the head's container
    modules["E.E.encoder_q"] = network.contrast.encoder_q.pre
    modules["R.head"] = network.restorer.head
    with torch.no_grad(), first_calls(modules) as seen:
        report.tensor("output_f64", network(golden.double("input")), F64)
    for name, stored in tensors.items():
        if name.startswith("tap."):
            tolerance = float32_tolerance(stored, errors["output"], tensors["output"])
            report.tensor(name, seen[name.removeprefix("tap.")], tolerance)

    for dtype, ending in ((torch.float32, ""), (torch.float64, "_f64")):
        _training(golden, report, dtype, ending)
    _gradients(golden, report)
    rates(golden, report, "AirNet", objective.learning_rate)


def _training(golden, report, dtype, ending):
    """Compares two training calls in a row and the state after the first."""
    errors = golden.info["float32_vs_float64"]
    network = build(golden, dtype).train()
    name_of = names_of(network)
    query, key = (golden.tensors[f"input_{which}"].to(dtype) for which in ("query", "key"))
    for call, pair in (("train", (query, key)), ("train2", (key, query))):
        with torch.no_grad():
            restored, logits, labels = network.forward_pair(*pair)
        for kind, ours in (("output", restored), ("logits", logits)):
            name = f"{call}.{kind}{ending}"
            tolerance = (
                F64 if ending else float32_tolerance(golden.tensors[name], errors[f"train_{kind}"])
            )
            report.tensor(name, ours, tolerance)
        if call == "train" and not ending:
            report.tensor("train.labels", labels, 0.0)
            state = {name_of(name): value for name, value in network.state_dict().items()}
            before = golden.state()
            for name, value in state.items():
                if f"after.{name}" in golden.tensors:
                    stored = golden.tensors[f"after.{name}"]
                    exact = not stored.is_floating_point()
                    tolerance = 0.0 if exact else float32_tolerance(stored, errors["train_logits"])
                    report.tensor(f"after.{name}", value, tolerance)
                else:  # what the official call left alone must stay
                    report.value(f"unchanged/{name}", value, before[name], 0.0)


def _gradients(golden, report):
    """Compares losses and gradients of both stages, from the first training call in float64."""
    network = build(golden, torch.float64).train()
    name_of = names_of(network)
    restored, logits, labels = network.forward_pair(
        golden.double("input_query"), golden.double("input_key")
    )
    clean = golden.double("target")
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
