"""`hypersigma-data`: raw scenes to versions, shards and reports."""
