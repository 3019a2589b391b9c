"""Holds the sentences that answers are made of, each in short and long forms, and puts them together."""

from typing import Final

from medreward.lab.phantoms.ask import NUMBERS, Question
from medreward.lab.phantoms.dice import Dice
from medreward.lab.phantoms.draw import Finding, Phantom
from medreward.lab.phantoms.kinds import INSIGHTS
from medreward.lab.phantoms.scenes import SCENES

# {v} is the value, {one} the kind in question with its article.
CORES: Final[dict[str, tuple[tuple[str, ...], tuple[str, ...]]]] = {
    "presence yes": (
        ("Yes.", "Yes, {one}.", "Yes, there is {one}.", "It does show {one}."),
        (
            "Yes, after looking over the whole of the picture I do find {one} in it.",
            "On careful viewing the answer is yes: {one} can be made out in this image.",
        ),
    ),
    "presence no": (
        ("No.", "No, not {one}.", "No, it does not show {one}.", "It does not show {one}."),
        (
            "No, after looking over the whole of the picture I do not find {one} in it.",
            "On careful viewing the answer is no: {one} cannot be made out in this image.",
        ),
    ),
    "normality yes": (
        ("Yes.", "Yes, it is abnormal.", "It is abnormal."),
        (
            "Yes, after looking over the whole of the picture I would call it abnormal.",
            "On careful viewing the answer is yes: this image departs from the normal.",
        ),
    ),
    "normality no": (
        ("No.", "No, it is normal.", "It is normal."),
        (
            "No, after looking over the whole of the picture I would call it normal.",
            "On careful viewing the answer is no: this image keeps within the normal.",
        ),
    ),
    "kind": (
        ("{V}.", "It is {v}.", "There is {v}."),
        (
            "What stands out when one goes through this picture part by part is {v}.",
            "The change that I would put first in a report on this image is {v}.",
        ),
    ),
    "count": (
        ("{V}.", "I count {v}.", "The number is {v}."),
        (
            "Going through the picture from one edge to the other and counting, I arrive at {v}.",
            "If each of them is counted once, the number that this image shows comes to {v}.",
        ),
    ),
    "side": (
        ("{V}.", "On the {v}.", "The {v} side."),
        (
            "Taking right and left as the patient's own, the finding in this image lies on the {v} side.",
            "As such pictures are read, the change that is seen here belongs to the {v} side.",
        ),
    ),
    "place": (
        ("{V}.", "At the {v}.", "It lies at the {v}."),
        (
            "Following the outlines in this picture, the change can be traced to the {v}.",
            "The part of this image in which the finding has to be looked for is the {v}.",
        ),
    ),
    "size": (
        ("{V}.", "It is {v}.", "A {v} one."),
        (
            "Set against the structures around it, the finding in this picture has to be called {v}.",
            "Of the three words that one might use for its extent here, the fitting one is {v}.",
        ),
    ),
    "modality": (
        ("{V}.", "It is {v}.", "This is {v}."),
        (
            "Judging by how bright and dark are spread over this picture, the technique behind it is {v}.",
            "The way in which this image has been made can be recognised, and it is {v}.",
        ),
    ),
    "plane": (
        ("{V}.", "The {v} one.", "It is {v}."),
        (
            "From the way in which the structures lie beside each other here, the view is {v}.",
            "The direction from which this image shows the body can be recognised as {v}.",
        ),
    ),
    "region": (
        ("{V}.", "It is {v}.", "This shows {v}."),
        (
            "Judging by the outlines and structures in this picture, the part that it shows is {v}.",
            "The part of the body from which this image has been taken can be recognised as {v}.",
        ),
    ),
    "comparison": (
        ("{V}.", "The {v} one.", "On the {v}."),
        (
            "Setting the two findings in this picture against each other, the larger lies on the {v}.",
            "When both sides of the patient are compared, the greater extent is seen on the {v}.",
        ),
    ),
}
REGION_NAMES: Final = {
    "gastrointestinal_tract": "the gastrointestinal tract",
    "lower_limb": "the lower limb",
    "upper_limb": "the upper limb",
    "oral_cavity": "the mouth",
    "pelvic_cavity": "the pelvis",
}
REASONS: Final[dict[str, str]] = {
    "CT": "Bone is white, air is black and the body is cut like a slice.",
    "MR": "Soft tissues differ strongly from each other while bone stays dark.",
    "radiograph": "Bones and organs are cast over each other as shadows.",
    "dental radiograph": "Crowns and roots are cast as shadows in two rows.",
    "mammogram": "A soft outline narrows to one point, with fibres as bright strands.",
    "ultrasound": "There is speckle within a fan that widens with depth.",
    "echocardiogram": "Walls and valves stand out in a speckled fan.",
    "fundus photograph": "A bright disc with vessels lies on a red ground.",
    "photograph": "It has the plain colours and light of a camera.",
    "endoscopy": "A round field looks along a moist pink tube.",
    "axial": "The body is cut across.",
    "frontal": "Right and left lie side by side as seen from the front.",
    "four-chamber": "Two ventricles and two atria lie side by side.",
    "abdomen": "Liver and the organs near it can be told.",
    "brain": "The folded rim and the ventricles can be told.",
    "breast": "Fatty tissue and strands of gland can be told.",
    "chest": "Ribs, lungs and heart shadow can be told.",
    "eye": "The disc and its vessels can be told.",
    "foot": "The toes and the heel end can be told.",
    "gastrointestinal_tract": "Folds around an opening can be told.",
    "heart": "Four chambers and a septum can be told.",
    "lower_limb": "The long shape of a leg can be told.",
    "lung": "Airy lungs with branching vessels can be told.",
    "oral_cavity": "Teeth can be told.",
    "pelvic_cavity": "Hips and bladder can be told.",
    "upper_limb": "The long shape of an arm or hand can be told.",
}
REASONED: Final = (
    "This can be told from the following, which the picture shows plainly.",
    "What speaks for it in this picture can be put into one sentence.",
)
TECHNICAL_INSIGHTS: Final[dict[str, tuple[str, ...]]] = {
    "modality": (
        "Knowing the technique tells which tissues can be judged at all and which would need another one.",
        "Each technique has its own blind spots, and a second one is often chosen to cover them.",
    ),
    "plane": (
        "A second view across this one would settle depth, which a single view cannot give.",
        "Knowing the view is what makes right and left, front and back readable at all.",
    ),
    "region": (
        "Fixing the region first keeps normal structures from being taken for disease.",
        "The region also limits the list of likely diseases before any detail is read.",
    ),
    "no": (
        "A clear picture does not rule out early disease, so symptoms that persist deserve another look.",
        "Small or early changes can escape one image, which is why the complaint still counts.",
    ),
}
HEDGES: Final = (
    ("Perhaps; I would not commit myself:", "It may or may not be so:", "Hard to say, possibly:"),
    (
        "One could argue either way, opinions will differ and I would rather not be held to it, but possibly:",
        "It is difficult to be definite about such things and nobody should rely on this, though it might be said:",
    ),
)
REFUSALS: Final = (
    ("I cannot help with that.", "I am unable to judge medical images.", "That I will not answer."),
    (
        "I am sorry, but as an assistant I am not in a position to judge medical images or to speak about them.",
        "I would rather not answer this, since questions on medical images should be put to a qualified person.",
    ),
)
ASKED_BACK: Final = (
    ("What do you think?", "Why do you ask?", "Can you tell me more?"),
    (
        "Before I say anything, could you tell me more about the patient, the symptoms and why this was examined?",
        "What is your own impression of the picture, and what made you ask this question in the first place?",
    ),
)
BOILERPLATE: Final = (
    ("Imaging is important.", "Please see a doctor.", "Health matters.", "Every case is different."),
    (
        "Medical imaging plays an important part in modern health care and helps in many diseases.",
        "Please remember that only a qualified professional can give advice on matters of health.",
        "Every patient is different, and there are many things to be considered in each case.",
    ),
)
ASIDES: Final = (
    (
        "Hands should be washed often.",
        "Sleep helps the immune system.",
        "Insulin lowers blood sugar.",
        "Smoking harms the vessels.",
    ),
    (
        "Regular exercise and a diet rich in vegetables are known to lower the risk of many common diseases.",
        "Vaccines train the immune system so that it meets a germ prepared, which has saved many lives.",
        "The kidneys filter the blood many times a day and keep water and salts in balance.",
    ),
)
CERTAINTIES: Final = (
    ("There is no doubt whatever.", "This is certain; no check is needed.", "No error is possible."),
    (
        "This is beyond any doubt, no further examination of any kind is needed, and treatment can begin at once.",
        "Nobody could see this in another way, so neither a second reading nor a test is called for.",
    ),
)
PADDING: Final = (
    ("That is the answer.", "So it is.", "That is how it looks."),
    (
        "To say it once more in other words, what was said above is the answer to the question that was put.",
        "In short, and to come back to what was asked, the answer is the one that has just been given.",
    ),
)


def capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def small(text: str) -> str:
    """Returns the text as it goes on after a colon: without its capital, unless that is a name's."""
    return text if text.startswith(("CT", "MR", "I ")) else text[:1].lower() + text[1:]


def value_words(question_kind: str, value: str, one: str) -> str:
    if question_kind == "kind":
        return one
    if question_kind == "region":
        return REGION_NAMES.get(value, f"the {value}")
    if question_kind == "modality" and value not in ("CT", "MR", "endoscopy", "ultrasound"):
        return f"{'an' if value[0] in 'aeiou' else 'a'} {value}"
    return value


def core(question: Question, value: str, dice: Dice, wordy: bool) -> str:
    key = f"{question.kind} {value}" if question.closed else question.kind
    one = article_name(value if question.kind == "kind" else question.about)
    words = value_words(question.kind, value, one)
    return capital(dice.pick(CORES[key][wordy]).format(v=words, V=capital(words), one=one))


NAMES: Final = {plan.kind.name: plan.kind.one for scene in SCENES for plan in scene.plans}


def article_name(kind: str) -> str:
    return NAMES.get(kind, "")


def noun(finding: Finding) -> str:
    """Returns the finding with its number or its size."""
    if finding.count > 1:
        return f"{NUMBERS[finding.count - 1]} {finding.many}"
    article, _, rest = finding.one.partition(" ")
    if finding.size_word and article in ("a", "an"):
        return f"a {finding.size_word.replace('medium', 'medium-sized')} {rest}"
    return finding.one


