"""The modules that worker processes have imported when they start."""

# What every row needs sooner or later.
MEASURES = ("dsmi_zoo.pipeline.engine.graph", "sklearn.cluster", "sklearn.mixture")
# What embeddings need, too.
MODELS = (
    *MEASURES,
    "timm",
    "dsmi_zoo.pipeline.embedding.embed",
    "dsmi_zoo.pipeline.embedding.train",
    "dsmi_zoo.pipeline.engine.gpu_lock",
    "dsmi_zoo.pipeline.networks.loading_code",
    "dsmi_zoo.pipeline.networks.timm",
)
