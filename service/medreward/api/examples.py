"""The requests and answers that `/docs` shows. The answer is that of medreward-mini; a test compares them."""

from typing import Any, Final

TRIPLE_EXAMPLE: Final[dict[str, Any]] = {
    "image": None,
    "question": "Is there a pleural effusion?",
    "response": "No, both costophrenic angles are sharp.",
}

GROUPED_EXAMPLE: Final[dict[str, Any]] = {
    "items": [
        {
            "image": {"sha256": "3a7bd3e2360a3d29eea436fcfb7e44c735d117c42d1c1835420b6b9942dd4f1b"},
            "question": "Is there a pleural effusion?",
            "responses": ["No, both costophrenic angles are sharp.", "Yes, on the left.", ""],
        },
        {"image": None, "question": "What is a pleural effusion?", "response": "Fluid between lung and chest wall."},
    ],
    "weights": {"accuracy": 1, "overall": 0.5},
    "options": {"too_long": "cut_middle"},
}

REPLY_EXAMPLE: Final[dict[str, Any]] = {
    "id": "step-7",
    "model": {
        "name": "medreward-mini",
        "version": "1.1.0",
        "fingerprint": "sha256:30e72ffe0cb667d8d42f8a6297deb050ea9df599dae0e5f22c77652219a185aa",
        "runtime": "onnx/cpu/fp32",
        "evidence": "constructed",
    },
    "results": [
        {
            "item": 0,
            "response": 0,
            "status": "ok",
            "scores": {
                "accuracy": 0.57,
                "relevance": 0.8692,
                "comprehensiveness": 0.6825,
                "creativity": 0.6732,
                "responsiveness": 0.8221,
                "overall": 0.6552,
            },
            "logits": {
                "accuracy": -0.3548,
                "relevance": 5.833,
                "comprehensiveness": 3.9154,
                "creativity": 0.5844,
                "responsiveness": 9.0114,
                "overall": -0.0475,
            },
            "uncertainty": {
                "accuracy": 1.0,
                "relevance": 0.1079,
                "comprehensiveness": 0.2768,
                "creativity": 0.9588,
                "responsiveness": 0.0221,
                "overall": 1.0,
            },
            "reward": -0.2249,
            "flags": ["no_image"],
            "cached": False,
        }
    ],
    "timings_ms": {"decode": 0.0, "queue": 0.14, "inference": 55.537, "total": 61.583},
}

PROBLEM_EXAMPLE: Final[dict[str, Any]] = {
    "type": "urn:medreward:problem:invalid_field",
    "title": "Invalid field",
    "status": 422,
    "code": "invalid_field",
    "detail": "a weight can be given to: accuracy, relevance, comprehensiveness, creativity, responsiveness, overall",
    "field": "/weights",
    "request_id": "step-7",
}
