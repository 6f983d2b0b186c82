"""Any chain of cuts ends as the uninterrupted run, and whatever changes between the runs, every
sample of an epoch is seen once."""

import copy
import itertools
import shutil
from collections import Counter
from pathlib import Path

import pytest
import torch
from cut_runs import Line, Numbers, content, fit, read
from torch import nn

from lit_mimdit.systems.optim import OptimizerConfig, configure, lr_factor

EPOCHS, STEPS = 3, 6  # 10 samples, 4 a step: 2 steps an epoch, and 2 samples left out


class Chains:
    """Runs that are cut at given places; a chain's beginning is run once for all chains."""

    def __init__(self, folder: Path, **settings) -> None:
        self.folder, self.settings = folder, settings
        self.known: dict[tuple, tuple[Path | None, dict]] = {(): (None, {})}

    def run(self, chain: tuple[tuple[str, int], ...]) -> tuple[Path | None, dict]:
        """The checkpoint behind the last run of a chain like (("max_steps", 2), ("max_epochs", 3)),
        and what each step took."""
        if chain not in self.known:
            before, taken = self.run(chain[:-1])
            folder = self.folder / str(len(self.known))
            folder.mkdir()
            resume = None if before is None else shutil.copy(before, folder / "before.ckpt")
            ((key, value),) = chain[-1:]
            module, _, _ = fit(folder, resume, **{key: value}, **self.settings)
            last = folder / "last.ckpt"
            self.known[chain] = (last if last.exists() else before, taken | module.steps)
        return self.known[chain]


def steps_of(end: tuple[str, int]) -> int:
    return end[1] if end[0] == "max_steps" else end[1] * STEPS // EPOCHS


ENDS = [*(("max_steps", n) for n in range(1, STEPS)), *(("max_epochs", n) for n in (1, 2))]
LASTS = [("max_steps", STEPS), ("max_epochs", EPOCHS)]
CUTS = {n: list(itertools.combinations(sorted(ENDS, key=steps_of), n)) for n in (1, 2, 3)}


@pytest.fixture(scope="module")
def chains(tmp_path_factory) -> Chains:
    return Chains(tmp_path_factory.mktemp("chains"))


def assert_all_chains_end_as_the_uninterrupted_run(chains: Chains, last: tuple, cuts: int) -> None:
    """By steps, by epochs and mixed: at every step, in the middle and at the end of epochs."""
    whole, taken = chains.run((last,))
    right = content(read(whole))
    assert right["global_step"] == STEPS and right["epoch"] == EPOCHS - 1
    assert sorted(taken) == list(range(STEPS)) and all(len(t) == 4 for t in taken.values())
    for chain in CUTS[cuts]:
        path, steps = chains.run((*chain, last))
        assert steps == taken, f"{chain}: other samples"
        assert content(read(path)) == right, f"{chain}: another end"


@pytest.mark.parametrize("cuts", [1, 2])
@pytest.mark.parametrize("last", LASTS)
def test_all_chains_of_one_or_two_cuts_end_as_the_uninterrupted_run(chains, last, cuts):
    assert_all_chains_end_as_the_uninterrupted_run(chains, last, cuts)


@pytest.mark.usefixtures("takes_minutes")
@pytest.mark.parametrize("last", LASTS)
def test_all_chains_of_three_cuts_end_as_the_uninterrupted_run(chains, last):
    assert_all_chains_end_as_the_uninterrupted_run(chains, last, 3)


def test_a_run_can_be_stopped_behind_any_batch_and_an_unfinished_step_is_done_again(tmp_path):
    """2 batches a step; the stop may come between them, and the last whole step is saved."""
    settings = {"accumulate_grad_batches": 2, "max_steps": STEPS}
    (tmp_path / "whole").mkdir()
    module, _, _ = fit(tmp_path / "whole", **settings)
    right = content(read(tmp_path / "whole/last.ckpt"))
    for batch in range(2, 2 * STEPS):
        folder = tmp_path / str(batch)
        first, _, _ = fit(folder, stop_at=batch, **settings)
        assert read(folder / "last.ckpt")["global_step"] == batch // 2
        rest, _, _ = fit(folder, folder / "last.ckpt", **settings)
        assert first.steps | rest.steps == module.steps
        assert content(read(folder / "last.ckpt")) == right, batch


# batch and accumulation, of the first run and of the second
CHANGES_OF_SHAPE = [((16, 4), (16, 2)), ((8, 1), (4, 1)), ((8, 1), (16, 2)), ((4, 4), (8, 1))]


@pytest.mark.parametrize("first, second", CHANGES_OF_SHAPE, ids=str)
def test_an_epoch_ends_with_its_samples_whatever_changes_between_the_runs(tmp_path, first, second):
    """48 samples; tests/data/test_order.py has all changes, without a trainer."""
    (batch, n), (other, m) = first, second
    one, _, _ = fit(tmp_path, samples=48, batch=batch, accumulate_grad_batches=n, max_steps=2)
    module, trainer, _ = fit(
        tmp_path,
        tmp_path / "last.ckpt",
        samples=48,
        batch=other,
        accumulate_grad_batches=m,
        max_epochs=2,
    )
    assert all(len(items) == other for items in module.steps.values())
    seen = Counter(itertools.chain(*one.steps.values(), *module.steps.values()))
    assert seen == Counter((epoch, index) for epoch in (0, 1) for index in range(48))
    last, end = read(tmp_path / "last.ckpt"), 2 + (96 - 2 * batch) // other
    assert last["global_step"] == trainer.global_step == end == trainer.estimated_stepping_batches
    assert last["epoch"] == 1


