"""Each callback by itself, on a trainer that only has what the callback reads."""

import signal
from pathlib import Path
from types import SimpleNamespace

import lightning as L
import pytest
import torch
from lightning.pytorch.demos.boring_classes import BoringModel
from lightning.pytorch.strategies import SingleDeviceStrategy
from torch import nn

from lit_mimdit.data.image_io import Photo, read_photo
from lit_mimdit.training import callbacks
from lit_mimdit.training.callbacks.losses import mean_by_bin
from lit_mimdit.training.callbacks.throughput import time as clock
from lit_mimdit.training.ema import EMA


class Logger:
    def __init__(self) -> None:
        self.seen: list[tuple[int, dict]] = []

    def log_metrics(self, values: dict, step: int) -> None:
        self.seen.append((step, values))


def trainer(step: int = 1, **more) -> SimpleNamespace:
    logger = Logger()
    return SimpleNamespace(
        **(
            {
                "global_step": step,
                "global_rank": 0,
                "world_size": 1,
                "is_global_zero": True,
                "logger": logger,
                "loggers": [logger],
                "precision_plugin": SimpleNamespace(),
                "strategy": SingleDeviceStrategy("cpu"),
            }
            | more
        )
    )


def test_losses_are_binned_by_time_by_hand():
    total, count = mean_by_bin(
        torch.tensor([1.0, 2.0, 4.0, 8.0]), torch.tensor([0.0, 0.49, 0.5, 1.0]), 2
    )
    assert total.tolist() == [3.0, 12.0] and count.tolist() == [2.0, 2.0]
    total, count = mean_by_bin(torch.tensor([3.0]), torch.tensor([1.0]), 4)
    assert total.tolist() == [0, 0, 0, 3.0] and count.tolist() == [0, 0, 0, 1]


def test_loss_by_time_logs_means_since_the_last_time_and_skips_empty_bins():
    callback, run = callbacks.LossByTime(bins=4, every_n_steps=2), trainer(0)
    callback.on_train_start(run, None)
    for step, loss, t in ((1, 1.0, 0.1), (2, 3.0, 0.2), (3, 9.0, 0.9), (4, 5.0, 0.8)):
        run.global_step = step
        callback.on_train_batch_end(
            run, None, {"per_sample": torch.tensor([loss]), "t": torch.tensor([t])}, None, 0
        )
    assert run.logger.seen == [(2, {"train/loss_t0.0-0.2": 2.0}), (4, {"train/loss_t0.8-1.0": 7.0})]


def test_loss_by_time_names_every_bin_differently():
    for bins in (1, 4, 10, 20, 64, 100):
        callback, run = callbacks.LossByTime(bins=bins, every_n_steps=1), trainer(1)
        t = (torch.arange(bins) + 0.5) / bins
        callback.on_train_batch_end(run, None, {"per_sample": torch.ones(bins), "t": t}, None, 0)
        assert len(run.logger.seen[0][1]) == bins


def test_loss_by_time_logs_once_a_step_when_gradients_are_accumulated():
    callback, run = callbacks.LossByTime(bins=1, every_n_steps=2), trainer(0)
    callback.on_train_start(run, None)
    for step in (0, 1, 1, 2, 2, 3):  # two micro-batches a step
        run.global_step = step
        callback.on_train_batch_end(
            run, None, {"per_sample": torch.ones(1), "t": torch.ones(1)}, None, 0
        )
    assert [step for step, _ in run.logger.seen] == [2]


class LoggedValues(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 1)
        self.logged: dict = {}

    def log(self, name: str, value, **_) -> None:
        self.logged[name] = float(value)


def test_throughput_is_images_over_time_without_validation(monkeypatch):
    now = iter([10.0, 12.0, 13.0, 100.0, 101.0])
    monkeypatch.setattr(clock, "perf_counter", lambda: next(now))
    callback, module, run = callbacks.Throughput(window=20), LoggedValues(), trainer(world_size=3)
    batch = {"id": ["a", "b"]}
    callback.on_train_batch_end(run, module, None, batch, 0)
    assert module.logged == {}
    callback.on_train_batch_end(run, module, None, batch, 1)
    assert module.logged["train/images_per_s"] == 6 / 2.0
    callback.on_train_batch_end(run, module, None, batch, 2)
    assert module.logged["train/images_per_s"] == 12 / 3.0
    callback.on_validation_end(run, module)
    callback.on_train_batch_end(run, module, None, batch, 3)
    callback.on_train_batch_end(run, module, None, batch, 4)
    assert module.logged["train/images_per_s"] == 6 / 1.0


def test_the_finite_guard_names_the_samples_and_stops_before_the_step():
    callback, module, run = callbacks.FiniteGuard(), LoggedValues(), trainer(7, global_rank=2)
    optimizer = torch.optim.SGD(module.parameters(), lr=1.0)
    callback.on_train_batch_start(run, module, {"id": ["01Blur/3", "05Noise/4"]}, 0)
    callback.on_before_backward(run, module, torch.tensor(1.0))
    with pytest.raises(
        ValueError, match=r"the loss is not finite \(rank 2, step 7, samples 01Blur/3, 05Noise/4\)"
    ):
        callback.on_before_backward(run, module, torch.tensor(float("nan")))
    module.layer(torch.ones(1, 2)).sum().backward()
    callback.on_before_optimizer_step(run, module, optimizer)
    assert module.logged["train/gradient_norm"] == pytest.approx(3**0.5)
    module.layer.bias.grad[0] = float("inf")
    with pytest.raises(ValueError, match="the gradient of layer.bias is not finite .*01Blur/3"):
        callback.on_before_optimizer_step(run, module, optimizer)


