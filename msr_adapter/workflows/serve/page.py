"""The page for people at `/` and the list of endpoints at `/docs`, made of files of the package alone."""

from html import escape
from typing import Any

from fastapi import FastAPI
from starlette.responses import Response

from msr_adapter.files import bundled

_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
    "form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
)
_FILES = {
    "/": ("page.html", "text/html"), "/assets/page.css": ("page.css", "text/css"),
    "/assets/page.js": ("page.js", "text/javascript"), "/favicon.ico": ("icon.svg", "image/svg+xml"),
}  # fmt: skip


def add_to(app: FastAPI) -> None:
    """Add the pages to an application that has its endpoints."""
    folder = bundled("templates") / "serve"
    for path, (name, kind) in _FILES.items():
        app.add_api_route(path, _sender((folder / name).read_bytes(), kind), include_in_schema=False)

    def describe() -> Response:
        return _sent(_listed(app.openapi()).encode(), "text/html")

    app.add_api_route("/docs", describe, include_in_schema=False)


def _sender(body: bytes, kind: str) -> Any:
    def send() -> Response:
        return _sent(body, kind)

    return send


def _sent(body: bytes, kind: str) -> Response:
    headers = {"Content-Security-Policy": _POLICY, "Cache-Control": "no-cache"}
    return Response(body, media_type=kind, headers=headers)


def _listed(document: dict[str, Any]) -> str:
    """Return the endpoints of an OpenAPI document as a page."""
    rows = []
    for path, methods in document["paths"].items():
        for method, one in methods.items():
            fields = ", ".join(field["name"] for field in one.get("parameters", []))
            body = one.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema", {})
            name = str(body.get("$ref", "")).rpartition("/")[2]
            shown = document.get("components", {}).get("schemas", {}).get(name, {})
            fields = ", ".join(shown.get("properties", {})) or fields
            rows.append(
                f"<tr><td><code>{escape(method.upper())} {escape(path)}</code></td>"
                f"<td>{escape(one.get('description', ''))}</td><td>{escape(fields)}</td></tr>"
            )
    title = escape(document["info"]["title"])
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>' + title + " - endpoints</title>"
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<link rel="stylesheet" href="/assets/page.css"></head><body class="plain"><main><h1>' + title + "</h1>"
        '<p>The whole description, for programs, is <a href="/openapi.json">/openapi.json</a>; '
        '<a href="/">the page for people</a> uses these endpoints.</p><div class="scroll" tabindex="0" '
        'role="region" aria-label="Endpoints"><table><thead><tr><th>Endpoint</th><th>What it does</th><th>Fields</th>'
        "</tr></thead><tbody>" + "".join(rows) + "</tbody></table></div></main></body></html>"
    )
