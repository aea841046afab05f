"""Tasks x models and classical methods x seeds, run in parallel, into tables and a page."""
