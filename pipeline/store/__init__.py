"""Files of a run: ``run.json`` (`record`), rows (`run_folder`), embeddings (`embedding_file`), images (`subset_file`).

Also rows of fine-tuned models (`finetuned`), pairs of models (`pairs`), times (`timed`) and releases (`release`).
`schema` declares the columns of a row; `kept` reads one model's embedding with its images.

May import `config`, `measures` (names of columns) and `data_catalog`.
"""