class Pictures:
    def __init__(self) -> None:
        self.images: list[tuple[str, torch.Size, int]] = []

    def add_image(self, tag: str, image: torch.Tensor, step: int) -> None:
        self.images.append((tag, image.shape, step))


def test_sample_pictures_are_the_first_images_side_by_side(monkeypatch):
    writer = Pictures()
    monkeypatch.setattr(
        "lit_mimdit.training.callbacks.samples.show_picture",
        lambda _, tag, pixels, step: writer.images.append((tag, pixels.shape, step)),
    )
    callback, run = callbacks.SamplePictures(count=3), trainer(5, sanity_checking=False)
    batch = {"lq": torch.zeros(2, 3, 8, 8), "gt": torch.ones(2, 3, 8, 8)}
    for _ in range(2):
        callback.on_validation_epoch_start(run, None)
        for _ in range(2):
            callback.on_validation_batch_end(
                run, None, {"restored": torch.full((2, 3, 8, 8), 0.5)}, batch, 0
            )
        assert (
            len(callback.rows) == 3
            and callback.rows[0][0, 0].tolist() == [0] * 8 + [0.5] * 8 + [1] * 8
        )
        callback.on_validation_epoch_end(run, None)
    assert writer.images == [("samples/lq_restored_gt", (3 * 12 + 4, 24 + 8, 3), 5)] * 2


def test_written_photographs_keep_their_form_and_their_folder(tmp_path):
    callback = callbacks.WriteRestored(str(tmp_path / "out"))
    callback.on_predict_start(None, None)
    photo = Photo(torch.rand(3, 4, 5), torch.full((1, 4, 5), 0.5), True, 16)
    callback.on_predict_batch_end(
        None,
        None,
        photo.rgb.mean(0, keepdim=True).expand(3, -1, -1),
        (Path("deep/a.png"), photo, 0),
        0,
    )
    callback.on_predict_batch_end(None, None, None, (Path("b.png"), ValueError(), 0), 0)
    written = read_photo(tmp_path / "out" / "deep" / "a.png")
    assert (
        written.gray
        and written.bits == 16
        and written.alpha is not None
        and not (tmp_path / "out" / "b.png").exists()
    )


def test_a_second_ctrl_c_stops_at_once_and_the_old_handler_comes_back():
    callback, before = callbacks.GracefulStop(), signal.getsignal(signal.SIGINT)
    run = trainer(checkpoint_callbacks=[], default_root_dir="nowhere")
    callback.on_train_start(run, None)
    signal.raise_signal(signal.SIGINT)
    assert callback.requested
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
    callback.on_exception(run, None, KeyboardInterrupt())
    assert signal.getsignal(signal.SIGINT) is before


class Watcher(L.Callback):
    """Notes what SIGTERM would do, at each batch of a command without training."""

    def __init__(self) -> None:
        self.seen: list = []

    def note(self, *_: object) -> None:
        self.seen.append(signal.getsignal(signal.SIGTERM))

    on_validation_batch_start = on_test_batch_start = on_predict_batch_start = note


@pytest.mark.parametrize("command", ["validate", "test", "predict"])
def test_sigterm_ends_a_command_that_has_nothing_to_save(command):
    """Lightning's own handler would note it, and go on to the end of the data."""
    before, watcher = signal.getsignal(signal.SIGTERM), Watcher()
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    stop = callbacks.GracefulStop()
    run = L.Trainer(accelerator="cpu", callbacks=[watcher, stop], **quiet)
    getattr(run, command)(BoringModel())
    assert watcher.seen and set(watcher.seen) == {signal.SIG_DFL}
    assert signal.getsignal(signal.SIGTERM) is before


def test_the_stop_must_stand_below_the_average():
    stop, average = callbacks.GracefulStop(), EMA()
    stop.setup(trainer(callbacks=[average, stop]), None, "fit")
    with pytest.raises(ValueError, match="GracefulStop.*below EMA"):
        stop.setup(trainer(callbacks=[stop, average]), None, "fit")


@pytest.mark.parametrize("scaler, stops", [(None, True), (object(), False)])
def test_a_gradient_that_overflows_is_left_to_the_scaler_of_fp16(scaler, stops):
    guard, logged = callbacks.FiniteGuard(), {}
    weight = nn.Parameter(torch.ones(2))
    weight.grad = torch.tensor([1.0, float("inf")])
    module = SimpleNamespace(
        named_parameters=lambda: [("weight", weight)],
        log=lambda name, value: logged.update({name: value}),
    )
    run = trainer(precision_plugin=SimpleNamespace(scaler=scaler))
    guard.on_train_batch_start(run, module, {"id": ["a"]}, 0)
    step = torch.optim.SGD([weight], lr=1.0)
    if stops:
        with pytest.raises(ValueError, match=r"gradient of weight is not finite.*samples a"):
            guard.on_before_optimizer_step(run, module, step)
    else:
        guard.on_before_optimizer_step(run, module, step)
        assert torch.isinf(logged["train/gradient_norm"])


@pytest.mark.parametrize(
    "name, options",
    [
        ("LossByTime", {"bins": 0}),
        ("LossByTime", {"every_n_steps": 0}),
        ("RoutingHistograms", {"every_n_steps": 0}),
        ("RoutingPictures", {"dead_below": 1.0}),
        ("RoutingScalars", {"dead_below": 0.0}),
        ("RoutingScalars", {"collapse_below": 1.0}),
        ("SamplePictures", {"count": 0}),
        ("Throughput", {"window": 0}),
        ("TrainingProgress", {"every_n_steps": 0}),
    ],
)
def test_impossible_settings(name, options):
    with pytest.raises(ValueError, match=f"{name}: .*{next(iter(options))}"):
        getattr(callbacks, name)(**options)
