"""A quick look at whether MLflow's store can be reached: MLflow tries for minutes before it says why not."""

import socket
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from .uris import sqlite_file

_PATIENCE = 5.0
"""How long to wait for a host to answer, s."""

_DATABASES = ("sqlite", "postgresql", "mysql", "mssql")


def check_reachable(uri: str) -> None:
    """Do nothing if there is a store, or something that could be one.

    Raises:
        Exception: Whatever says why there isn't.
    """
    parts = urlsplit(uri)
    if parts.scheme in ("http", "https") and parts.hostname is not None:
        if not {parts.scheme, "all"} & getproxies().keys() or proxy_bypass(parts.hostname):
            port = parts.port or (443 if parts.scheme == "https" else 80)
            socket.create_connection((parts.hostname, port), _PATIENCE).close()
    elif parts.scheme.partition("+")[0] in _DATABASES:
        _check_database(uri)


def _check_database(uri: str) -> None:
    import sqlalchemy

    file = sqlite_file(uri)
    if file is not None and not file.exists():
        # It is made by whoever needs it; to look would leave an empty one.
        return
    sqlalchemy.inspect(sqlalchemy.create_engine(uri, poolclass=sqlalchemy.NullPool)).get_table_names()
