"""Public scenes in one cube each: files in, arrays with labels, splits and scaling out.

Shape letters: H rows, W columns, C bands, E endmembers, N pixels in a row.
"""
