"""Compute settings of a run, which never change a number, and the modules that its workers preload."""

import re
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from dsmi_zoo._util.paths import absolute_path, default_cache
from dsmi_zoo._util.settings import Clash, OnCommandLine, Settings
from dsmi_zoo._util.text import in_bytes, in_seconds

# Modules that every row needs.
MEASURES = ("dsmi_zoo.pipeline.engine.graph", "sklearn.cluster", "sklearn.mixture")
# Modules that embeddings need as well.
MODELS = (
    *MEASURES,
    "timm",
    "dsmi_zoo.pipeline.embedding.embed",
    "dsmi_zoo.pipeline.embedding.train",
    "dsmi_zoo.pipeline.networks.timm",
)

CLUSTERS = ("auto", "local", "cuda", "slurm")
LOCAL_CLUSTERS = ("auto", "local", "cuda")


def _known_cluster(name: str) -> str:
    if name not in CLUSTERS and not re.fullmatch(r"(tcp|tls)://\S+:[0-9]{1,5}", name):
        raise ValueError(
            f"must be {', '.join(CLUSTERS)}, or a scheduler's address: tcp://host:port, tls://host:port"
        )
    return name


def _one_of_several(share: str) -> str:
    part, _, parts = share.partition("/")
    is_of_numbers = re.fullmatch(r"[0-9]{1,5}/[0-9]{1,5}", share) is not None
    if not (is_of_numbers and 1 <= int(part) <= int(parts)):
        raise ValueError("must be such as 3/8: the third of eight shares")
    return share


Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False), BeforeValidator(in_seconds)]
Memory = Annotated[float, Field(gt=0, allow_inf_nan=False), BeforeValidator(in_bytes)]
Download = Annotated[float, Field(ge=0, allow_inf_nan=False), BeforeValidator(in_bytes)]


class ComputeSettings(Settings):
    """Settings of where and how a run is computed; none of them changes a number."""

    cluster: Annotated[
        str, AfterValidator(_known_cluster), OnCommandLine(metavar="NAME|ADDRESS")
    ] = Field(
        default="auto",
        description=f"{', '.join(CLUSTERS)}, tcp://host:port or tls://host:port; see docs/clusters.md.",
    )
    profile: Annotated[Path, AfterValidator(absolute_path)] | None = Field(
        default=None, description="Site settings of a cluster, in TOML."
    )
    workers: Annotated[
        int | None, OnCommandLine(default="one per core, all GPUs, or the profile's")
    ] = Field(
        default=None,
        ge=1,
        le=10_000,
        description="Processes on CPUs, GPUs with cuda, jobs with slurm.",
    )
    start_method: Literal["fork", "spawn"] = Field(
        default="fork",
        description="Start local workers by fork, from a process with torch and timm, or by spawn.",
    )
    per_gpu: Annotated[int | None, OnCommandLine(default="the cores for each GPU, at most 4")] = (
        Field(
            default=None,
            ge=1,
            le=64,
            description="Worker processes per GPU, which take turns on it.",
        )
    )
    worker_memory: Annotated[
        Memory | None, OnCommandLine(metavar="SIZE", default="no limit", text=True)
    ] = Field(default=None, description="Memory limit of a local worker: 16GB.")
    model_timeout: Annotated[Seconds | None, OnCommandLine(metavar="TIME", text=True)] = Field(
        default=None, description="Time limit of a model, which fails beyond it: 30m, 2h."
    )
    workers_within: Annotated[
        Seconds | None, OnCommandLine(metavar="TIME", default="10m on this machine", text=True)
    ] = Field(default=None, description="Give up after this long without workers.")
    share: Annotated[
        Annotated[str, AfterValidator(_one_of_several)] | None, OnCommandLine(metavar="I/K")
    ] = Field(default=None, description="Only the I-th of K balanced shares: one batch job each.")
    batch_size: Annotated[
        int | None, OnCommandLine(default="by the device, and what is fastest there")
    ] = Field(default=None, ge=1, le=1_000_000, description="Images in one forward pass.")
    compile: bool = Field(
        default=False,
        description="Compile each network: takes half a minute, pays off from 3,000 images on.",
    )
    keep_embeddings: Annotated[bool, OnCommandLine("drop-embeddings", turns_off=True)] = Field(
        default=True, description="Delete the embeddings (remeasure needs them)."
    )
    write_report: Annotated[bool, OnCommandLine("no-report", turns_off=True)] = Field(
        default=True, description="Skip the report; `dsmi-zoo report` writes it."
    )
    budget_gb: float | None = Field(
        default=None,
        gt=0,
        allow_inf_nan=False,
        description="Download weights in waves of this many GB, each deleted after its rows.",
    )
    budget: Annotated[Seconds | None, OnCommandLine(metavar="TIME", text=True)] = Field(
        default=None,
        description="Search for the best models for this long: 45m, 1h30m; see docs/choose.md.",
    )
    max_download: Annotated[Download | None, OnCommandLine(metavar="SIZE", text=True)] = Field(
        default=None,
        description="Limit on all downloads; models beyond it are left out: 500MB, 20GB.",
    )
    finetune: Annotated[int | None, OnCommandLine(metavar="N")] = Field(
        default=None,
        ge=1,
        le=1000,
        description="Fine-tune the best N models and a static ranker's choice.",
    )
    keep_checkpoints: bool = Field(
        default=False,
        description="Train each fine-tuned model again on all images, and keep its weights.",
    )
    cache: Annotated[
        Path,
        AfterValidator(absolute_path),
        OnCommandLine(default="$DSMI_ZOO_CACHE or ~/.cache/dsmi-zoo"),
    ] = Field(
        default_factory=default_cache, validate_default=True, description="Weights and views."
    )
    cache_gb: float = Field(
        default=50.0,
        ge=0,
        allow_inf_nan=False,
        description="Limit on cached views, beyond which unneeded ones are deleted.",
    )

    @model_validator(mode="after")
    def _one_kind_of_budget(self) -> Self:
        if self.budget is not None and self.budget_gb is not None:
            reason = "a search needs the weights again for its next stage, and waves delete them; give one"
            raise Clash(reason, "budget", "budget_gb")
        budgets = [name for name in ("budget", "budget_gb") if getattr(self, name) is not None]
        if self.share is not None and self.finetune is not None:
            raise Clash(
                "a share does not know which models are best; when all are done: dsmi-zoo finetune --out OUT",
                "share",
                "finetune",
            )
        if self.share is not None and budgets:
            raise Clash(
                "a share cannot be combined with a budget: the shares know nothing of each other",
                "share",
                *budgets,
            )
        if self.share is not None and self.cluster not in LOCAL_CLUSTERS:
            raise Clash(
                f"a share runs on the machine at hand: {', '.join(LOCAL_CLUSTERS)}",
                "share",
                "cluster",
            )
        return self
