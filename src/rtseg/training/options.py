"""What a run is made of: the `train` section of a recipe, its data, the plan that holds both."""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn
from torch.optim import Optimizer

from rtseg.checkpoint import ModelInfo
from rtseg.data.batch_augment import way_to
from rtseg.data.dataset import Dataset
from rtseg.data.loader import TargetFunction, TrainBatches
from rtseg.data.mixture import Mixture
from rtseg.data.transforms import Augmentation, Preprocess
from rtseg.errors import ConfigError, MissingError
from rtseg.tasks import Task
from rtseg.training.hooks import Hooks, no_hooks
from rtseg.training.optim import Schedule
from rtseg.training.processes import launched


@dataclass(frozen=True)
class TrainOptions:
    """Section `train` of a recipe.

    batch_size: Images per step, over all processes.
    epochs, iterations: Length of the run; exactly one of them.
    accumulate: Parts into which a step's batch is split to save memory.
    seed: Of weights, order and augmentation.
    precision: Of the network's arithmetic (weights stay float32); auto: bf16 where it is native.
    compile: Whether torch.compile translates the step.
    channels_last: Whether images and weights lie in memory with the channels innermost.
    clip_norm: Largest norm of the gradient; None: any.
    freeze_batch_norm: Whether batch norms normalize with the statistics that the network starts
        with, instead of those of each batch; for fine-tuning with small batches.
    sync_batch_norm: Whether batch norms take their statistics from all processes (GPUs only).
    ema_decay: Of a moving average of the weights, which is then what is scored and saved.
    ema_ramp: Steps in which the decay rises, at step n to ema_decay * (1 - exp(-n / ema_ramp)); the
        statistics of batch norms are then averaged too. None: a short rise, no statistics.
    val_every, save_every: In steps; None: once per epoch.
    log_every: In steps.
    show_images: Validation images that are drawn with what is found in them; 0: none.
    check: Whether all files are checked before the first step; what does not change, only once.
    early_stop: Validations without a better score after which the run ends; None: never.
    monitor: Score that decides what is `best`.
    device: auto, cpu, cuda or cuda:i.
    devices, num_nodes: Processes per node, and nodes; torchrun and srun say so themselves.
    threads: Of the CPU; None: PyTorch's choice, or on resuming the number the run had.
    """

    batch_size: int
    epochs: int | None = None
    iterations: int | None = None
    accumulate: int = 1
    seed: int = 0
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "fp32"
    compile: bool = False
    channels_last: bool = False
    clip_norm: float | None = None
    freeze_batch_norm: bool = False
    sync_batch_norm: bool = False
    ema_decay: float | None = None
    ema_ramp: float | None = None
    val_every: int | None = None
    save_every: int | None = 200
    log_every: int = 10
    show_images: int = 4
    check: bool = True
    early_stop: int | None = None
    monitor: str = "miou"
    device: str = "auto"
    devices: int = 1
    num_nodes: int = 1
    threads: int | None = None

    def __post_init__(self) -> None:
        if (self.epochs is None) == (self.iterations is None):
            raise ConfigError(
                "set exactly one of epochs and iterations",
                where="train",
                fix="for example train.epochs=10 train.iterations=null",
            )
        names = ("batch_size", "epochs", "iterations", "accumulate", "val_every", "save_every")
        for name in (*names, "log_every", "early_stop", "devices", "num_nodes", "threads"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(
                    f"{value} is too small", where=f"train.{name}", fix="set it to 1 or more"
                )
        if self.show_images < 0:
            raise ConfigError(
                f"{self.show_images} is too small", where="train.show_images", fix="0 draws none"
            )
        if self.seed < 0 or (self.clip_norm is not None and self.clip_norm <= 0):
            raise ConfigError(
                f"seed {self.seed} must not be negative and clip_norm {self.clip_norm} not 0",
                where="train",
                fix="leave them out for seed 0 and no clipping",
            )
        if self.freeze_batch_norm and self.sync_batch_norm:
            raise ConfigError(
                "frozen statistics cannot be taken from all processes",
                where="train.sync_batch_norm",
                fix="leave it or train.freeze_batch_norm out",
            )
        if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", self.device):
            raise ConfigError(
                f"{self.device!r} is no device", where="train.device", fix="auto, cpu or cuda:0"
            )
        if self.ema_decay is not None and not 0 <= self.ema_decay < 1:
            raise ConfigError(
                f"{self.ema_decay} is outside [0, 1)", where="train.ema_decay", fix="try 0.999"
            )
        if self.ema_ramp is not None and (self.ema_decay is None or self.ema_ramp <= 0):
            raise ConfigError(
                f"{self.ema_ramp} needs an ema_decay and more than 0 steps",
                where="train.ema_ramp",
                fix="set train.ema_decay too, or leave both out",
            )

    @property
    def layout(self) -> tuple[int, int]:
        """Processes per node, and nodes: as a launcher has started them, else as options say."""
        return launched() or (self.devices, self.num_nodes)

    @property
    def processes(self) -> int:
        """All processes of a run."""
        return math.prod(self.layout)

    def steps(self, batches_per_epoch: int) -> int:
        """Return the number of steps of the whole run."""
        if self.iterations is not None:
            return self.iterations
        return (self.epochs or 0) * batches_per_epoch


@dataclass(frozen=True)
class TrainData:
    """What a run reads.

    train, val: The sets; without `val` nothing is scored and there is no `best`.
    augment, preprocess: Transforms of training images, and of all images.
    workers: Reading processes.
    max_bad: Share of unreadable training images at which the run ends.
    augment_on: Whether images are augmented where they are read, or on the device that trains, with
        the same results.
    select: Whether `val` may choose the best checkpoint; never so on a test split.
    target: Makes the targets of training batches; None: the task does.
    """

    train: Dataset
    val: Dataset | None
    augment: Augmentation
    preprocess: Preprocess
    workers: int = 0
    max_bad: float = 0.001
    augment_on: Literal["loader", "device"] = "loader"
    select: bool = True
    target: TargetFunction | None = None

    def __post_init__(self) -> None:
        if self.workers < 0 or not 0 <= self.max_bad <= 1:
            raise ConfigError(
                f"workers {self.workers} must be 0 or more and max_bad {self.max_bad} in 0..1",
                where="data",
                fix="0 workers read in the main process; max_bad 0.001 is one image in 1000",
            )
        way_to(self.augment, self.preprocess, on=self.augment_on, device=torch.device("cpu"))

    @property
    def source(self) -> int | Mixture:
        """What an epoch draws from, as `TrainBatches` takes it."""
        return self.train if isinstance(self.train, Mixture) else len(self.train)

    @property
    def epoch_length(self) -> int:
        """Images that an epoch draws: all, or as many as the weights of a mixture say."""
        return self.train.draws if isinstance(self.train, Mixture) else len(self.train)


@dataclass(frozen=True)
class Plan:
    """Everything that a recipe describes, built and checked; nothing has happened yet.

    model: The network, on the CPU. task: Target, loss and metric. optimizer: From a module's
    parameters. schedule: From the number of steps. info: What the checkpoints will say. notes: What
    the log says before the first step. hooks: What changes the network while it trains, from the
    number of steps. around: Entered before the run and left after it, however it ends.
    """

    model: nn.Module
    task: Task
    data: TrainData
    options: TrainOptions
    optimizer: Callable[[nn.Module], Optimizer]
    schedule: Callable[[int], Schedule]
    info: ModelInfo
    notes: tuple[str, ...] = ()
    hooks: Callable[[int], Hooks] = no_hooks
    around: Callable[[], AbstractContextManager[None]] = nullcontext

    def check(self) -> None:
        """Try what would otherwise fail after the start or after the first epoch.

        Raises:
            ConfigError: Batch size, schedule, optimizer or monitor do not fit data and network.
        """
        options, data = self.options, self.data
        batches = TrainBatches(
            data.source,
            batch_size=options.batch_size,
            seed=options.seed,
            parts=options.accumulate,
            world=options.processes,
        )
        self._check_smallest_batch()
        if options.sync_batch_norm and device_of(options).type == "cpu":
            raise ConfigError(
                "batch norms cannot take statistics from several processes on the CPU",
                where="train.sync_batch_norm",
                fix="set it to false, or train on GPUs",
            )
        self.schedule(options.steps(batches.batches_per_epoch))
        self.optimizer(self.model)
        if data.val is None or not data.select:
            return
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # an empty metric says that it is empty
            known = self.task.new_metric().compute()
        if options.monitor not in known:
            raise ConfigError(
                f"{options.monitor!r} is no score",
                where="train.monitor",
                fix=f"choose one of: {', '.join(sorted(known))}",
            )

    def _check_smallest_batch(self) -> None:
        """Refuse parts that a network or task with `smallest_batch` cannot be trained on."""
        options = self.options
        if options.freeze_batch_norm:
            return
        pieces = options.accumulate * options.processes
        part = options.batch_size // pieces
        smallest = max(int(getattr(item, "smallest_batch", 1)) for item in (self.model, self.task))
        if part < smallest:
            raise ConfigError(
                f"leaves {part} images for each of {options.accumulate} parts on "
                f"{options.processes} processes; batch norms of this network need {smallest} at "
                "once",
                where="train.batch_size",
                fix=f"set it to {smallest * pieces} or more",
            )


def device_of(options: TrainOptions) -> torch.device:
    """Return the device that options name, without an index if any will do.

    Raises:
        MissingError: It is CUDA, and there is none.
    """
    kind = options.device
    if kind == "auto":
        kind = "cuda" if torch.cuda.is_available() else "cpu"
    if kind != "cpu" and not torch.cuda.is_available():
        raise MissingError("no CUDA device was found", where="train.device", fix="use device=cpu")
    return torch.device(kind)


def native_bf16(device: str) -> bool:
    """Return whether a device (`cpu` or `cuda`) computes in bfloat16 itself.

    Where it does not, bf16 is slower than fp32; a matrix product on a CPU without the instructions
    takes hundreds of times as long.
    """
    if device == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
