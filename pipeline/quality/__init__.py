"""Measures of quality: NumPy in, NumPy out; no files, no scenes."""
