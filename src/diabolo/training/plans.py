"""The training plans: all weights at once, or pairs of layers first."""

from __future__ import annotations

import time
from contextlib import nullcontext
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from diabolo.autoencoder import AutoencoderModule
from diabolo.errors import IncompatiblePartsError
from diabolo.objective import Objective
from diabolo.parts import Deterministic, LayerWise, Network, Penalty, SquaredError
from diabolo.recipe import Recipe
from diabolo.training.checkpoint import Checkpoint
from diabolo.training.dense import DenseStep
from diabolo.training.engine import Progress, Stage
from diabolo.training.feed import Feed, MemoryFeed, as_feed
from diabolo.training.half import check_half
from diabolo.training.history import History
from diabolo.training.machine import flop_per_step, keep_memory, threads_for
from diabolo.training.settings import Settings
from diabolo.training.workers import Workers, is_first, n_workers


def train(
    module: AutoencoderModule,
    recipe: Recipe,
    data: Tensor | Feed,
    held_out: Tensor | None,
    generator: torch.Generator,
    progress: Progress | None = None,
    checkpoint: Checkpoint | None = None,
) -> tuple[History, bool]:
    """Train ``module`` by ``recipe``; return the history and whether the user interrupted it.

    Where torch.distributed has a group, its workers train together and each ends with the same module;
    the first one writes the checkpoints.

    Parameters
    ----------
    module : AutoencoderModule
        Ends with its best weights, in evaluation mode.
    recipe : Recipe
    data, held_out : Tensor (n, *shape) or Feed, Tensor (v, *shape) or None
        Rows in scaled units, on the module's device.
    generator : torch.Generator
        On the same device.
    progress : callable(row, total_epochs), optional
        Called after every epoch.
    checkpoint : Checkpoint, optional
        Keeps where the training stands, and has it go on from there.

    Raises
    ------
    DivergedError
        Where no learning rate keeps the weights finite.
    CheckpointError
        Where the checkpoint to go on from is another run's.
    IncompatiblePartsError, InvalidParameterError
        Where several workers cannot give one worker's result.
    """
    _ready(module, recipe)
    data = as_feed(data)
    workers = Workers.join(generator) if n_workers() > 1 else None
    if workers is not None:
        generator = workers
        workers.check(module, recipe, data, 0 if checkpoint is None else checkpoint.epochs_done)
    history = History()
    settings = _settings(recipe)
    started = time.perf_counter()
    layerwise = isinstance(recipe.training, LayerWise)
    stages = 1 + (len(module.pairs or ()) if layerwise else 0)
    if checkpoint is not None:
        checkpoint.writes = is_first()
        checkpoint.begin(module, recipe, data, held_out, stages)
        started -= checkpoint.seconds
    run = _Run(recipe, settings, data, held_out, generator, history, started, progress, checkpoint)
    with (
        threads_for(flop_per_step(module, data.sample_shape, min(settings.batch_size, len(data)))),
        nullcontext() if workers is None else workers.listening(),
    ):
        if isinstance(recipe.training, LayerWise) and _pretrain(module, recipe.training, run):
            return history, True
        total = settings.epochs + run.epochs_before
        run.passed(stages - 1)
        stage = Stage(module, recipe.objective(), data, held_out, settings, generator)
        name = "fine-tuning" if layerwise else "end_to_end"
        interrupted = stage.run(history, name, started, progress, total, checkpoint)
    # told to stop when the last step had been made
    return history, interrupted or (workers is not None and workers.stopped)


def continue_training(
    module: AutoencoderModule, recipe: Recipe, data: Tensor | Feed, history: History, stage: Stage | None
) -> Stage:
    """Go once through ``data`` at a constant rate; return the stage for the next call to go on with."""
    _ready(module, recipe)
    data = as_feed(data)
    settings = replace(_settings(recipe), epochs=1, schedule="constant", patience=None)
    if stage is None:
        generator = torch.Generator(data.device).manual_seed(recipe.seed)
        stage = Stage(module, recipe.objective(), data, None, settings, generator)
    elif stage.settings != settings:
        stage = _told_anew(stage, data, settings)
    stage.use(data)
    with threads_for(flop_per_step(module, stage.data.sample_shape, min(recipe.batch_size, len(data)))):
        if stage.run(history, "partial_fit", time.perf_counter(), None, 1):
            raise KeyboardInterrupt
    return stage


