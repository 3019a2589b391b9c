// Drawn pictures to try, each with a question and answers. They show no patient.

import { make } from "./dom.js";

export const PHANTOMS = [
  {
    name: "chest", title: "Chest", about: "A drawn radiograph of a chest with a pleural effusion on the left",
    question: "Is there a pleural effusion?",
    answers: [
      "Yes. There is a pleural effusion in the left lower zone. The right costophrenic angle is sharp.",
      "No. Both costophrenic angles are sharp, and there is no pleural effusion.",
    ],
  },
  {
    name: "brain", title: "Brain", about: "A drawn CT of a brain with a large haemorrhage in the right temporal lobe",
    question: "What abnormality does this image show?",
    answers: [
      "The CT shows a large haemorrhage in the right temporal lobe.",
      "The image shows a calcification in the left frontal lobe.",
    ],
  },
  {
    name: "lung", title: "Lung", about: "A drawn CT of the lungs with a large nodule in the right one",
    question: "Where is the nodule?",
    answers: ["There is a large nodule in the anterior part of the right lung.", "There is a nodule in the left lung."],
  },
  {
    name: "eye", title: "Eye", about: "A drawn photograph of a retina with a large haemorrhage",
    question: "What kind of image is this?",
    answers: ["A fundus photograph of the eye.", "An ultrasound of the abdomen."],
  },
];

// Returns a button for each phantom; `choose` gets the phantom and its picture as a file.
export function phantomButtons(choose) {
  return PHANTOMS.map((phantom) => {
    const address = `page/phantom-${phantom.name}.png`;
    const picture = make("img", { src: address, alt: "", width: 224, height: 224 });
    const pick = async () => choose(phantom, await (await fetch(address)).blob());
    return make("button", { type: "button", "aria-pressed": "false", "data-phantom": phantom.name, title: phantom.about, onclick: pick }, picture, phantom.title);
  });
}
