"""Steps: each takes a scene Dataset and returns a new one, lazily."""
