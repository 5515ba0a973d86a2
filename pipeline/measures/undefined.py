"""What a score says of an embedding for which it has no value."""


class UndefinedScore(ValueError):
    """A score has no value for this embedding; the message is the reason, one short line without a full stop."""
