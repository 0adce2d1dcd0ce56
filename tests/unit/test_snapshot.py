"""A snapshot's file that is none is refused, whatever its manifest says."""

from __future__ import annotations

import json

import numpy as np
import pytest
from safetensors.numpy import save

from monitor.learning.snapshot import Snapshot
from schemas.errors import OperatorError

MANIFEST = {"format": 1, "encoder_hash": "0" * 64, "shape": [4, 4, 6], "camera": "cam", "model_id": "m", "version": 3}


@pytest.mark.parametrize(
    "manifest",
    [
        "[" * 5000,
        "null",
        json.dumps(MANIFEST),
        json.dumps(MANIFEST | {"entries": [], "version": float("inf")}),
        json.dumps(MANIFEST | {"entries": [], "shape": [4, 4, float("inf")]}),
    ],
    ids=lambda text: text[-20:],
)
def test_a_manifest_that_makes_no_sense_is_no_snapshots(manifest: str) -> None:
    data = save({"manifest": np.frombuffer(manifest.encode(), np.uint8)})
    with pytest.raises(OperatorError, match="not a bank's snapshot"):
        Snapshot.from_bytes(data)
