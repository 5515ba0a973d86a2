"""How a catalogue entry becomes a row: build, embed, measure, store."""
