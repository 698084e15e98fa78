"""AdamW over one flat vector, with warm-up, cosine decay and gradient clipping."""

import math

import numpy as np

from tinylm.model import Array, Shape, views

_BETA1, _BETA2 = 0.9, 0.98
_EPSILON = 1e-8
_FINAL_SHARE = 0.05


def learning_rate(step: int, *, peak: float, warmup_steps: int, steps: int) -> float:
    """The rate of step 1, 2 ...: linear to `peak`, then a cosine down to a twentieth of it."""
    if step <= warmup_steps:
        return peak * step / warmup_steps
    done = (step - warmup_steps) / max(1, steps - warmup_steps)
    share = _FINAL_SHARE + (1 - _FINAL_SHARE) * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))
    return peak * share


class AdamW:
    """Moments of the gradients, and the step that moves the parameters in place."""

    def __init__(self, shape: Shape, *, weight_decay: float, grad_clip: float) -> None:
        self.first: Array = np.zeros(shape.size, np.float32)
        self.second: Array = np.zeros(shape.size, np.float32)
        self._grad_clip = grad_clip
        self._decay: Array = np.zeros(shape.size, np.float32)
        for array in views(self._decay, shape).values():
            if array.ndim > 1:  # gains of norms are not pulled to zero
                array[...] = weight_decay

    def update(self, params: Array, grad: Array, *, step: int, rate: float) -> float:
        """Move `params` against `grad` (used up), clipped; returns the gradient's norm."""
        norm = float(np.sqrt(np.dot(grad, grad)))
        if norm > self._grad_clip:
            grad *= self._grad_clip / norm
        self.first += (1 - _BETA1) * (grad - self.first)
        self.second += (1 - _BETA2) * (grad * grad - self.second)
        scale = math.sqrt(1 - _BETA2**step) / (1 - _BETA1**step)
        direction = self.first / (np.sqrt(self.second) + _EPSILON)
        params -= rate * (scale * direction + self._decay * params)
        return norm
