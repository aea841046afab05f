"""Shards to trained models, numbers and maps.

May import storage, configs, torch and timm; never pipeline or prefect, and rasterio only in
`hypersigma.maps` and `hypersigma.cubes.raster`.
"""
