"""How a model becomes a row: settings, plan, tasks, networks, embeddings, measures, files."""
