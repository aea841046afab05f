"""Programs around the packages: set-up and the demo."""
