"""Studies of the paper's other claims (simulated data, trainings), the best-predicting score, and others' claims."""

CLAIMS = ("simulated", "dynamics", "initialisation")
"""Studies of the paper's claims, which ``validate`` runs by default."""

OF_ZOOS = ("scores", "replications")
"""Studies of the rows of trained zoos, which they share."""

STUDIES = (*CLAIMS, *OF_ZOOS)
