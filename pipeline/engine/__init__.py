"""Computing rows from jobs on Dask workers: the graph of tasks, its window, attempts, time limits, and the task itself.

``graph`` runs on the driver; ``task`` and ``prepare`` run on workers. May import every other room of the pipeline but
`monitor` and `studies`.
"""
