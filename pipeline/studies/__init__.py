"""Studies: the paper's other claims on simulated data and on trainings, which score predicts best, claims of others."""

CLAIMS = ("simulated", "dynamics", "initialisation")
"""Those of the paper's claims, which ``validate`` does by default."""

OF_ZOOS = ("scores", "replications")
"""Those of the rows of trained zoos, which they share."""

STUDIES = (*CLAIMS, *OF_ZOOS)
