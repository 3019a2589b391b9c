"""Makes `/openapi.json` of the REST and the admin port."""

from typing import Any, Final

from fastapi import APIRouter, FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from medreward.api.rest.schemas import Problem

REFERENCE: Final = "#/components/schemas/{model}"
PROBLEMS: Final[dict[int | str, dict[str, Any]]] = {"4XX": {"model": Problem}, "5XX": {"model": Problem}}


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
