"""Maps of scenes of any size: read by rows, seen through blended windows, written as GeoTIFF."""
