"""How good a student is, and how faithful to its teacher: numbers from logits, labels and features."""

import jax
import jax.numpy as jnp
import numpy as np

from distill_lib import losses
from distill_lib.errors import DistillError

CALIBRATION_BINS = 15
LARGEST_LOGIT = 1e30  # sums over images of larger ones overflow in float32


class NotFiniteError(DistillError):
    """A network's answers are not numbers, as those of a student that diverged."""


def metrics(
    logits: np.ndarray, labels: np.ndarray | None, teacher_logits: np.ndarray | None = None
) -> dict[str, float]:
    """Summary of predictions, from logits (n, classes) float32 of the student, and of a teacher if there is one.

    Labels are (n,) integer classes; or bool (n, classes) where an image has any number of them: a prediction is right
    if it is one of them, and images without any are not counted; None where the classes are other ones.

    Returns:
        With any label `top1` (share of right predictions) and `ece` (expected calibration error), with a teacher `kl`
        (nats, temperature 1), `agreement` (share of images with the same prediction) and `agreement@5` (share where the
        teacher's is among the student's five most likely). NotFiniteError if the student's are not numbers.
    """
    if not (np.abs(logits) < LARGEST_LOGIT).all():
        raise NotFiniteError("answers are not finite: the network has diverged, or its checkpoint is damaged.")
    result = {}
    if labels is not None and (labels.ndim == 1 or labels.any()):
        result = {"top1": multilabel_accuracy(logits, labels), "ece": calibration_error(logits, labels)}
    if teacher_logits is not None:
        student, teacher = jnp.asarray(logits), jnp.asarray(teacher_logits)
        result["kl"] = float(losses.kl(student, teacher).mean())
        result["agreement"] = float(losses.agreement(student, teacher, k=1).mean())
        result["agreement@5"] = float(losses.agreement(student, teacher, k=5).mean())
    return result


def calibration_error(logits: np.ndarray, labels: np.ndarray) -> float:
    """Expected calibration error in [0, 1], nan without labels (Guo et al., ICML 2017, equation 3; 15 equal bins)."""
    judged = counted(labels)
    if not judged.any():
        return float("nan")
    confidence = np.asarray(jax.nn.softmax(jnp.asarray(logits)).max(-1))[judged]
    hits = right(logits, labels)[judged]
    bins = np.minimum((confidence * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1)
    gaps = np.bincount(bins, weights=confidence - hits, minlength=CALIBRATION_BINS)
    return float(np.abs(gaps).sum() / len(hits))


def counted(labels: np.ndarray) -> np.ndarray:
    """Which images are judged at all, bool (n,): all but those that have no label; `labels` as in `metrics`."""
    return np.asarray(labels.any(axis=-1)) if labels.ndim == 2 else np.ones(len(labels), bool)


def right(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Whether the predicted class of each image is its label, or one of them, bool (n,); arguments as in `metrics`."""
    predicted = logits.argmax(-1)
    return np.asarray(labels[np.arange(len(labels)), predicted] if labels.ndim == 2 else predicted == labels)


def multilabel_accuracy(logits: np.ndarray, labels: np.ndarray) -> float:
    """Share of the images with a label whose prediction is one of theirs, or nan (Beyer et al., arXiv 2006.07159)."""
    hits = right(logits, labels)[counted(labels)]
    return float(hits.mean()) if len(hits) else float("nan")


def linear_cka(features: np.ndarray, others: np.ndarray) -> float:
    """Linear CKA of features (n, p) and others (n, q) of the same images, exactly, over all images at once.

    `||Y'X||^2 / (||X'X|| ||Y'Y||)` with Frobenius norms and centred columns: in [0, 1], or nan where either has no
    variation. With few images for many features it comes out too high: compare values of one split and one pair of
    widths (Kornblith et al., "Similarity of neural network representations revisited", ICML 2019, equation 4).
    """
    x, y = (each.astype(np.float64) - each.mean(axis=0, dtype=np.float64) for each in (features, others))
    norm = np.sqrt(_squared_product(x, x) * _squared_product(y, y))
    return float(_squared_product(x, y) / norm) if norm > 0 else float("nan")


def _squared_product(x: np.ndarray, y: np.ndarray) -> float:
    """`||Y'X||^2`, through whichever of `Y'X` and the two `XX'` is smaller."""
    if x.shape[1] * y.shape[1] <= len(x) ** 2:
        return float(np.square(y.T @ x).sum())
    return float(((x @ x.T) * (y @ y.T)).sum())
