"""Run a checkpoint with what is fastest on this machine; exported when it is first needed."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rtseg.checkpoint import Checkpoint
from rtseg.data.pixels import to_tensor
from rtseg.data.preprocess import Preprocess
from rtseg.data.synthetic import Synthetic
from rtseg.errors import ConfigError, DataError, MissingError, nearest
from rtseg.export.choose import chosen
from rtseg.export.int8 import ALIKE
from rtseg.inference.exports import Decision, Kept, Size
from rtseg.inference.trial import Trial, TrialFailedError, median_ms, run_trial
from rtseg.runtimes import (
    ENGINES,
    NETWORKS,
    RUNTIMES,
    Runtime,
    installed,
    open_export,
    run_network,
    use_threads,
)

VARIABLE = "RTSEG_RUNTIME"
"""Environment variable: what `auto` means for checkpoints."""
CANDIDATES: dict[str, tuple[str, ...]] = {"openvino": ("fp32", "bf16"), "onnxruntime": ("fp32",)}
"""What may be chosen on a CPU, the first that is installed: its precisions are measured, and an
int8 export of the network if the user has made one; its score was judged when it was made, so that
`ALIKE` of the pixels of the first image are enough."""
PLAIN = "torch fp32"
AGREEMENT = 0.995
"""Share of pixels of the first image that must get the class that they get from plain torch."""
DRAWN_AGREEMENT = 0.97
"""decision: the same of a drawn street, which guards against a first image that shows nothing. A
network that has never seen drawn streets wavers on them, so that they ask for less."""
SIZES = 2
"""decision: for so many sizes of the input one process exports a network that takes one size only;
the rest of a folder of odd images is run by torch."""
Notify = Callable[[str], None]


class RuntimeNotice(UserWarning):
    """What was chosen to run a network, and what that took."""


def warn(text: str) -> None:
    """Tell it as a warning of class `RuntimeNotice`."""
    warnings.warn(text, RuntimeNotice, stacklevel=2)


def with_runtime(
    loaded: Checkpoint,
    preprocess: Preprocess,
    *,
    runtime: str = "auto",
    device: torch.device,
    threads: int | None = None,
    notify: Notify = warn,
) -> Checkpoint:
    """Return a checkpoint whose network is run by something else; with torch it stays as it is.

    Args:
        loaded: From a checkpoint folder.
        preprocess: Its preprocessing.
        runtime: Key of `RUNTIMES`, or `auto`: what `RTSEG_RUNTIME` says, else the fastest on a CPU,
            and torch on other devices.
        device: Where to compute.
        threads: Threads to compute with; those of torch if left out.
        notify: Called with a line whenever something takes long, and with what came of it.

    Raises:
        ConfigError: The runtime has no such name.
        MissingError: The runtime is not installed, or not for this device.
    """
    name = _named(runtime)
    if name == "auto" and device.type != "cpu":
        name = "torch"
    if name == "torch":
        use_threads(threads or torch.get_num_threads())
        return loaded
    if name in NETWORKS:
        model = run_network(loaded.model, name, device=device, threads=threads)
        return replace(loaded, model=model.eval())
    if name != "auto" and name not in installed(device):
        there = ", ".join(("torch", *installed(device)))
        raise MissingError(
            f"runtime {name!r} is not installed for {device}",
            fix=f"install {ENGINES[name].package}, or use one of: {there}",
        )
    count = threads or torch.get_num_threads()
    chosen_later = Automatic(
        loaded, preprocess, runtime=name, device=device, threads=count, notify=notify
    )
    return replace(loaded, model=chosen_later.eval())


def _named(runtime: str) -> str:
    """Return the runtime that a name means, after the environment was asked about `auto`."""
    where, name = "", runtime
    if runtime == "auto":
        where, name = VARIABLE, os.environ.get(VARIABLE) or "auto"
    if name not in ("auto", *RUNTIMES):
        close = nearest(name, ["auto", *RUNTIMES], count=1)[0]
        raise ConfigError(
            f"runtime {name!r} is unknown", where=where, fix=f"did you mean {close!r}?"
        )
    return name


class Automatic(Runtime):
    """Export a network when the first image comes, and run it with the best engine from then on.

    `engine` and `precision` are those of the last run.

    Args:
        loaded: From a checkpoint folder.
        preprocess: Its preprocessing, for the street on which classes are compared.
        runtime: `auto`, or the engine that shall run it.
        device: Where to compute.
        threads: Threads to compute with.
        notify: Called with a line whenever something takes long, and with what came of it.
    """

    def __init__(
        self,
        loaded: Checkpoint,
        preprocess: Preprocess,
        *,
        runtime: str,
        device: torch.device,
        threads: int,
        notify: Notify,
    ) -> None:
        super().__init__(self._run_chosen, engine=runtime, precision="fp32", device=device)
        self.loaded, self.preprocess, self.notify = loaded, preprocess, notify
        self.wanted, self.threads = runtime, threads
        self.kept: Kept | None = None
        self.plain = run_network(loaded.model, device=device, threads=threads)
        self.chosen: dict[Size, Runtime] = {}
        self.for_any_size: Runtime | None = None

    def _run_chosen(self, images: Tensor) -> Any:
        model = self.choose(images)
        self.engine, self.precision = model.engine, model.precision
        return model(images)

    def choose(self, images: Tensor) -> Runtime:
        """Return what runs images of this size; the first time that may take a minute.

        Args:
            images: (B, 3, H, W), normalized. If the choice is still open, it is made on the first.

        Raises:
            RtsegError: A certain engine is wanted, and the network cannot be exported for it.
        """
        size = (images.shape[-2], images.shape[-1])
        if size not in self.chosen:
            self.chosen[size] = self.for_any_size or self._choose(images[:1], size)
        return self.chosen[size]

    def _choose(self, image: Tensor, size: Size) -> Runtime:
        if len(self.chosen) >= SIZES:
            if len(self.chosen) == SIZES:
                self.notify(f"torch runs all sizes but the first {SIZES}: the files take one each")
            return self.plain
        automatic = self.wanted == "auto"
        model = self._best(image, size) if automatic else self._exported(self.wanted, size)
        model(torch.zeros(1, 3, *size))  # compiles what is compiled at the first run
        if model.manifest is not None and None in model.manifest.image.shape[2:]:
            self.for_any_size = model
        return model

    def _exported(self, engine: str, size: Size, precision: str | None = None) -> Runtime:
        """Return an engine with the export that is kept for it, made now if there is none."""
        return self._open(self._folder(engine, size), engine, precision)

    def _open(self, folder: Path, engine: str, precision: str | None) -> Runtime:
        opened = open_export(
            folder, runtime=engine, device=self.device, threads=self.threads, precision=precision
        )
        assert isinstance(opened.model, Runtime)
        return opened.model

    def _keeper(self) -> Kept:
        self.kept = self.kept or Kept(self.loaded)
        return self.kept

    def _folder(self, engine: str, size: Size) -> Path:
        kept = self._keeper()
        form = ENGINES[engine].formats[0]
        folder = kept.export(form, size)
        if folder is None:
            self.notify(
                f"exporting the network once for {engine} (tens of seconds; runtime torch needs "
                f"none) into {kept.folder}"
            )
            folder = kept.make_export(form, size)
        return folder

    # ------------------------------------------------------------ the fastest that is right
    def _best(self, image: Tensor, size: Size) -> Runtime:
        """Return what was found to be best, or plain torch if nothing else can run it."""
        engine = next((name for name in CANDIDATES if name in installed()), None)
        if engine is None:
            return self._torch("no faster engine is installed; pip install 'rtseg[onnx,openvino]'")
        try:
            extra = self._keeper().eight_bits(ENGINES[engine].formats, size)
            known = self._keeper().decision(size, self.threads, extra)
            decision = known or self._decide(engine, image, size, extra)
            if decision.runtime in NETWORKS:
                return self._torch("; ".join(decision.reasons.values()) or "nothing is faster")
            if decision.precision == "int8" and extra is not None:
                return self._open(extra, decision.runtime, "int8")
            return self._exported(decision.runtime, size, decision.precision)
        except Exception as error:  # whatever goes wrong in an engine: there is always torch
            return self._torch(" ".join(str(error).split())[:300] or type(error).__name__)

    def _torch(self, reason: str) -> Runtime:
        self.notify(f"torch runs the network ({reason})")
        return self.plain

    def _decide(self, engine: str, image: Tensor, size: Size, extra: Path | None) -> Decision:
        """Measure, compare with plain torch, and remember what is best; also that nothing works."""
        kept = self._keeper()
        try:
            folders = dict.fromkeys(CANDIDATES[engine], self._folder(engine, size))
            folders |= {} if extra is None else {"int8": extra}
            decision = self._compare(folders, engine, torch.cat([image, self._scene(size)]))
        except DataError:  # a full disk may be empty tomorrow
            raise
        except Exception as error:
            nothing = Decision("torch", "fp32", reasons={engine: str(error)})
            kept.keep(nothing, size, self.threads, extra)
            raise
        kept.keep(decision, size, self.threads, extra)
        times = ", ".join(f"{name} {value:.1f}" for name, value in decision.milliseconds.items())
        self.notify(f"{decision.runtime} {decision.precision} is chosen; ms an image: {times}")
        return decision

    def _compare(self, folders: Mapping[str, Path], engine: str, images: Tensor) -> Decision:
        """Measure and compare on two images (2, 3, H, W): the user's own, and a drawn street."""
        expected = [chosen(self.plain(image[None])) for image in images]
        times, shares, reasons = {PLAIN: median_ms([self.plain], images[:1])[0]}, {}, {}
        passed = [PLAIN]
        for name, trial in self._trials(folders, engine, images).items():
            if isinstance(trial, TrialFailedError):
                reasons[name] = f"{name} {trial}"
                continue
            times[name] = trial.milliseconds
            found = [chosen(output) for output in trial.outputs]
            own, drawn = (agreement(*pair) for pair in zip(expected, found, strict=True))
            shares[name] = own
            least_own, least_drawn = (
                (ALIKE, 0.0) if name.endswith("int8") else (AGREEMENT, DRAWN_AGREEMENT)
            )
            if own >= least_own and drawn >= least_drawn:
                passed.append(name)
            else:
                where = f"{own:.2%} of the pixels, {drawn:.2%} of a drawn street"
                reasons[name] = f"{name} agrees at {where} only"
        runtime, precision = min(passed, key=times.__getitem__).split()
        return Decision(runtime, precision, times, shares, reasons)

    def _trials(
        self, folders: Mapping[str, Path], engine: str, images: Tensor
    ) -> dict[str, Trial | TrialFailedError]:
        """Try all precisions by turns; if that fails, each alone, to learn which one it was."""
        found: dict[str, Trial | TrialFailedError] = {}
        for group in (tuple(folders), *((precision,) for precision in folders)):
            missing = {item: folders[item] for item in group if f"{engine} {item}" not in found}
            if not missing:
                continue
            try:
                trials = run_trial(missing, images, runtime=engine, threads=self.threads)
            except TrialFailedError as error:
                if len(missing) == 1:
                    found[f"{engine} {group[0]}"] = error
            else:
                found |= {f"{engine} {item}": trial for item, trial in trials.items()}
        return found

    def _scene(self, size: Size) -> Tensor:
        """Return a drawn street of a size, normalized: (1, 3, H, W)."""
        drawn = to_tensor(Synthetic(split="test", size=size, length=1)[0].image)
        return self.preprocess.normalize(drawn[None]).to(self.device)


def agreement(expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> float:
    """Return the share of pixels with the same class, of the map where it is lowest."""
    return min((expected[key] == found[key]).float().mean().item() for key in expected)
