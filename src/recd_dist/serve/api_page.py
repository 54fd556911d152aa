"""The description of a service's interface, with the features of its own model, and a page that shows it.

The page's program comes with the package swagger-ui-bundle, so that it works without a network. Where the service asks
for a token, the page does too, and keeps it until its tab is closed.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from recd_dist.serve.served_model import LoadedModel, ServedFeature

SWAGGER = "/swagger"
"""Where the program of the page lies."""

PAGE = f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>recd serve</title>
<link rel="icon" href="{SWAGGER}/favicon-32x32.png"><link rel="stylesheet" href="{SWAGGER}/swagger-ui.css"></head>
<body><div id="page"></div><script src="{SWAGGER}/swagger-ui-bundle.js"></script><script>
const asks = NEEDS_TOKEN;
let token = sessionStorage.getItem("token") || "";
if (asks && !token) {{
  token = prompt("The token of this service") || "";
  sessionStorage.setItem("token", token);
}}
SwaggerUIBundle({{
  url: "/openapi.json", dom_id: "#page", deepLinking: true, defaultModelsExpandDepth: 0,
  requestInterceptor: r => {{ if (asks) r.headers["Authorization"] = "Bearer " + token; return r; }},
  responseInterceptor: r => {{ if (r.status === 401) sessionStorage.removeItem("token"); return r; }},
}});
</script></body></html>"""


def page(needs_token: bool) -> str:
    """The page.

    Args:
        needs_token: whether the service asks for a token.
    """
    return PAGE.replace("NEEDS_TOKEN", "true" if needs_token else "false")


def swagger_files() -> Path:
    """The directory of the page's program."""
    from swagger_ui_bundle import swagger_ui_path

    return Path(swagger_ui_path)


def _value(feature: ServedFeature) -> dict[str, Any]:
    """The schema of one value of a feature."""
    one: dict[str, Any] = {"type": "string"} if feature.is_text else {"type": "integer", "format": "int64"}
    if feature.kind == "dense":
        return {"type": "number", "format": "float"}
    return {"type": "array", "items": one} if feature.kind == "ids" else one


def _features(features: Sequence[ServedFeature], of_candidates: bool) -> dict[str, Any]:
    values = {f.name: {"type": "array", "items": _value(f)} if of_candidates else _value(f) for f in features}
    for feature in features:
        if feature.weights is not None:
            weights = {"type": "array", "items": {"type": "number", "format": "float"}}
            values[feature.weights] = {"type": "array", "items": weights} if of_candidates else weights
    return {"type": "object", "properties": values, "required": list(values), "additionalProperties": False}


def request_schema(model: LoadedModel) -> dict[str, Any]:
    """The schema of a request to score, with the model's own features."""
    user = _features(model.user, False) | {"description": "the user's row; may be left out with a user_key"}
    candidates = _features(model.candidate, True) | {"description": "a value for each candidate"}
    schema: dict[str, Any] = {
        "type": "object",
        "properties": {
            "user": user,
            "candidates": candidates,
            "user_key": {"type": "string", "description": "the service keeps the user's row under this key"},
            "user_version": {"anyOf": [{"type": "string"}, {"type": "integer"}], "description": "of the user's row"},
        },
        "required": ["candidates"],
        "additionalProperties": False,
    }
    return schema | ({"example": model.sample} if model.sample is not None else {})


def answer_schema(model: LoadedModel) -> dict[str, Any]:
    """The schema of an answer: scores of each task, in the order of the candidates."""
    scores = {"type": "array", "items": {"type": "number", "format": "float"}}
    return {
        "type": "object",
        "properties": {
            "scores": {
                "type": "object",
                "properties": dict.fromkeys(model.tasks, scores),
                "required": list(model.tasks),
            },
            "model": {
                "type": "object",
                "properties": {"name": {"type": "string"}, "step": {"type": "integer"}, "version": {"type": "string"}},
            },
        },
        "required": ["scores", "model"],
    }


ERROR_SCHEMA = {
    "type": "object",
    "properties": {
        "error": {
            "type": "object",
            "properties": {
                "code": {"type": "string"},
                "message": {"type": "string"},
                "feature": {"type": "string", "description": "the feature at fault"},
            },
            "required": ["code", "message"],
        }
    },
}
"""The schema of every answer that is no success."""
