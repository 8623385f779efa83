"""The benchmark of an export of segmentation_models_pytorch runs."""

from __future__ import annotations

import pytest

from microbench.smp_export import measure_smp_export

pytestmark = pytest.mark.full


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_every_export_is_timed_and_verified() -> None:
    pytest.importorskip("segmentation_models_pytorch")
    small = {"encoder_name": "resnet18", "encoder_depth": 3, "decoder_channels": [32, 16, 8]}
    result = measure_smp_export(small, side=64, repeats=1)
    assert len(result.seconds) == 1 and result.median_s == result.seconds[0] > 0
    assert result.parameters > 100_000 and result.tolerance_needed < 1e-3
