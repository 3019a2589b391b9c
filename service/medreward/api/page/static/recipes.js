// The request of the page as text, to be run elsewhere: curl, our Python client, grpcurl.

import { urlOf } from "./server.js";

const GRPC_PORT = 8001;
const SCORES_ONLY = "# scores only: the request in curl asks for the verdict too";

// Returns the text. `request` has what scoreAnswers takes, and beside it image (a file's name, or "") and withKey.
export function recipe(kind, request) {
  return { curl, python, grpc }[kind](request);
}

// JSON that the shell takes as it is within a here-document.
const forShell = (value) =>
  JSON.stringify(value).replaceAll("\\\\", "\\u005c").replaceAll("$", "\\u0024").replaceAll("`", "\\u0060");
const linesInShell = (texts) => forShell(texts).replaceAll('","', '",\n    "');
const imageInShell = (image) => (image ? `"$(base64 < ${image} | tr -d '\\n')"` : "null");

function curl({ question, answers, weights, policy, department, image, withKey, sentences }) {
  const ofDepartment = department ? `,\n  "department": ${forShell(department)}` : "";
  const beside = [
    `"weights": ${forShell(used(weights))}`,
    ...(policy ? [`"policy": ${forShell(policy)}`] : []),
    ...(sentences ? ['"options": {"explain": "sentences"}'] : []),
  ];
  return [
    `curl -s ${urlOf(policy ? "v1/screen" : "v1/score")} \\`,
    ...(withKey ? ['  -H "Authorization: Bearer $MEDREWARD_KEY" \\'] : []),
    "  -H 'Content-Type: application/json' -d @- <<EOF",
    `{"items": [{"image": ${imageInShell(image)},`,
    `  "question": ${forShell(question)},`,
    `  "responses": ${linesInShell(answers)}${ofDepartment}}],`,
    ` ${beside.join(",\n ")}}`,
    "EOF",
  ].join("\n");
}

function python({ question, answers, weights, policy, image, withKey, sentences }) {
  const server = JSON.stringify(urlOf(".").replace(/\/$/, ""));
  return [
    ...(policy ? [SCORES_ONLY] : []),
    ...(withKey ? ["import os", ""] : []),
    "from medreward.clients import Client",
    "",
    `with Client(${server}${withKey ? ', key=os.environ["MEDREWARD_KEY"]' : ""}) as client:`,
    "    scores = client.score(",
    `        ${image ? JSON.stringify(image) : "None"},`,
    `        ${JSON.stringify(question)},`,
    "        [",
    ...answers.map((answer) => `            ${JSON.stringify(answer)},`),
    "        ],",
    `        weights=${JSON.stringify(used(weights)).replaceAll('":', '": ').replaceAll(',"', ', "')},`,
    ...(sentences ? ['        explain="sentences",'] : []),
    "    )",
    "for score in scores:",
    "    print(score.reward, score.scores, score.error)",
  ].join("\n");
}

function grpc({ question, answers, weights, policy, image, withKey, sentences }) {
  const plain = location.protocol === "https:" ? "" : "-plaintext ";
  return [
    ...(policy ? [SCORES_ONLY] : []),
    `# ${GRPC_PORT} is the default of --grpc-port`,
    `grpcurl ${plain}-d @ \\`,
    ...(withKey ? ['  -H "authorization: Bearer $MEDREWARD_KEY" \\'] : []),
    `  ${location.hostname}:${GRPC_PORT} medreward.v1.RewardService/Score <<EOF`,
    `{"items": [{${image ? `"images": [{"data": ${imageInShell(image)}}],` : ""}`,
    `  "question": ${forShell(question)},`,
    `  "responses": ${linesInShell(answers)}}],`,
    ` "weights": ${forShell(used(weights))}${sentences ? ',\n "options": {"explain": "sentences"}' : ""}}`,
    "EOF",
  ].join("\n");
}

const used = (weights) => Object.fromEntries(Object.entries(weights).filter(([, weight]) => weight));
