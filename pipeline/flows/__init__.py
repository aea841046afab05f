"""Prefect flows: they name, retry, map and schedule plain functions of `pipeline` and `storage`.

May import pipeline, storage, configs and prefect; never torch or hypersigma:
training is a subprocess.
"""
