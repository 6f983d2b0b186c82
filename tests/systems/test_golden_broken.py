"""What is changed in a copy of a golden file is found, named, and nothing else with it."""

import json

import check_golden
import clip_systems
import pytest
import torch
from golden import autodir
from golden_file import Golden
from safetensors.torch import save_file

from lit_mimdit.systems.autodir.network import tokens


@pytest.fixture
def broken(tmp_path, capsys):
    """A function that checks a changed copy of a golden file and returns the lines it prints."""

    def checked(name, change):
        path = check_golden.SHARED / f"{name}.safetensors"
        if not path.is_file():
            pytest.skip(f"{path} is not here, so no copy of it can be broken")
        golden = check_golden.read(path)
        tensors, info = dict(golden.tensors), json.loads(json.dumps(golden.info))
        change(tensors, info)
        copy = tmp_path / path.name
        save_file(tensors, copy, {"golden": json.dumps(info)})
        assert not check_golden.check(copy)
        return capsys.readouterr().out.splitlines()

    return checked


def wrong(lines):
    """The names of what is wrong, in order."""
    return [line.removeprefix("WRONG ").split(": ")[0] for line in lines if line[:5] == "WRONG"]


def test_names_of_promptir(broken):
    def change(tensors, info):
        del tensors["odd.output"]
        tensors["tap.R.body"] = torch.zeros(1)
        info["dead"][0] = "nobody"
        info["tied_keys"] = [["output.weight", "prompt1.prompt_param"]]
        info["float32_vs_float64"] *= 2

    lines = broken("PromptIR_small", change)
    changed = ["dead", "tied_keys", "float32_vs_float64", "odd.output", "tap.R.body"]
    assert wrong(lines) == changed
    assert "WRONG odd.output: not in the file" in lines
    assert "WRONG tap.R.body: no such module" in lines
    assert "WRONG dead: lacks ['chnl_reduce1.weight']; has besides ['nobody']" in lines
    assert "input: input, target, odd.input" in lines
    assert "6 of the state are not loaded, as they act on nothing" in lines
    dead = " ".join(line for line in lines if line.startswith("not loaded: "))
    assert all(f"state.chnl_reduce{level}.weight" in dead for level in (1, 2, 3))
    assert lines[-1].endswith("3 inputs, 6 not loaded, 0 left out with a reason, 5 wrong")


def test_seeds_of_transweather(broken):
    def change(tensors, info):
        tensors["train.output_seed11"] = tensors.pop("train.output_seed5")
        losses = info["losses_and_gradient_norms_f64"]
        losses["note"] = losses["note"].replace("seed 77", "seed 78")
        info["dead"].pop()

    lines = broken("TransWeather_small", change)
    found = wrong(lines)
    base = "losses_and_gradient_norms_f64"
    assert {"train.output_seed11", "dead", f"{base}/loss"} < set(found)
    assert f"{base}/parts/perceptual_with_fill_rule_vgg" in found
    assert f"{base}/parts/smooth_l1" not in found and "output_f64" not in found
    (seeded,) = (line for line in lines if "train.output_seed11" in line)
    assert "difference" in seeded  # seed 5 drops no branch, 11 does


def test_a_table_of_small_numbers_in_diffuir(broken):
    def change(tensors, info):
        tensors["schedule.delta"] = tensors["schedule.delta"] * 1.004
        tensors["schedule.alphas"] = tensors["schedule.alphas"] + 2e-8
        info["dead_params"] = ["model.unet0.final_conv.bias"]

    lines = broken("DiffUIR_small", change)
    assert wrong(lines) == ["schedule.alphas", "schedule.delta", "dead_params"]


def test_a_table_of_diffir(broken):
    def change(tensors, info):
        tensors["schedule.betas"] = tensors["schedule.betas"] + 5e-6
        info["dead_params"]["S2"] = ["G.output.weight"]

    assert wrong(broken("DiffIR_small", change)) == ["schedule.betas", "dead_params/S2"]


def test_dead_names_of_foundirs_specialists(broken):
    def change(tensors, info):
        info["specialists"]["weather"]["dead"].append("output.weight")
        info["specialists"]["lowlight"]["dead"].append("nobody")

    found = wrong(broken("FoundIR_small", change))
    assert found == ["specialists/weather/dead", "specialists/lowlight/dead"]


def test_texts_of_dit4sr(broken):
    def change(tensors, info):
        info["prompt_filter"][0][1] = "nonsense"
        info["dead"].append("proj_out.bias")

    lines = broken("dit4sr_small", change)
    assert wrong(lines) == ["dead", "prompt_filter"]
    assert any("has besides ['proj_out.bias']" in line for line in lines)


def test_a_sentence_and_a_choice_of_autodir(broken):
    def change(tensors, info):
        info["e2e"]["custom"]["customize"] = "This photograph is too dark"
        info["chosen"]["auto"][0][1] = "noise"

    lines = broken("autodir_small", change)
    assert wrong(lines) == ["chosen/auto"]
    assert f"not compared: e2e.custom.0.context: {autodir.UNKNOWN}" in lines


def test_dead_names_of_the_other_systems(broken):
    def change(tensors, info):
        info["dead_in_eval"].pop()

    assert wrong(broken("AirNet_small", change)) == ["dead_in_eval"]


def numbered(*sentences):
    """A golden file that has the tokens of these sentences alone."""
    ids = torch.cat([tokens(sentence)[0] for sentence in sentences]).unique().tolist()
    return Golden({}, {"tokenizer_ids": ids}, None)


def test_a_users_sentence_may_have_any_of_the_known_words():
    golden = numbered("noise", "low resolution", "rain")
    for category in ("noise", "low resolution"):
        found = autodir.sentence_ids(golden, f"A photo needs {category} artifact reduction")
        assert torch.equal(found[0], autodir.tokenize(golden)(category)[0])
    free = autodir.sentence_ids(golden, "noise resolution")[0]
    expected = [49406, 9307, 9977] + 74 * [49407]
    known = golden.info["tokenizer_ids"]
    assert [known[place] for place in free.tolist()] == expected
    assert autodir.sentence_ids(golden, "a dark photo") is None
    with pytest.raises(ValueError, match="tokenizer_ids lack"):
        autodir.sentence_ids(golden, "haze")


def test_iterations_see_the_stored_images():
    network = clip_systems.autodir()
    stored, other = torch.rand(1, 3, 16, 16), torch.rand(1, 3, 16, 16)
    golden = Golden({"e2e.a.1.input": stored}, {}, None, dtype=torch.float32)
    fed = autodir.FromStored(golden, network, "a")
    ids, mask = (part[None] for part in tokens("rain"))
    with torch.no_grad():
        fed.assess(other, ids, mask)  # iteration 0 has no stored image
        assert torch.equal(fed.encode(other), network.encode(other))
        logits = fed.assess(other, ids, mask)[1]
        assert torch.equal(logits, network.assess(stored, ids, mask)[1])
        assert torch.equal(fed.encode(other), network.encode(stored))
        corrected = network.correction(stored, other)
        assert torch.equal(fed.correction(other, other), corrected)
