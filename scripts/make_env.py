"""Random keys and passwords for docker-compose.yml, in a file of one's own: `make env`.

The file is made once and never overwritten: the databases in the volumes keep its passwords.
"""

import os
import secrets
import sys
from pathlib import Path


def new_values() -> dict[str, str]:
    """Return every variable of docker-compose.yml; secrets are drawn anew and fit into URLs."""
    return {
        "AWS_ACCESS_KEY_ID": secrets.token_hex(10).upper(),
        "AWS_SECRET_ACCESS_KEY": secrets.token_hex(20),
        "POSTGRES_PASSWORD": secrets.token_hex(20),
        "PREFECT_AUTH_STRING": f"builder:{secrets.token_hex(20)}",
        "DATASET": "dataset/service",
        "RAW_SCENES": "./raw",
        "SHARDS": "./shards",
        "REPORTS": "./reports",
        "TRAIN_CONFIG": "pretrain/spatial_base",
        "TRAIN_VERSION": "v1",
    }


def write_env(file: Path) -> None:
    """Write `file`, readable by its owner alone.

    Raises:
        FileExistsError: It is there already; it stays as it is.
    """
    lines = "".join(f"{name}={value}\n" for name, value in new_values().items())
    handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "w", encoding="utf-8") as opened:
        opened.write(lines)


def main() -> int:
    """Make `.env` in the folder that this runs in; one that exists is kept, which is no failure."""
    file = Path(".env")
    try:
        write_env(file)
    except FileExistsError:
        print(f"{file} exists and is kept; its passwords are those of the volumes")
        return 0
    print(f"{file} has new keys and passwords; set DATASET, the folders and TRAIN_* in it")
    return 0


if __name__ == "__main__":
    sys.exit(main())
