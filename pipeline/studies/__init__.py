"""Studies: the paper's other claims on simulated data and on trainings, and which score predicts best."""

CLAIMS = ("simulated", "dynamics", "initialisation")
"""Those of the paper's claims, which ``validate`` does by default."""

STUDIES = (*CLAIMS, "scores")
