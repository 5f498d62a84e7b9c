"""The page `/docs`, with its script and its style served from here: nothing is fetched from elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from fastapi import FastAPI
from fastapi.responses import FileResponse, HTMLResponse, Response
from swagger_ui_bundle import swagger_ui_path  # type: ignore[import-untyped]

from oao_harness.server.problems import problem

__all__ = ["add_docs"]

_FOLDER: Final = "/docs/assets"
_TYPES: Final = {
    "swagger-ui.css": "text/css",
    "swagger-ui-bundle.js": "text/javascript",
    "favicon-32x32.png": "image/png",
}
# No inline script, so that a policy of `script-src 'self'` lets the page work.
_PAGE: Final = f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>oao API</title>
<link rel="icon" href="{_FOLDER}/favicon-32x32.png">
<link rel="stylesheet" href="{_FOLDER}/swagger-ui.css">
</head>
<body>
<div id="swagger-ui"></div>
<noscript>The API is described at <a href="/openapi.json">/openapi.json</a>.</noscript>
<script src="{_FOLDER}/swagger-ui-bundle.js"></script>
<script src="{_FOLDER}/begin.js"></script>
</body>
</html>
"""
_BEGIN: Final = """"use strict";
window.ui = SwaggerUIBundle({
  url: "/openapi.json",
  dom_id: "#swagger-ui",
  deepLinking: true,
  validatorUrl: null,
  presets: [SwaggerUIBundle.presets.apis, SwaggerUIBundle.SwaggerUIStandalonePreset],
});
"""


def add_docs(app: FastAPI) -> None:
    """Give an application its page `/docs`."""
    folder = Path(swagger_ui_path)

    async def docs() -> Response:
        return HTMLResponse(_PAGE)

    async def asset(name: str) -> Response:
        if name == "begin.js":
            return Response(_BEGIN, media_type="text/javascript")
        if name not in _TYPES:
            return problem(404)
        return FileResponse(folder / name, media_type=_TYPES[name], headers={"Cache-Control": "max-age=86400"})

    app.add_api_route("/docs", docs, include_in_schema=False)
    app.add_api_route(f"{_FOLDER}/{{name}}", asset, include_in_schema=False)