def test_a_second_run_with_other_batches_saves_its_last_step_by_epochs(tmp_path):
    """Steps that no full epoch has: 40 samples are 10 steps of 4, then 5 of 8 an epoch."""
    fit(tmp_path, samples=40, batch=4, max_steps=4)
    _, trainer, _ = fit(tmp_path, tmp_path / "last.ckpt", samples=40, batch=8, max_epochs=3)
    assert trainer.global_step == 4 + 3 + 2 * 5 == trainer.estimated_stepping_batches
    assert read(tmp_path / "last.ckpt")["global_step"] == 17


@pytest.mark.parametrize("accumulate", [1, 2, 4])
def test_every_step_takes_as_many_samples_and_the_rest_is_left_out(tmp_path, accumulate):
    """27 samples, 8 a step: 3 steps an epoch under every accumulation, with the same samples."""
    settings = {"samples": 27, "batch": 8, "max_epochs": 2}
    module, _, _ = fit(tmp_path, accumulate_grad_batches=accumulate, **settings)
    assert [len(items) for items in module.steps.values()] == [8] * 6
    alone, _, _ = fit(tmp_path / "alone", **settings)
    assert {s: set(i) for s, i in module.steps.items()} == {
        s: set(i) for s, i in alone.steps.items()
    }


@pytest.mark.parametrize("limit, steps", [(1, 1), (2, 1), (3, 1), (4, 2), (0.5, 1), (1.0, 3)])
def test_a_limit_of_batches_ends_an_epoch_with_a_whole_step(tmp_path, limit, steps):
    """2 batches a step, 3 steps an epoch: the limit is rounded down, to one step at least; a
    resumed run counts what was before it."""
    options = {"samples": 27, "batch": 8, "accumulate_grad_batches": 2}
    module, _, _ = fit(tmp_path, limit_train_batches=limit, max_epochs=2, **options)
    assert [len(items) for items in module.steps.values()] == [8] * (2 * steps)
    cut, again = tmp_path / "cut", {}
    for end in range(1, 2 * steps + 1):
        resume = cut / "last.ckpt" if end > 1 else None
        part, _, _ = fit(cut, resume, limit_train_batches=limit, max_steps=end, **options)
        again |= part.steps
    assert again == module.steps


def test_overfitting_takes_the_same_samples_with_the_same_seeds_at_every_step(tmp_path):
    module, _, _ = fit(tmp_path, samples=40, overfit_batches=1, max_steps=3)
    assert len(module.steps) == 3 and len(set(map(tuple, module.steps.values()))) == 1
    module, _, _ = fit(tmp_path, samples=40, overfit_batches=2, max_steps=5)
    one, two, *more = module.steps.values()
    assert one != two and more == [one, two, one]
    module, _, _ = fit(tmp_path, overfit_batches=1, accumulate_grad_batches=2, max_steps=2)
    assert module.steps[0] == module.steps[1] and len(module.steps[0]) == 4


@pytest.mark.parametrize("accumulate", [1, 2, 4])
def test_intervals_count_steps_and_each_state_is_written_and_validated_once(tmp_path, accumulate):
    """20 samples, 4 a step; 12 steps; every 4."""
    module, trainer, writes = fit(
        tmp_path,
        samples=20,
        accumulate_grad_batches=accumulate,
        max_steps=12,
        every=4,
        val_check_interval=4,
        limit_val_batches=1.0,
    )
    assert module.validated == [4, 8, 12]
    assert writes.seen == [(4, "step=4.ckpt"), (8, "step=8.ckpt"), (12, "step=12.ckpt")]
    last = tmp_path / "last.ckpt"
    assert last.samefile(tmp_path / "step=12.ckpt") and trainer.fit_loop.epoch_loop.validated_at
    assert read(last)["global_step"] == 12
    part, _, writes = fit(  # goes on in the same files
        tmp_path, last, samples=20, max_steps=18, every=4, val_check_interval=4, limit_val_batches=1
    )
    assert part.validated == [16]
    assert writes.seen == [(16, "step=16.ckpt"), (18, "last.ckpt")]
    assert sorted(p.name for p in tmp_path.glob("last*")) == ["last.ckpt"]
    assert read(last)["global_step"] == 18


