"""Figures that answer in a browser: networks, images and numbers travel inside the page, as one script."""

import base64
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from distill_lib import weights

if TYPE_CHECKING:
    from IPython.display import HTML


def network(tree: weights.Tree) -> dict[str, Any]:
    """A network's parameters for `Play.network.load`: names and `shapes`, and all numbers as base64 of float16."""
    flat = {name: np.asarray(value) for name, value in sorted(weights.flatten(tree).items())}
    numbers = np.concatenate([value.ravel() for value in flat.values()]).astype("<f2")
    return {"shapes": [[name, value.shape] for name, value in flat.items()], "weights": encoded(numbers)}


def encoded(values: np.ndarray) -> str:
    """The bytes of an array as base64."""
    return base64.b64encode(values.tobytes()).decode()


def script(data: Mapping[str, Any]) -> "HTML":
    """The data as properties of the page's `Play.data`; scripts that come later read them there."""
    from IPython.display import HTML

    text = json.dumps(data, separators=(",", ":")).replace("</", "<\\/")  # no text of the data ends the script
    return HTML(f"<script>(globalThis.Play ??= {{}}).data = {text};</script>")
