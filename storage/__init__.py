"""The contract between data and training: store, index, shards, stream; and their pages' one look.

May import configs, numpy, xarray, zarr, icechunk, obstore, pyarrow; never pipeline, hypersigma,
torch, prefect or rasterio. Only this package opens or writes stores and shards.
"""
