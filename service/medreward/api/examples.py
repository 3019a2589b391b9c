"""The requests and answers that `/docs` shows. The answer is that of medreward-mini; a test compares them."""

from typing import Any, Final

TRIPLE_EXAMPLE: Final[dict[str, Any]] = {
    "image": None,
    "question": "Is there a pleural effusion?",
    "response": "No, both costophrenic angles are sharp.",
}

RANK_EXAMPLE: Final[dict[str, Any]] = {
    "image": None,
    "question": "Is there a pleural effusion?",
    "responses": ["No, both costophrenic angles are sharp.", "Yes, on the left.", "I cannot tell."],
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
    "options": {"too_long": "cut_middle", "explain": "sentences"},
}

REPLY_EXAMPLE: Final[dict[str, Any]] = {
    "id": "step-7",
    "model": {
        "name": "medreward-mini",
        "version": "1.3.0",
        "fingerprint": "sha256:a6f186cedf5ba6ee02c2dfdf84df6a8a68ac1def5158d7ccf5cd532902d2bd88",
        "runtime": "onnx/cpu/fp32",
        "evidence": "constructed",
    },
    "results": [
        {
            "item": 0,
            "response": 0,
            "status": "ok",
            "scores": {
                "accuracy": 0.5461,
                "relevance": 0.6583,
                "comprehensiveness": 0.5543,
                "creativity": 0.6252,
                "responsiveness": 0.647,
                "overall": 0.5987,
            },
            "logits": {
                "accuracy": -0.2996,
                "relevance": 0.9774,
                "comprehensiveness": 0.4845,
                "creativity": 0.4165,
                "responsiveness": 0.4963,
                "overall": -0.1811,
            },
            "uncertainty": {
                "accuracy": 1.0,
                "relevance": 0.8914,
                "comprehensiveness": 0.9714,
                "creativity": 0.9787,
                "responsiveness": 0.97,
                "overall": 1.0,
            },
            "reward": -0.3309,
            "flags": ["no_image"],
            "cached": False,
        }
    ],
    "timings_ms": {"decode": 0.0, "queue": 0.11, "inference": 15.123, "total": 16.488},
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
