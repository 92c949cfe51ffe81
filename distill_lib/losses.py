"""Distances between teacher and student, per example, and how often they agree.

References:
    Hinton et al., "Distilling the knowledge in a neural network", 2015, section 2.
    Beyer et al., "Knowledge distillation: A good teacher is patient and consistent", CVPR 2022, equation 1.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp


def kl(student_logits: jax.Array, teacher_logits: jax.Array, *, temperature: float | jax.Array = 1.0) -> jax.Array:
    """Kullback-Leibler divergence from the student's to the teacher's tempered prediction, times temperature squared.

    `T^2 * sum_c p_c (log p_c - log q_c)` with `p = softmax(teacher / T)` and `q = softmax(student / T)`. The factor
    keeps the gradient's size independent of the temperature.

    Args:
        student_logits: (..., classes) float32.
        teacher_logits: (..., classes) float32.
        temperature: T > 0.

    Returns:
        (...,) float32, in nats times T^2; one value an example.
    """
    teacher = jax.nn.log_softmax(teacher_logits / temperature)
    student = jax.nn.log_softmax(student_logits / temperature)
    return temperature**2 * jnp.sum(jnp.exp(teacher) * (teacher - student), axis=-1)


def cross_entropy(logits: jax.Array, targets: jax.Array) -> jax.Array:
    """Cross-entropy with one-hot or mixed labels.

    Args:
        logits: (..., classes) float32.
        targets: (..., classes) float32, rows sum to one.

    Returns:
        (...,) float32 in nats, one value an example.
    """
    return -jnp.sum(targets * jax.nn.log_softmax(logits), axis=-1)


def agreement(student_logits: jax.Array, teacher_logits: jax.Array) -> jax.Array:
    """1.0 where student and teacher predict the same class, else 0.0; logits (..., classes) to (...,) float32."""
    return (student_logits.argmax(axis=-1) == teacher_logits.argmax(axis=-1)).astype(jnp.float32)
