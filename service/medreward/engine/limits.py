"""Every limit in force, by name: what `GET /v1/limits` and gRPC's GetModel list; and those of an image."""

from medreward.encoding.image import ImageLimits
from medreward.engine.model import Model
from medreward.settings import Settings

_LIMITS = (
    "body_bytes",
    "body_seconds",
    "bodies_bytes",
    "json_values",
    "json_depth",
    "header_bytes",
    "headers",
    "header_seconds",
    "keep_alive_seconds",
    "connections",
    "grpc_calls",
    "items",
    "responses",
    "text_chars",
    "explain_sentences",
    "response_steps",
    "item_pixels",
    "image_bytes",
    "image_pixels",
    "image_side",
    "image_min_side",
    "image_aspect",
    "image_url_seconds",
    "deadline_seconds",
    "queue_cost",
    "queue_pixels",
    "image_store_bytes",
    "image_store_seconds",
)


def limits_of(settings: Settings, model: Model) -> dict[str, float]:
    """Returns each limit by its name. A model that reads one image, or no turns, sets these itself."""
    takes_turns = model.reads_turns or settings.unread_history == "ignore"
    return {name: getattr(settings, name) for name in _LIMITS} | {
        "item_images": settings.item_images if model.reads_images else 1,
        "item_turns": settings.item_turns if takes_turns else 0,
        "tokens": model.manifest.text.max_tokens,
    }


def image_limits(settings: Settings) -> ImageLimits:
    """Returns the limits of an image file."""
    return ImageLimits(
        bytes=settings.image_bytes,
        pixels=settings.image_pixels,
        side=settings.image_side,
        min_side=settings.image_min_side,
        aspect=settings.image_aspect,
    )
