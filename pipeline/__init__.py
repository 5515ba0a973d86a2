"""The pipeline from a model to a row: settings, plan, tasks, networks, embeddings, measures, files."""
