"""A recipe: the ordered steps from scene to tiles."""
