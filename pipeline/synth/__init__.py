"""Synthetic raw products with known truth; shares no code with the readers."""
