"""Distances between teacher and student, per example, and how often they agree.

Hinton et al., "Distilling the knowledge in a neural network", 2015, section 2; Beyer et al., CVPR 2022, equation 1;
released code: google-research/big_vision, evaluators/proj/distill/distance.py.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

_EPSILON = 1e-12  # under a square root, whose gradient at zero is infinite


def kl(
    student_logits: jax.Array, teacher_logits: jax.Array, *, temperature: float | jax.Array = 1.0, scaled: bool = True
) -> jax.Array:
    """Kullback-Leibler divergence from the student's to the teacher's tempered prediction, if `scaled` times T^2.

    `T^2 * sum_c p_c (log p_c - log q_c)` with `p = softmax(teacher / T)`, `q = softmax(student / T)` and T > 0; the
    factor keeps the gradient's size independent of T. Maps two (..., classes) to (...,) float32, in nats.
    """
    teacher = jax.nn.log_softmax(teacher_logits / temperature)
    student = jax.nn.log_softmax(student_logits / temperature)
    divergence = jnp.sum(jnp.exp(teacher) * (teacher - student), axis=-1)
    return temperature**2 * divergence if scaled else divergence


def euclidean(student_logits: jax.Array, teacher_logits: jax.Array) -> jax.Array:
    """Euclidean distance of the logits, (..., classes) to (...,) float32."""
    return jnp.sqrt(squared_euclidean(student_logits, teacher_logits) + _EPSILON)


def squared_euclidean(student_logits: jax.Array, teacher_logits: jax.Array) -> jax.Array:
    """Squared Euclidean distance of the logits, (..., classes) to (...,) float32; the released code's "l2"."""
    return jnp.sum((student_logits - teacher_logits) ** 2, axis=-1)


def log_euclidean(student_logits: jax.Array, teacher_logits: jax.Array) -> jax.Array:
    """Euclidean distance of the log-probabilities, (..., classes) to (...,) float32."""
    return euclidean(jax.nn.log_softmax(student_logits), jax.nn.log_softmax(teacher_logits))


def hard(student_logits: jax.Array, teacher_logits: jax.Array, *, smoothing: float = 0.0) -> jax.Array:
    """Divergence from the class that the teacher thinks most likely, two (..., classes) to (...,) float32 in nats.

    It is 0 where the student's prediction is the target, as in the released code. `smoothing` is the share of the
    target, from 0 to below 1, that the other classes get in equal parts.
    """
    classes = teacher_logits.shape[-1]
    targets = jax.nn.one_hot(teacher_logits.argmax(axis=-1), classes)
    if smoothing:
        targets = (1 - smoothing) * targets + smoothing / (classes - 1) * (1 - targets)
    return cross_entropy(student_logits, targets) - jax.scipy.special.entr(targets).sum(axis=-1)


Distance = Callable[..., jax.Array]

DISTANCES: dict[str, Distance] = {
    "kl": kl,
    "euclidean": euclidean,
    "l2": squared_euclidean,
    "logsoftmax_euclidean": log_euclidean,
    "hard": hard,
}
"""Distances by the names of the released code; only `kl` knows a temperature, and only `hard` smoothing."""


def cross_entropy(logits: jax.Array, targets: jax.Array) -> jax.Array:
    """Cross-entropy of logits (..., classes) with one-hot or mixed labels, whose rows sum to one; (...,) in nats."""
    return -jnp.sum(targets * jax.nn.log_softmax(logits), axis=-1)


def agreement(student_logits: jax.Array, teacher_logits: jax.Array, *, k: int = 1) -> jax.Array:
    """1.0 where the teacher's prediction is among the student's k >= 1 likeliest classes, else 0.0; (...,) float32."""
    _, likely = jax.lax.top_k(student_logits, min(k, student_logits.shape[-1]))
    return (likely == teacher_logits.argmax(axis=-1, keepdims=True)).any(axis=-1).astype(jnp.float32)
