"""Raw scenes to quality-controlled, split-safe tiles.

May import storage, configs, xarray, dask, rasterio, pyhdf; never hypersigma or torch, and Prefect
only in `pipeline.flows`.
"""
