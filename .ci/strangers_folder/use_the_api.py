"""What a stranger's program does with the installed package, beside files with the names of its folders."""

import numpy as np
import timm
import torch

import dsmi_zoo

COMMAND_LINES_RUN = "out"


def main() -> None:
    """Use each part of the front door once."""
    rows = dsmi_zoo.read_results(COMMAND_LINES_RUN)
    assert list(rows["status"]) == ["ok", "ok"]
    assert np.isfinite(rows["spread"].astype(float)).all()

    again = dsmi_zoo.run(
        models="test_vit.900x2", measure="mine:spread", workers=1, out="from-python"
    )
    of_command = rows.set_index("model").loc["test_vit.900x2"]
    assert again.loc[0, "dsmi_z_y"] == of_command["dsmi_z_y"]

    images = torch.randn(30, 3, 32, 32)
    labels = np.arange(30) % 3
    model = timm.create_model("test_resnet")
    scores = dsmi_zoo.score(model, images, labels, scores=("dse_z", "neighbour_accuracy"))
    assert set(scores) == {"dse_z", "neighbour_accuracy"}
    values = dsmi_zoo.measure(torch.randn(30, 8, requires_grad=True), labels)
    assert "probe_accuracy" in values

    optimiser = torch.optim.SGD(model.parameters(), lr=0.01)
    with dsmi_zoo.RepresentationMonitor(
        model, images, labels, every=2, out="training", n=20
    ) as monitor:
        for _ in range(4):
            loss = torch.nn.functional.cross_entropy(model(images), torch.from_numpy(labels))
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            monitor.step()
    print("the front door opens everywhere")


# Dask starts its workers by spawning: they import this file anew.
if __name__ == "__main__":
    main()
