"""Raw products in, lazy scene Datasets out."""
