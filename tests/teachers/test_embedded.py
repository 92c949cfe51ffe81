"""Teachers that come with the package are those that their records tell of."""

from __future__ import annotations

import numpy as np
import pytest

from distill_lib import datasets, records, teachers, weights

FASHION = [name for name in teachers.EMBEDDED if name.startswith("fashion")]


@pytest.mark.parametrize("name", FASHION)
def test_an_embedded_teacher_is_as_good_as_the_record_of_its_run(name: str) -> None:
    """Half precision, in which some are kept, may turn the answer to a few of 1,020 images."""
    facts = weights.load_metadata(teachers.EMBEDDED[name])
    record = records.load(records.find_results() / "fashion_teacher_full" / facts["run_id"])
    assert record is not None and record["recipe"]["student"] == facts["model"]
    teacher = teachers.load(name, num_classes=10, channels=1, resolution=28)
    split = datasets.arrays("fashion", "validation")
    right = np.argmax(teacher.logits(split.images), axis=-1) == split.labels
    assert right.mean() == pytest.approx(record["result"]["validation_top1"], abs=0.003)
