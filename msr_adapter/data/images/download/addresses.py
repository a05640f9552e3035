"""Where a request may go: names are resolved once, every address is checked, and the checked address is connected to.

The check sits at the only place where connections are made, so redirects, odd spellings of an address (`2130706433`,
`0177.1`, `[::ffff:127.0.0.1]`) and a name that changes its address between check and use all meet it.
"""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address

import httpcore
import httpx

Resolve = Callable[[str, int], Awaitable[list[str]]]
"""Host and port -> its addresses."""

_GLOBAL_UNICAST = IPv6Network("2000::/3")
_NAT64 = IPv6Network("64:ff9b::/96")


class RefusedAddressError(Exception):
    """A host has an address that requests must not go to."""


def is_public(address: str) -> bool:
    """Say whether an address is of the public internet; an IPv4 address inside an IPv6 one decides for both."""
    ip = ip_address(address)
    if isinstance(ip, IPv4Address):
        return _is_public_v4(ip)
    inner = ip.ipv4_mapped or ip.sixtofour or (IPv4Address(int(ip) & 0xFFFFFFFF) if ip in _NAT64 else None)
    if inner is not None:
        return _is_public_v4(inner)
    return ip in _GLOBAL_UNICAST and ip.is_global and not _is_special(ip)


async def resolve(host: str, port: int) -> list[str]:
    """Return the addresses of a host; `OSError` (`gaierror`) when it has none."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


class GuardedBackend(httpcore.AsyncNetworkBackend):
    """Connects to checked addresses only; `RefusedAddressError` if any address of a host is not public."""

    def __init__(self, allow_private: bool, resolve: Resolve = resolve) -> None:
        self._allow_private, self._resolve = allow_private, resolve
        self._inner = httpcore.AnyIOBackend()

    async def connect_tcp(
        self, host: str, port: int, timeout: float | None = None, local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:  # fmt: skip
        """Resolve, check, connect: the first address that answers."""
        addresses = await self._resolve(host, port)
        if not self._allow_private and not all(map(is_public, addresses)):
            raise RefusedAddressError(f"{host}: {', '.join(addresses)}")
        for address in addresses[:-1]:
            try:
                return await self._inner.connect_tcp(address, port, timeout, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout):
                continue
        return await self._inner.connect_tcp(addresses[-1], port, timeout, local_address, socket_options)

    async def connect_unix_socket(self, path: str, *_: object, **__: object) -> httpcore.AsyncNetworkStream:
        """Raise `RefusedAddressError`: a socket of this machine is never public."""
        raise RefusedAddressError(path)

    async def sleep(self, seconds: float) -> None:
        """Wait between attempts, as httpcore asks its backend to."""
        await self._inner.sleep(seconds)


class GuardedTransport(httpx.AsyncBaseTransport):
    """httpx over a pool of guarded connections. Exceptions are those of httpcore; proxies are not used."""

    def __init__(self, backend: GuardedBackend, connections: int) -> None:
        self._pool = httpcore.AsyncConnectionPool(
            ssl_context=httpx.create_ssl_context(), network_backend=backend, max_connections=connections
        )

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request; TLS certificates are checked against the name in the URL."""
        url = request.url
        response = await self._pool.handle_async_request(
            httpcore.Request(
                request.method,
                httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path),
                headers=request.headers.raw,
                extensions=request.extensions,
            )
        )
        stream = _Body(response)
        return httpx.Response(response.status, headers=response.headers, stream=stream, extensions=response.extensions)

    async def aclose(self) -> None:
        """Close all connections."""
        await self._pool.aclose()


class _Body(httpx.AsyncByteStream):
    def __init__(self, response: httpcore.Response) -> None:
        self._response = response

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for part in self._response.aiter_stream():
            yield part

    async def aclose(self) -> None:
        await self._response.aclose()


def _is_public_v4(ip: IPv4Address) -> bool:
    return ip.is_global and not _is_special(ip)


def _is_special(ip: IPv4Address | IPv6Address) -> bool:
    # Python counts multicast as global: 224.0.0.1 is every machine of the network around.
    return ip.is_multicast or ip.is_reserved or ip.is_private or ip.is_link_local or ip.is_loopback or ip.is_unspecified