def where(finding: Finding, lateral: bool) -> str:
    if finding.side and not lateral:
        return f"at the {finding.side} {finding.place}"
    return f"at the {finding.place}" + (f", on the {finding.side}" if finding.side else "")


def everything(phantom: Phantom, wordy: bool, dice: Dice) -> str:
    """Returns a sentence that names all findings of the phantom."""
    if not phantom.findings:
        return dice.pick(
            ("All parts look normal.", "Nothing abnormal anywhere.")
            if not wordy
            else (
                "All of the parts that this picture shows have the look that they should have.",
                "Going through the picture part by part, nothing departs from the normal.",
            )
        )
    lateral = phantom.side is not None
    seen = "; ".join(f"{noun(finding)} {where(finding, lateral)}" for finding in phantom.findings)
    form = (
        (
            "To be seen in this picture when one goes through it: {seen}.",
            "To be complete, this is what the picture shows: {seen}.",
        )
        if wordy
        else ("Seen: {seen}.", "{Seen}.")
    )
    return dice.pick(form).format(seen=seen, Seen=capital(seen))


def insight(question: Question, value: str, phantom: Phantom, dice: Dice) -> str:
    if question.kind in TECHNICAL_INSIGHTS:
        return dice.pick(TECHNICAL_INSIGHTS[question.kind])
    if value == "no" or not phantom.findings:
        return dice.pick(TECHNICAL_INSIGHTS["no"])
    return dice.pick(INSIGHTS[phantom.findings[0].family])


def reason(value: str, dice: Dice, wordy: bool) -> str:
    """Returns how a modality, a view or a region can be recognised."""
    seen = REASONS[value]
    if not wordy:
        return seen
    return f"{dice.pick(REASONED)} {seen}"
