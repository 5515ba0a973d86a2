"""What torch says of this machine's GPUs, as JSON, in a process of its own: a broken CUDA ends the one that asks."""

import importlib
import json
import warnings
from typing import Any


def ask_torch() -> dict[str, Any]:
    """Version and builds, libraries that cannot be imported beside it, and each device with what a product on it says.

    ``cuda`` is the CUDA version of the build, None for a CPU build; ``reason`` why no device is available.
    """
    import torch

    unimportable = {}
    for name in ("torchvision", "timm"):
        try:
            importlib.import_module(name)
        except Exception as error:  # a build for another torch fails in many ways
            unimportable[name] = _one_line(error)
    reason = ""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if not torch.cuda.is_available() and (torch.version.cuda or torch.version.hip):
            try:
                torch.cuda.init()
            except Exception as error:
                reason = _one_line(error)
        devices = (
            [_device(torch, number) for number in range(torch.cuda.device_count())]
            if not reason
            else []
        )
    return {
        "version": torch.__version__,
        "cuda": torch.version.cuda,
        "hip": torch.version.hip,
        "unimportable": unimportable,
        "reason": reason,
        "devices": devices,
    }


def _device(torch: Any, number: int) -> dict[str, Any]:
    try:
        properties = torch.cuda.get_device_properties(number)
        ones = torch.ones(64, 64, device=f"cuda:{number}")
        product = float((ones @ ones).sum())
    except Exception as error:
        return {"name": f"cuda:{number}", "memory": 0, "error": _one_line(error)}
    wrong = "" if product == 64**3 else f"a product comes to {product}, not {64**3}"
    return {"name": properties.name, "memory": properties.total_memory, "error": wrong}


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


if __name__ == "__main__":
    print(json.dumps(ask_torch()))
