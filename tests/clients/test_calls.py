"""How triples become groups and groups become calls; pure, no server."""

from typing import Any

from medreward.clients.calls import (
    CALL_CHARS,
    CALL_GROUPS,
    CALL_IMAGE_BYTES,
    CALL_RESPONSES,
    Group,
    Triple,
    group_by_question,
    halves,
    pack,
)
from medreward.clients.images import File


def group(responses: int = 1, image: str | None = None, question: str = "q", size: int = 1, text: str = "r") -> Group:
    file = File(b"x" * size, image) if image else None
    return Group((file,) if file else (), question, (), [(place, text) for place in range(responses)])


def sizes(calls: Any) -> list[int]:
    return [len(call) for call in calls]


async def test_groups_are_of_one_image_and_question_in_order_of_appearance() -> None:
    triples = [
        Triple(b"one", "p", "a"),
        Triple(None, "p", "b"),
        Triple(b"one", "q", "c"),
        Triple(bytes(bytearray(b"one")), "p", "d"),  # other object, same image
        Triple(None, "p", "e"),
        Triple("https://x/y.png", "p", "f"),
    ]
    groups = await group_by_question(triples)
    assert [(one.question, one.left) for one in groups] == [
        ("p", [(0, "a"), (3, "d")]),
        ("p", [(1, "b"), (4, "e")]),
        ("q", [(2, "c")]),
        ("p", [(5, "f")]),
    ]


async def test_a_large_group_is_cut_to_the_size_of_a_call() -> None:
    groups = await group_by_question([Triple(None, "q", str(n)) for n in range(2 * CALL_RESPONSES + 1)])
    assert [len(one.left) for one in groups] == [CALL_RESPONSES, CALL_RESPONSES, 1]
    assert [place for one in groups for place, _ in one.left] == list(range(2 * CALL_RESPONSES + 1))


def test_a_call_is_bounded_in_groups_responses_and_text() -> None:
    assert sizes(pack([group() for _ in range(CALL_GROUPS + 1)], one_image=False)) == [CALL_GROUPS, 1]
    assert sizes(pack([group(CALL_RESPONSES // 2) for _ in range(3)], one_image=False)) == [2, 1]
    assert sizes(pack([group(text="r" * CALL_CHARS), group(), group()], one_image=False)) == [1, 2]


def test_a_call_is_bounded_in_image_bytes_each_image_counted_once() -> None:
    half = CALL_IMAGE_BYTES // 2
    same = [group(image="a", size=half, question=str(n)) for n in range(4)]
    assert sizes(pack(same, one_image=False)) == [4]
    assert sizes(pack([group(image=name, size=half) for name in "abc"], one_image=False)) == [2, 1]


def test_with_affinity_a_call_is_about_one_image() -> None:
    groups = [group(image="a"), group(image="a", question="p"), group(image="b"), group(), group(question="p")]
    assert sizes(pack(groups, one_image=True)) == [2, 1, 2]
    assert sizes(pack(groups, one_image=False)) == [5]


def test_halving_ends_at_single_responses_and_loses_none() -> None:
    calls, single = [[group(3), group(1), group(2)]], []
    while calls:
        call = calls.pop(0)
        parts = halves(call)
        single += [] if parts else [call[0].left]
        calls += parts or ()
    assert sorted(single) == [[(0, "r")], [(0, "r")], [(0, "r")], [(1, "r")], [(1, "r")], [(2, "r")]]
