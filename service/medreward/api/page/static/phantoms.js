// Drawn pictures to try, each with a question and answers. They show no patient.

import { make } from "./dom.js";

// medreward-mini ranks the answers about the brain wrongly, as it does one pair in five: that belongs to trying it.
export const PHANTOMS = [
  {
    name: "chest",
    title: "Chest",
    about: "A drawn radiograph of a chest with a pleural effusion on the left",
    question: "What abnormality does this image show?",
    answers: [
      "The radiograph shows a pleural effusion on the left. The right lung is clear.",
      "The image shows no abnormality. The heart is of normal size.",
      "The radiograph shows a pacemaker. The lungs are clear.",
    ],
  },
  {
    name: "brain",
    title: "Brain",
    about: "A drawn CT of a brain with a large haemorrhage in the right temporal lobe",
    question: "What abnormality does this image show?",
    answers: [
      "The CT shows a large haemorrhage in the right temporal lobe.",
      "The image shows a calcification in the left frontal lobe.",
    ],
  },
  {
    name: "lung",
    title: "Lung",
    about: "A drawn CT of the lungs with a large nodule in the right one",
    question: "What kind of image is this?",
    answers: ["A CT of the chest.", "An ultrasound of the liver."],
  },
  {
    name: "eye",
    title: "Eye",
    about: "A drawn photograph of a retina with a large haemorrhage",
    question: "What abnormality does this image show?",
    answers: ["A large haemorrhage in the lower right of the picture.", "An exudate in the upper left of the picture."],
  },
];

// Returns a button for each phantom; `choose` gets the phantom and its picture as a file.
export function phantomButtons(choose) {
  return PHANTOMS.map((phantom) => {
    const address = `page/phantom-${phantom.name}.png`;
    const picture = make("img", { src: address, alt: "", width: 224, height: 224 });
    const pick = async () => choose(phantom, await (await fetch(address)).blob());
    return make(
      "button",
      { type: "button", "aria-pressed": "false", "data-phantom": phantom.name, title: phantom.about, onclick: pick },
      picture,
      phantom.title,
    );
  });
}
