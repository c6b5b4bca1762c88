"""Addresses of servers: they are written into configurations, records and messages, so they carry no secret."""

from __future__ import annotations

from urllib.parse import urlsplit


def check_address(url: str) -> str:
    """Return a server's address if it may be written down.

    Raises:
        ValueError: It is not an address, or has a place for a secret: a user name, password, query or fragment. The
            message does not repeat it.
    """
    try:
        parts = urlsplit(url)
        named = bool(parts.hostname) and parts.port != 0
    except ValueError:
        named = False
    if not url.startswith(("http://", "https://")) or not named or not url.isprintable() or " " in url:
        shown = repr(url) if "@" not in url and "?" not in url else "it"
        raise ValueError(f"{shown} is not the address of a server; write http://host:port")
    if "@" in parts.netloc or "?" in url or "#" in url:
        raise ValueError(
            f"the address of the server {parts.hostname} has a user name, password or query in it; put the key into an "
            "environment variable and name that in api_key_env"
        )
    return url


def check_path(path: str) -> str:
    """Return a path on a server if it may be written down.

    Raises:
        ValueError: It is neither empty nor begins with a slash, or has a query or fragment.
    """
    if (path and not path.startswith("/")) or not path.isprintable() or any(mark in path for mark in "?#@ "):
        raise ValueError("a path on a server begins with / and has no query; name the variable of a key in api_key_env")
    return path
