"""Golden outputs of EfficientNet-Lite0 by timm; run by hand where PyTorch is: `pip install torch torchvision timm`.

python tests/golden/make_efficientnet_lite.py
"""

from __future__ import annotations

from make_mobilenet_v3 import make

OUTSIDE = {
    "stem/conv": "conv_stem",
    "stem/norm": "bn1",
    "last/conv": "conv_head",
    "last/norm": "bn2",
    "head": "classifier",
}
PARTS = {"stem": "bn1", "last": "bn2"} | {f"stage{number + 1}": f"blocks.{number}" for number in range(7)}


def main() -> None:
    """Writes all files."""
    make("efficientnet_lite0", "tf_efficientnet_lite0", OUTSIDE, PARTS)


if __name__ == "__main__":
    main()