@pytest.mark.parametrize("resume_at", [3, 5, 6, 7])
def test_validations_within_epochs_are_where_the_uninterrupted_run_has_them(tmp_path, resume_at):
    """5 steps an epoch, validated in their 2nd and 4th, or once an epoch."""
    for number, (interval, wanted) in enumerate(
        [(2, [2, 4, 7, 9]), (0.4, [2, 4, 7, 9]), (1.0, [5, 10])]
    ):
        folder = tmp_path / str(number)
        options = {
            "samples": 20,
            "accumulate_grad_batches": 2,
            "check_val_every_n_epoch": 1,
            "val_check_interval": interval,
            "limit_val_batches": 1.0,
        }
        first, _, _ = fit(folder, max_steps=resume_at, **options)
        rest, _, _ = fit(folder, folder / "last.ckpt", max_steps=10, **options)
        assert first.validated + rest.validated == wanted


def test_an_interval_that_no_epoch_reaches_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="val_check_interval is 6 steps, but an epoch has 5"):
        fit(
            tmp_path,
            samples=20,
            accumulate_grad_batches=2,
            max_steps=1,
            check_val_every_n_epoch=1,
            val_check_interval=6,
            limit_val_batches=1,
        )


CHANGES = [
    {"lr": 0.01},
    {"betas": (0.5, 0.6)},
    {"weight_decay": 0.3},
    {"name": "adamw", "weight_decay": 0.3},
    {"warmup_steps": 8},
    {"schedule": "cosine"},
    {"lr_scale": {"head": 0.1}},
    {"lr_scale": {"layer": 3.0, "bias": 0.5}},
]


def by_hand(module: Line, config: OptimizerConfig, state: dict) -> dict[str, nn.Parameter]:
    """Goes on from the weights and moments `state` (by name) with Adam as its paper has it."""
    line = copy.deepcopy(module)
    for name, p in line.named_parameters():
        p.data = state[name]["weight"].clone()
    for step, items in sorted(module.steps.items()):
        x = torch.stack([Numbers()[item][1] for item in items])
        line.zero_grad()
        (line.head(line.layer(x)).squeeze(-1) - x.sum(-1)).square().mean().backward()
        factor = lr_factor(
            step, warmup_steps=config.warmup_steps, schedule=config.schedule, total_steps=6
        )
        for name, p in line.named_parameters():
            s, (b1, b2) = state[name], config.betas
            key = next((k for k in config.lr_scale if k in name.split(".")), None)
            lr = config.lr * config.lr_scale.get(key, 1.0) * factor
            g = p.grad
            if config.name == "adam":
                g = g + config.weight_decay * p.data
            else:
                p.data = p.data * (1 - lr * config.weight_decay)
            s["m"], s["v"] = b1 * s["m"] + (1 - b1) * g, b2 * s["v"] + (1 - b2) * g**2
            m, v = s["m"] / (1 - b1 ** (step + 1)), s["v"] / (1 - b2 ** (step + 1))
            p.data = p.data - lr * m / (v.sqrt() + 1e-8)
    return dict(line.named_parameters())


@pytest.mark.parametrize("changes", CHANGES, ids=str)
@pytest.mark.parametrize("back", [False, True])
def test_the_configuration_beats_the_checkpoint_in_every_optimizer_value(tmp_path, changes, back):
    """3 steps with the one, 3 with the other, against Adam by hand; and the other way round."""
    before, after = ({}, changes)[:: -1 if back else 1]
    fit(tmp_path, max_steps=3, optimizer=before)
    half = read(tmp_path / "last.ckpt")
    module, trainer, _ = fit(tmp_path, tmp_path / "last.ckpt", max_steps=6, optimizer=after)
    saved = half["optimizer_states"][0]
    names = [name for group in saved["param_groups"] for name in group["param_names"]]
    state = {
        name: {
            "weight": half["state_dict"][name],
            "m": saved["state"][i]["exp_avg"],
            "v": saved["state"][i]["exp_avg_sq"],
        }
        for i, name in enumerate(names)
    }
    wanted = by_hand(module, module.config, state)
    for name, parameter in module.named_parameters():
        assert torch.allclose(parameter, wanted[name], rtol=1e-4, atol=1e-6), name
    groups = trainer.optimizers[0].param_groups
    assert all(group["betas"] == tuple(module.config.betas) for group in groups)
    assert all(
        group["decoupled_weight_decay"] == (module.config.name == "adamw") for group in groups
    )


def test_checkpoints_without_names_of_parameters_are_read_by_their_groups():
    old, new = Line(lr_scale={"head": 0.1}), Line(lr_scale={"bias": 2.0})
    made = configure(old.named_parameters(), old.config, 10)["optimizer"]
    for number, p in enumerate(old.parameters()):
        p.grad = torch.full_like(p, float(number + 1))
    made.step()
    saved = made.state_dict()
    for group in saved["param_groups"]:
        del group["param_names"]
    other = configure(new.named_parameters(), new.config, 10)["optimizer"]
    other.load_state_dict(saved)
    for number, p in enumerate(new.parameters()):  # exp_avg = (1 - 0.9) gradient
        assert torch.allclose(other.state[p]["exp_avg"], torch.full_like(p, 0.1 * (number + 1)))
    with pytest.raises(ValueError, match="has 4 parameters, this run's has 2"):
        part = OptimizerConfig(lr=1.0)
        configure(new.head.named_parameters(), part, 10)["optimizer"].load_state_dict(saved)
