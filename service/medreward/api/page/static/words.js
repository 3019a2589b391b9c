// What codes of the server mean, in plain words, and what to do about them.

export const FLAGS = {
  no_image: "It was scored without an image.",
  cut_middle: "The middle of the answer was cut out, because it is longer than the model reads.",
  thinking_stripped: "What stood between thinking tags was left out.",
  control_tokens: "The text holds control tokens of the model. They were scored as plain text.",
  raw_text: "The text was scored as it came, because its parts could not be told apart.",
  empty_response: "The answer is empty. The model scored it all the same.",
  out_of_scope: "The image is unlike those the model was trained on: trust its numbers less.",
};

export const ADVICE = {
  unauthenticated: "Give a valid key in the field above.",
  forbidden: "Ask an operator for a key that may do this.",
  quota_exceeded: "Wait a little, then score again.",
  overloaded: "The server is busy. Wait a little, then score again.",
  not_ready: "The page asks again by itself until the server is ready.",
  asleep: "The model is put aside for other work. The page asks again by itself until it is back.",
  policy_unknown: "Load the page again: the server’s policies have changed.",
  deadline: "The server did not finish in time. Score again, or send fewer answers.",
  worker_lost: "A worker is being replaced. Score again in a few seconds.",
  out_of_memory: "Try a smaller image, or score again later.",
  version_changed: "Another model is served now. Load the page again.",
  image_invalid: "The file is damaged or incomplete. Choose another one.",
  image_kind: "Choose a JPEG, PNG, WebP or DICOM file.",
  image_too_large: "Choose a smaller image.",
  image_too_small: "Choose a larger image.",
  image_animated: "Choose an image that does not move.",
  image_required: "This model needs an image. Choose one.",
  empty_question: "Write a question.",
  too_long: "Shorten the answer or the question.",
  body_too_large: "Choose a smaller image or fewer answers.",
  too_many: "Send fewer answers.",
  host_refused: "Ask the operator to allow this host name with --allowed-hosts.",
  internal: "This is a fault of the server. Its log has the reason under the request’s id.",
  unreachable: "See that the server runs and can be reached, then score again.",
  too_slow: "The server did not answer in time. Score again, or look at the operator view.",
};

export const EVIDENCE = {
  constructed: [
    "warn",
    "Evidence: constructed.",
    "This model learnt from preferences that were made by rule. No physician graded an answer for it: " +
      "do not read its numbers as clinical ones.",
  ],
  none: [
    "warn",
    "Evidence: none.",
    "Nothing says what this model’s numbers are worth. Do not use them for anything but trying the service.",
  ],
  physician: ["calm", "Evidence: physician.", "This model learnt from preferences of physicians."],
};
