"""Train a small language model on text, by default on this Python's own source.

    python train.py [name=value ...]          by hand
    scaimind submit job.yaml                   through MindCoordinator

Hyperparameters (steps=1000, learning_rate=0.003, ...) come from the job, then from the arguments.
"""

import os
import sys
import time
from pathlib import Path

# A CPU device is one core, and these products are so small that a second thread doubles the work
# for a tenth less time. Read by numpy when it loads.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from tinylm import files, generate, settings, text
from tinylm.trainer import Trainer

import scaimind

DEFAULT_CHECKPOINT_STEPS = 100
PROMPT = "def "


def main(arguments: list[str]) -> int:
    """Train, or go on training; returns the process's exit code."""
    run = scaimind.init()
    if not run.is_main:
        print(f"rank {run.rank}: this example trains on rank 0 alone")
        run.done()
        return 0
    try:
        trainer = prepare(run, arguments)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if not train(run, trainer):
        print(f"stopped at step {trainer.step} of {trainer.settings.steps} as asked")
        return 0
    finish(run, trainer)
    run.done()
    return 0


def prepare(run: scaimind.Attempt, arguments: list[str]) -> Trainer:
    """The trainer at its first or resumed step; ValueError or OSError where that cannot be."""
    extra = [argument.partition("=") for argument in arguments]
    chosen = settings.parse(run.hyperparameters | {name: value for name, _, value in extra})
    source = run.data_paths[0] if run.data_paths else text.standard_library()
    corpus = text.load(source, seed=chosen.seed, context=chosen.context)
    trainer = Trainer(chosen, corpus)
    print(f"text: {len(corpus.train):,} bytes to learn from in {corpus.files} files of {source}")
    print(f"model: {trainer.shape.size:,} parameters, {trainer.shape}")
    if run.resume_from is not None:
        if not files.load_checkpoint(run.resume_from, trainer):
            run.message("the text differs from the checkpoint's", level="WARNING")
        print(f"resumed at step {trainer.step} from {run.resume_from}")
    return trainer


def train(run: scaimind.Attempt, trainer: Trainer) -> bool:
    """Do the steps that are left; False where a stop was asked for before the last."""
    chosen = trainer.settings
    asked_steps = int(run.config["output_config"].get("checkpoint_interval_steps") or 0)
    every = asked_steps if asked_steps > 0 else DEFAULT_CHECKPOINT_STEPS
    steps = run.track(chosen.steps, start=trainer.step)
    meter = Meter(chosen.batch_size * chosen.context, steps=chosen.steps)
    for step in steps:
        result = trainer.advance()
        last = step == chosen.steps
        values = result._asdict() | {"tokens_per_second": meter.tokens_per_second()}
        if last or step % chosen.validate_every == 0:
            values["val_loss"] = meter.val_loss = trainer.validate()
        run.log(values, step=step)
        if last or step == 1 or step % chosen.log_every == 0:
            meter.show(step, result.loss, eta_seconds=steps.eta_seconds)
        if last or run.should_stop or run.should_checkpoint or step % every == 0:
            with run.checkpoint(step) as folder:
                files.save_checkpoint(folder, trainer)
        if run.should_stop and not last:
            return False
    return True


def finish(run: scaimind.Attempt, trainer: Trainer) -> None:
    """Write the model and a sample of what it writes."""
    chosen = trainer.settings
    paths = files.save_model(run.output_dir, trainer.model)
    sample = generate.write(
        trainer.model, PROMPT, count=chosen.sample_bytes, temperature=0.7, seed=chosen.seed
    )
    Path(run.output_dir, "sample.txt").write_text(sample + "\n")
    print(f"what it writes after {PROMPT!r}:")
    print("\n".join(f"  | {line}" for line in sample.splitlines()))
    print(f"model: {', '.join(path.name for path in paths)} in {run.output_dir}")


class Meter:
    """Speed of the last steps, and the line for people."""

    def __init__(self, tokens_per_step: int, *, steps: int) -> None:
        self.val_loss: float | None = None
        self._tokens_per_step = tokens_per_step
        self._steps = steps
        self._last_s = time.monotonic()
        self._step_s = 0.0

    def tokens_per_second(self) -> float:
        """Call once a step: the pace, smoothed over about ten steps."""
        now_s = time.monotonic()
        spent_s, self._last_s = now_s - self._last_s, now_s
        self._step_s = 0.9 * self._step_s + 0.1 * spent_s if self._step_s else spent_s
        return self._tokens_per_step / max(self._step_s, 1e-9)

    def show(self, step: int, loss: float, *, eta_seconds: float | None) -> None:
        """Print one line."""
        pace = self._tokens_per_step / max(self._step_s, 1e-9)
        val = f"{self.val_loss:6.3f}" if self.val_loss is not None else "     -"
        eta = f"{eta_seconds // 60:.0f}:{eta_seconds % 60:02.0f}" if eta_seconds else "-"
        print(
            f"step {step:>5}/{self._steps}  loss {loss:6.3f}  val {val}  {pace:8,.0f} tok/s"
            f"  eta {eta}",
            flush=True,
        )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