def _told_anew(before: Stage, data: Feed, settings: Settings) -> Stage:
    """Return a stage with other settings that goes on with all that another one has gathered on its way."""
    generator = before.generator
    state = generator.get_state()
    stage = Stage(before.module, before.objective, data, None, settings, generator)
    generator.set_state(state)
    stage.steps_done, stage.first_total = before.steps_done, before.first_total
    stage.rate *= before.rate / before.settings.learning_rate  # lower where something diverged
    for new, old in zip(stage.step.optimizers, before.step.optimizers, strict=True):
        groups = new.state_dict()["param_groups"]
        new.load_state_dict({"state": old.state_dict()["state"], "param_groups": groups})
    return stage


def _ready(module: AutoencoderModule, recipe: Recipe) -> None:
    """Make the process ready to train the whole module; raise for a setting without effect on it."""
    keep_memory()
    if recipe.precision == "bf16" and recipe.engine in ("auto", DenseStep.name):
        check_half(module)


def _settings(recipe: Recipe) -> Settings:
    return Settings(
        recipe.learning_rate,
        recipe.optimizer,
        recipe.batch_size,
        recipe.epochs,
        recipe.schedule,
        recipe.weight_decay,
        recipe.clip_norm,
        recipe.patience,
        recipe.engine,
        recipe.precision,
    )


@dataclass
class _Run:
    """What every stage of one fit shares."""

    recipe: Recipe
    settings: Settings
    data: Feed
    held_out: Tensor | None
    generator: torch.Generator
    history: History
    started: float
    progress: Progress | None
    checkpoint: Checkpoint | None = None
    epochs_before: int = 0

    def passed(self, stage: int) -> bool:
        """Enter the stage with this number; return whether a run that is resumed has it behind it."""
        return self.checkpoint is not None and self.checkpoint.passed(stage)


def _pretrain(module: AutoencoderModule, plan: LayerWise, run: _Run) -> bool:
    """Train the pairs from the bottom up; return whether the user interrupted it.

    The pair's own module shares its layers with the whole, so what it learns stays there. The last
    block of the encoder and the first of the decoder close on the code itself.
    """
    assert module.pairs is not None
    epochs = plan.epochs or max(1, run.settings.epochs // 2)
    settings = replace(run.settings, epochs=epochs, patience=None)
    run.epochs_before = epochs * len(module.pairs)
    total = run.settings.epochs + run.epochs_before
    below, held_out = run.data, run.held_out
    for i, mirrored in enumerate(module.pairs):
        top = i == len(module.pairs) - 1
        pair = _pair(module, i, mirrored, plan, run.recipe)
        if run.passed(i):
            pair.eval()
        else:
            penalties = _fitting(run.recipe, top) if plan.penalize else ()
            revival = run.recipe.objective().revival_weight if top else 0.0
            stage = Stage(pair, Objective(penalties, revival), below, held_out, settings, run.generator)
            if stage.run(run.history, f"pair {i + 1}", run.started, run.progress, total, run.checkpoint):
                module.eval()
                return True
        if not top:
            try:
                below = below.mapped(pair.encode)
                held_out = None if held_out is None else MemoryFeed(held_out).mapped(pair.encode).rows
            except KeyboardInterrupt:
                run.history.stopped_by = "interrupt"
                run.history.events.append(f"pair {i + 1}: interrupted after it; the weights so far are kept")
                module.eval()
                return True
    return False


def _pair(
    module: AutoencoderModule, i: int, mirrored: int, plan: LayerWise, recipe: Recipe
) -> AutoencoderModule:
    assert module.pairs is not None
    encoder, decoder = module.encoder[i], module.decoder[mirrored]
    assert isinstance(encoder, nn.Sequential)
    assert isinstance(decoder, nn.Sequential)
    top = i == len(module.pairs) - 1
    return AutoencoderModule(
        Network(encoder, decoder, module.code_shape if top else (), []),
        module.latent if top else Deterministic().build(1, None),
        module.loss if i == 0 else SquaredError().build(),
        recipe.corruption if plan.corrupt else None,
    )


def _fitting(recipe: Recipe, top: bool) -> tuple[Penalty, ...]:
    """Return the penalties that can act on a pair: on a hidden layer only those that fit plain codes."""
    if top:
        return recipe.penalty
    chosen = []
    for penalty in recipe.penalty:
        try:
            penalty.check_fits(Deterministic(), getattr(recipe.architecture, "activation", None))
        except IncompatiblePartsError:
            continue
        chosen.append(penalty)
    return tuple(chosen)
