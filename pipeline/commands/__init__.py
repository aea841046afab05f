"""Commands of `hypersigma-data`, a module each; `pipeline.__main__` registers them."""
