"""One training: the model, its optimiser and its place in the data, a step at a time."""

from typing import NamedTuple

import numpy as np

from tinylm import text
from tinylm.model import Array, Model, Shape, initial
from tinylm.optimizer import AdamW, learning_rate
from tinylm.settings import Settings

_VALIDATION_BATCHES = 4
_KEPT_BYTES = 30 * 1024 * 1024


class StepResult(NamedTuple):
    """What one step showed: loss in nats per byte before it, rate and gradient norm of it."""

    loss: float
    learning_rate: float
    grad_norm: float


class Trainer:
    """Everything that a step changes; `step` counts the steps done."""

    def __init__(self, settings: Settings, corpus: text.Corpus) -> None:
        self.settings = settings
        self.corpus = corpus
        self.step = 0
        self.shape = Shape(settings.context, settings.d_model, settings.layers, settings.heads)
        self.model = Model(initial(self.shape, seed=settings.seed), self.shape)
        self.optimizer = AdamW(
            self.shape, weight_decay=settings.weight_decay, grad_clip=settings.grad_clip
        )
        self._grad: Array = np.zeros(self.shape.size, np.float32)
        # Freeing one large block teaches glibc to keep memory rather than to give it back and
        # fetch it again for the temporaries of every step, which cost a third of the time.
        np.empty(_KEPT_BYTES, np.uint8)

    def advance(self) -> StepResult:
        """Do the next step."""
        self.step += 1
        s = self.settings
        inputs, targets = text.windows(
            self.corpus.train, key=(s.seed, self.step), count=s.batch_size, context=s.context
        )
        loss = self.model.gradient(inputs, targets, grad=self._grad)
        rate = learning_rate(
            self.step, peak=s.learning_rate, warmup_steps=s.warmup_steps, steps=s.steps
        )
        norm = self.optimizer.update(self.model.flat, self._grad, step=self.step, rate=rate)
        return StepResult(loss, rate, norm)

    def validate(self) -> float:
        """Mean loss on the same windows of the validation text each time."""
        s = self.settings
        losses = []
        for batch in range(_VALIDATION_BATCHES):
            inputs, targets = text.windows(
                self.corpus.validation, key=(s.seed, 0, batch), count=16, context=s.context
            )
            losses.append(self.model.loss(inputs, targets))
        return float(np.mean(losses))
