"""Make a bucket in SeaweedFS: `python -m scripts.make_bucket NAME`, once, before the first build.

SeaweedFS makes a bucket when something is put into it; a store is looked for before it is written.
"""

import sys

import obstore
from obstore.store import S3Store


def make_bucket(name: str) -> None:
    """Put an empty object into bucket `name`; address and keys are those of AWS_*."""
    store = S3Store(name, client_options={"allow_http": True})
    obstore.put(store, ".bucket", b"")


if __name__ == "__main__":
    make_bucket(sys.argv[1])
