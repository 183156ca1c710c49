// The page: picks a problem, submits a program, and shows the events of its job. Whatever a program prints is text: it is
// only ever assigned to `textContent`.
"use strict";

const element = (id) => document.getElementById(id);
const [problem, language, source, verdict, table, outputs] =
  ["problem", "language", "source", "verdict", "tests", "outputs"].map(element);
const submit = document.querySelector("button");
let problems = [];
let stream = null;

function create(name, text, parent, className = "") {
  const created = document.createElement(name);
  created.textContent = text;
  created.className = className;
  parent.append(created);
  return created;
}

// Control characters, which could reorder or hide what follows, are shown as their numbers.
function visible(text) {
  const isHidden = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u200b-\u200f\u061c\u2028-\u202e\u2060-\u206f\ufeff]/g;
  return text.replace(isHidden, (letter) => `\\u{${letter.codePointAt(0).toString(16)}}`);
}

async function call(path, options) {
  const response = await fetch(path, options);
  const answer = await response.json();
  if (!response.ok) throw new Error(`${answer.error}: ${answer.hint}`);
  return answer;
}

function say(text, className = "") {
  verdict.textContent = text;
  verdict.className = className;
}

const classOf = (one) => (one.verdict === "accepted" ? "right" : "wrong");
const seconds = (value) => `${value.toFixed(3)} s`;
const memory = (bytes) => (bytes === null ? "not measured" : `${(bytes / 1048576).toFixed(1)} MiB`);

function describe() {
  const chosen = problems.find((one) => one.name === problem.value);
  element("statement").textContent = chosen ? chosen.statement : "";
  const limits = chosen ? Object.entries(chosen.limits) : [];
  const shown = limits.filter(([, value]) => value !== null).map(([name, value]) => `${name}: ${value}`);
  element("limits").textContent = shown.length ? `Limits: ${shown.join(", ")}` : "Limits: those of the language";
}

function show(title, excerpt) {
  if (!excerpt || excerpt.text === "") return;
  create("h3", title, outputs);
  create("pre", visible(excerpt.text) + (excerpt.truncated ? "\n…" : ""), outputs);
}

function clear() {
  table.tBodies[0].replaceChildren();
  outputs.replaceChildren();
  table.hidden = true;
}

function addTest(test) {
  table.hidden = false;
  const row = create("tr", "", table.tBodies[0]);
  create("th", test.test, row).scope = "row";
  create("td", test.summary, row, classOf(test));
  const { cpu_seconds, cpu_is_lower_bound, wall_seconds, memory_peak_bytes } = test.usage;
  create("td", (cpu_is_lower_bound ? "≥ " : "") + seconds(cpu_seconds), row);
  create("td", seconds(wall_seconds), row);
  create("td", memory(memory_peak_bytes), row);
  if (test.verdict === "accepted") return;
  show(`Test ${test.test}: standard output`, test.stdout);
  show(`Test ${test.test}: standard error`, test.stderr);
  show(`Test ${test.test}: message of the checker`, test.message);
}

function finish(result) {
  say(result.error ? `No verdict: ${visible(result.error)}` : result.summary, classOf(result));
  if (result.compiler) show("Messages of the compiler", result.compiler.log);
  for (const one of result.unenforced ?? []) create("p", `Not enforced: ${one}`, outputs);
  submit.disabled = false;
}

function watch(id) {
  stream?.close();
  stream = new EventSource(`api/jobs/${id}/events`);
  stream.addEventListener("start", () => (clear(), say("Running…")));
  stream.addEventListener("test", (event) => addTest(JSON.parse(event.data)));
  stream.addEventListener("result", (event) => (stream.close(), finish(JSON.parse(event.data))));
  // The browser connects again, and the stream begins anew.
  stream.addEventListener("error", () => {
    clear();
    say("The connection was lost; connecting again…");
    if (stream.readyState === EventSource.CLOSED) submit.disabled = false;
  });
}

element("submission").addEventListener("submit", async (event) => {
  event.preventDefault();
  clear();
  submit.disabled = true;
  say("Waiting…");
  const body = JSON.stringify({ problem: problem.value, language: language.value, source: source.value });
  try {
    const { id } = await call("api/submissions", { method: "POST", headers: { "Content-Type": "application/json" }, body });
    watch(id);
  } catch (error) {
    say(error.message, "wrong");
    submit.disabled = false;
  }
});

problem.addEventListener("change", describe);
Promise.all([call("api/problems"), call("api/languages")]).then(([all, languages]) => {
  problems = all;
  for (const one of all) create("option", one.title, problem).value = one.name;
  for (const one of languages) create("option", one, language).value = one;
  describe();
}, (error) => say(`Failed to load the problems: ${error.message}`, "wrong"));
