"""Build one dataset version from all scenes not yet in the store."""
