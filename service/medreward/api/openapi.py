"""Makes `/openapi.json` of the REST and the admin port."""

from typing import Any, Final

from fastapi import APIRouter, FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from medreward.api.rest.reply_shapes import Problem

REFERENCE: Final = "#/components/schemas/{model}"
PROBLEMS: Final[dict[int | str, dict[str, Any]]] = {"4XX": {"model": Problem}, "5XX": {"model": Problem}}

HEADERS: Final = {
    "X-Lane": "interactive or bulk (the default)",
    "X-Deadline-Ms": "whole milliseconds in which the answer is of use",
    "X-Request-Id": "comes back in the answer and stands in the log, so it must hold no patient's data. What is not "
    "[A-Za-z0-9._-]{1,64} is replaced, and the answer has X-Request-Id-Replaced: true",
    "X-Model-Fingerprint": "refuse with 409 if another model is served",
}


def scoring(*shapes: type[BaseModel]) -> dict[str, Any]:
    """Returns what is said of a route that scores: its headers, and its body as JSON of a shape or as a form."""
    forms = [{"$ref": REFERENCE.format(model=model.__name__)} for model in shapes]
    form = {
        "type": "object",
        "required": ["question", "response"],
        "properties": {
            "image": {"type": "string", "format": "binary"},
            "question": {"type": "string"},
            "response": {"type": "array", "items": {"type": "string"}},
        },
    }
    content = {"application/json": {"schema": {"oneOf": forms}}, "multipart/form-data": {"schema": form}}
    parameters = [
        {"name": name, "in": "header", "description": description, "schema": {"type": "string"}}
        for name, description in HEADERS.items()
    ]
    return {"parameters": parameters, "requestBody": {"required": True, "content": content}}


def describe(app: FastAPI, *shapes: type[BaseModel]) -> None:
    """Has the app make its document when it is first asked for, with these shapes beside those of its routes."""

    def openapi() -> dict[str, Any]:
        if not app.openapi_schema:
            document = get_openapi(
                title=app.title,
                version=app.version,
                description=app.description,
                routes=app.routes,
                tags=app.openapi_tags,
            )
            validated = [(shape, "validation") for shape in shapes]
            _, definitions = models_json_schema(validated, ref_template=REFERENCE)  # type: ignore[arg-type]
            document["components"]["schemas"].update(definitions.get("$defs", {}))
            document["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
            document["security"] = [{}, {"key": []}]  # without a keys file no key is needed
            app.openapi_schema = document
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


def paths(*routers: APIRouter) -> list[str]:
    """Returns the paths of all their routes."""
    return [route.path for router in routers for route in router.routes if isinstance(route, APIRoute)]
