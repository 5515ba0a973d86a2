"""Studies of the paper's other claims: simulated data, and trainings whose checkpoints are a catalogue."""

STUDIES = ("simulated", "dynamics", "initialisation")
