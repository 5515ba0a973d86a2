"""The monitor on a collapsed representation, which it exists to detect."""

from pathlib import Path

import numpy as np
import pytest
import torch

from dsmi_zoo.pipeline.measures import measure
from dsmi_zoo.pipeline.monitor.file import read_monitor
from dsmi_zoo.pipeline.monitor.monitor import RepresentationMonitor


class Collapsing(torch.nn.Module):
    """A network that maps a share of the images to one embedding."""

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share
        self.features, self.head = torch.nn.Linear(3, 8), torch.nn.Linear(8, 3)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        means = images.mean((2, 3))
        collapsed = torch.arange(len(means)) < self.share * len(means)
        return self.head(self.features(torch.where(collapsed[:, None], means[:1], means)))


@pytest.mark.parametrize("share", [0.8, 1.0])
def test_a_collapsed_representation_is_measured_and_one_score_says_why_not(
    tmp_path: Path, share: float
) -> None:
    torch.manual_seed(0)
    model, images, labels = Collapsing(share), torch.randn(60, 3, 8, 8), torch.arange(60) % 3
    reason = "dsmi_z_y_angular: .*direction"
    monitor = RepresentationMonitor(model, images, labels, every=1, out=tmp_path, n=60)
    with pytest.warns(UserWarning, match=f"monitor: step 0 lacks values: {reason}") as warned:
        monitor.step()
    assert len(warned) == 1
    rows, _ = read_monitor(tmp_path)
    known = rows.columns[rows.notna().all()]
    assert {"dse_z", "dsmi_z_y", "dsmi_z_y_scale_free", "centre_accuracy"} <= set(known)
    assert "dsmi_z_y_angular" not in known
    (embedding,) = monitor._embedded(60)
    assert len(np.unique(embedding, axis=0)) <= 13
    alone = measure(embedding, monitor._labels, scores=("dse_z", "neighbour_accuracy"))
    assert rows.loc[1, list(alone)].to_dict() == pytest.approx(alone)
