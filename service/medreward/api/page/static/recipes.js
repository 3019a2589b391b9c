// The request of the page as text, to be run elsewhere: curl, our Python client, grpcurl.

import { urlOf } from "./server.js";

const GRPC_PORT = 8001;
const SCORES_ONLY = "# scores only: the request in curl asks for the verdict too";

// Returns the text. `request` has what scoreAnswers takes, and beside it images (names of files) and withKey.
export function recipe(kind, request) {
  return { curl, python, grpc }[kind](request);
}

// JSON that the shell takes as it is within a here-document.
const forShell = (value) =>
  JSON.stringify(value).replaceAll("\\\\", "\\u005c").replaceAll("$", "\\u0024").replaceAll("`", "\\u0060");
const linesInShell = (texts) => forShell(texts).replaceAll('","', '",\n    "');
const imageInShell = (image) => `"$(base64 < ${image} | tr -d '\\n')"`;

function curl({ question, answers, weights, policy, department, images, history, withKey, ...wanted }) {
  const ofDepartment = department ? `,\n  "department": ${forShell(department)}` : "";
  const beside = [
    `"weights": ${forShell(used(weights))}`,
    ...(policy ? [`"policy": ${forShell(policy)}`] : []),
    ...(hasOptions(wanted) ? [`"options": ${optionsOf(wanted)}`] : []),
  ];
  return [
    `curl -s ${urlOf(policy ? "v1/screen" : "v1/score")} \\`,
    ...(withKey ? ['  -H "Authorization: Bearer $MEDREWARD_KEY" \\'] : []),
    "  -H 'Content-Type: application/json' -d @- <<EOF",
    images.length > 1
      ? `{"items": [{"images": [${images.map(imageInShell).join(", ")}],`
      : `{"items": [{"image": ${images.length ? imageInShell(images[0]) : "null"},`,
    ...historyInShell(history),
    `  "question": ${forShell(question)},`,
    `  "responses": ${linesInShell(answers)}${ofDepartment}}],`,
    ` ${beside.join(",\n ")}}`,
    "EOF",
  ].join("\n");
}

function python({ question, answers, weights, policy, images, history, withKey, sentences, steps }) {
  const server = JSON.stringify(urlOf(".").replace(/\/$/, ""));
  return [
    ...(policy ? [SCORES_ONLY] : []),
    ...(withKey ? ["import os", ""] : []),
    "from medreward.clients import Client",
    "",
    `with Client(${server}${withKey ? ', key=os.environ["MEDREWARD_KEY"]' : ""}) as client:`,
    "    scores = client.score(",
    `        ${images.length > 1 ? listOf(images) : images.length ? JSON.stringify(images[0]) : "None"},`,
    `        ${JSON.stringify(question)},`,
    "        [",
    ...answers.map((answer) => `            ${JSON.stringify(answer)},`),
    "        ],",
    `        weights=${JSON.stringify(used(weights)).replaceAll('":', '": ').replaceAll(',"', ', "')},`,
    ...(history.length ? [`        history=${listOf(history)},`] : []),
    ...(sentences ? ['        explain="sentences",'] : []),
    ...(steps ? ['        steps="sentences",'] : []),
    "    )",
    "for score in scores:",
    `    print(score.reward, score.scores, score.error${steps ? ", score.steps" : ""})`,
  ].join("\n");
}

function grpc({ question, answers, weights, policy, images, history, withKey, ...wanted }) {
  const data = images.map((image) => `{"data": ${imageInShell(image)}}`);
  const plain = location.protocol === "https:" ? "" : "-plaintext ";
  return [
    ...(policy ? [SCORES_ONLY] : []),
    `# ${GRPC_PORT} is the default of --grpc-port`,
    `grpcurl ${plain}-d @ \\`,
    ...(withKey ? ['  -H "authorization: Bearer $MEDREWARD_KEY" \\'] : []),
    `  ${location.hostname}:${GRPC_PORT} medreward.v1.RewardService/Score <<EOF`,
    `{"items": [{${images.length ? `"images": [${data.join(", ")}],` : ""}`,
    ...historyInShell(history),
    `  "question": ${forShell(question)},`,
    `  "responses": ${linesInShell(answers)}}],`,
    ` "weights": ${forShell(used(weights))}${hasOptions(wanted) ? `,\n "options": ${optionsOf(wanted)}` : ""}}`,
    "EOF",
  ].join("\n");
}

// Texts and objects of texts, which JSON and Python write alike.
const listOf = (values) => `[${values.map((value) => JSON.stringify(value)).join(", ")}]`;
const historyInShell = (history) => (history.length ? [`  "history": ${forShell(history)},`] : []);
const hasOptions = ({ sentences, steps }) => sentences || steps;
const optionsOf = ({ sentences, steps }) => {
  const options = { ...(sentences && { explain: "sentences" }), ...(steps && { steps: "sentences" }) };
  return JSON.stringify(options).replaceAll('":', '": ').replaceAll(',"', ', "');
};

const used = (weights) => Object.fromEntries(Object.entries(weights).filter(([, weight]) => weight));
