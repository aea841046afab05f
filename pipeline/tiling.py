"""Scene to tiles."""
