
"use strict";
// Shows one comparison at a time, keeps votes in the browser, gives them as JSON. Knows no candidate.
const page = JSON.parse(document.getElementById("data").textContent);
const at = (id) => document.getElementById(id);
const STORE = "blind-test:" + page.test;
const ROLES = { scene: "Scene and characters", user: "User", reply: "Reply" };
const LONG = 700;
let kept = true;
let state = { tester: "", votes: {} };
let index = 0;
let sure = false;

function load() {
  try {
    const found = JSON.parse(localStorage.getItem(STORE) || "null");
    if (found && typeof found.votes === "object" && typeof found.tester === "string") state = found;
    localStorage.setItem(STORE, JSON.stringify(state));
  } catch (error) {
    kept = false;
    at("unkept").hidden = false;
  }
}

function keep() {
  if (kept) {
    try {
      localStorage.setItem(STORE, JSON.stringify(state));
    } catch (error) {
      kept = false;
      at("unkept").hidden = false;
    }
  }
  count();
}

function element(name, className, text) {
  const made = document.createElement(name);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

function turn(found) {
  const text = element("p", "text", (found.text || "(nothing)") + (found.cut ? " …" : ""));
  if (found.role === "scene" && found.text.length > LONG) {
    const details = element("details", "scene");
    details.append(element("summary", "", ROLES.scene), text);
    return details;
  }
  const block = element("div", found.role);
  block.append(element("span", "role", ROLES[found.role]), text);
  return block;
}

function show(number, focus) {
  index = Math.max(0, Math.min(page.comparisons.length - 1, number));
  const comparison = page.comparisons[index];
  const vote = state.votes[comparison.id] || { choice: "", comment: "" };
  at("heading").textContent = "Conversation " + (index + 1) + " of " + page.comparisons.length;
  at("opening").replaceChildren(...comparison.opening.map(turn));
  at("left").replaceChildren(...comparison.left.map(turn));
  at("right").replaceChildren(...comparison.right.map(turn));
  for (const input of document.querySelectorAll("input[name=choice]")) input.checked = input.value === vote.choice;
  at("comment").value = vote.comment;
  at("back").disabled = index === 0;
  at("next").disabled = index === page.comparisons.length - 1;
  at("said").textContent = "";
  count();
  if (focus) {
    at("heading").focus({ preventScroll: true });
    at("heading").scrollIntoView({ block: "start" });
  }
}

function answered() {
  return page.comparisons.filter((c) => (state.votes[c.id] || {}).choice).length;
}

function count() {
  const done = answered(), all = page.comparisons.length;
  at("bar").max = all;
  at("bar").value = done;
  at("count").textContent = done + " of " + all + " answered";
  at("rest").textContent = done === all
    ? "All are answered. Thank you! Save the file and send it to whoever gave you this page."
    : "You may stop at any time: a file with fewer votes counts too.";
}

function write(change) {
  const id = page.comparisons[index].id;
  const vote = { choice: "", comment: "", ...state.votes[id], ...change };
  if (vote.choice || vote.comment) state.votes[id] = vote;
  else delete state.votes[id];
  keep();
}

function votes() {
  const found = {};
  for (const c of page.comparisons) if (state.votes[c.id]) found[c.id] = state.votes[c.id];
  return JSON.stringify({ test: page.test, tester: state.tester.trim(), votes: found }, null, 1) + "\n";
}

function save() {
  const link = document.createElement("a");
  const name = state.tester.trim().replace(/[^A-Za-z0-9_-]+/g, "-").replace(/^-+|-+$/g, "") || "tester";
  link.href = URL.createObjectURL(new Blob([votes()], { type: "application/json" }));
  link.download = "votes-" + name + ".json";
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60000);
  at("said").textContent = "Saved as " + link.download + ".";
}

async function copy() {
  const text = at("text");
  text.value = votes();
  text.hidden = false;
  document.querySelector("label[for=text]").hidden = false;
  text.select();
  try {
    await navigator.clipboard.writeText(text.value);
    at("said").textContent = "Copied.";
  } catch (error) {
    at("said").textContent = "Copy the text below.";
  }
}

function clear() {
  if (!sure) {
    sure = true;
    at("clear").textContent = "Really delete all votes?";
    return;
  }
  sure = false;
  at("clear").textContent = "Start over";
  state = { tester: "", votes: {} };
  at("tester").value = "";
  keep();
  show(0, true);
  at("said").textContent = "All votes are deleted.";
}

function key(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || /^(TEXTAREA|SELECT)$/.test(event.target.tagName)) return;
  if (event.target.id === "tester") return;
  const choices = document.querySelectorAll("input[name=choice]");
  if (/^[1-4]$/.test(event.key)) {
    choices[Number(event.key) - 1].checked = true;
    write({ choice: choices[Number(event.key) - 1].value });
  } else if (event.key === "n") show(index + 1, true);
  else if (event.key === "p") show(index - 1, true);
}

load();
at("tester").value = state.tester;
at("tester").addEventListener("input", (event) => { state.tester = event.target.value; keep(); });
at("vote").addEventListener("submit", (event) => event.preventDefault());
at("vote").addEventListener("change", (event) => {
  if (event.target.name === "choice") write({ choice: event.target.value });
});
at("comment").addEventListener("input", (event) => write({ comment: event.target.value }));
at("back").addEventListener("click", () => show(index - 1, true));
at("next").addEventListener("click", () => show(index + 1, true));
at("save").addEventListener("click", save);
at("copy").addEventListener("click", copy);
at("clear").addEventListener("click", clear);
document.addEventListener("keydown", key);
const open = page.comparisons.findIndex((c) => !(state.votes[c.id] || {}).choice);
show(open < 0 ? 0 : open, false);
