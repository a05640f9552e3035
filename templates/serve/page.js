"use strict";
// The page of `msr serve`: a user or a composed history, the summary after each block, the ranked list.

const at = (id) => document.getElementById(id);
const state = { user: null, known: [], added: [], info: null, token: "", images: new Map() };
let latest = 0;
let underWay = null;

async function ask(path, body, signal) {
  const headers = state.token ? { Authorization: `Bearer ${state.token}` } : {};
  if (body) headers["Content-Type"] = "application/json";
  const response = await fetch(path, { method: body ? "POST" : "GET", headers, body: body && JSON.stringify(body), signal });
  if (response.status === 401) at("token-form").hidden = false;
  const answer = await response.json();
  if (!response.ok) {
    const error = new Error(answer.error.message);
    error.status = response.status;
    throw error;
  }
  return answer;
}

function made(tag, className, ...inside) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  element.append(...inside);
  return element;
}

function picture(item) {
  const box = made("span", "picture");
  if (!item.has_image) {
    box.append((item.title || item.item_id).trim().slice(0, 1).toUpperCase() || "?");
    box.setAttribute("aria-hidden", "true");
    return box;
  }
  const image = made("img");
  image.alt = "";
  image.loading = "lazy";
  image.decoding = "async";
  const path = `/v1/items/${encodeURIComponent(item.item_id)}/image`;
  if (state.token) blobOf(path).then((url) => { image.src = url; }, () => {});
  else image.src = path;
  box.append(image);
  return box;
}

// An <img> cannot send the token: with one, images are fetched, each once.
function blobOf(path) {
  if (!state.images.has(path)) {
    const headers = { Authorization: `Bearer ${state.token}` };
    state.images.set(path, fetch(path, { headers }).then((one) => one.blob()).then((one) => URL.createObjectURL(one)));
  }
  return state.images.get(path);
}

const named = (item) => item.title || item.item_id;
const many = (count, noun) => `${count.toLocaleString("en")} ${noun}${count === 1 ? "" : "s"}`;

function ordinal(number) {
  const last = number % 10, teen = Math.floor(number / 10) % 10 === 1;
  return `${number}${teen ? "th" : ["th", "st", "nd", "rd"][last] || "th"}`;
}

function complain(error) {
  if (error.name === "AbortError") return;
  at("problem").textContent = error.status ? error.message : "The server cannot be reached.";
  at("problem").hidden = false;
}

// Searching

function searching(input, search) {
  let timer = null;
  let turn = 0;
  const run = async () => {
    const mine = ++turn;
    try {
      await search(input.value, () => mine === turn);
    } catch (error) {
      complain(error);
    }
  };
  input.addEventListener("input", () => { clearTimeout(timer); timer = setTimeout(run, 150); });
  return run;
}

async function findUsers(words, current) {
  const found = await ask(`/v1/users?limit=30&query=${encodeURIComponent(words)}`);
  if (!current()) return;
  at("users").replaceChildren(...found.users.map(({ user_id: id }) => {
    const button = made("button", "", id);
    button.type = "button";
    button.dataset.user = id;
    button.setAttribute("aria-pressed", String(id === state.user));
    button.addEventListener("click", () => chooseUser(id === state.user ? null : id));
    return made("li", "", button);
  }));
  at("user-count").textContent = shownOf(found.users.length, found.total, "user");
}

async function findItems(words, current) {
  const found = await ask(`/v1/items?limit=60&query=${encodeURIComponent(words)}`);
  if (!current()) return;
  at("items").replaceChildren(...found.items.map((item) => {
    const button = made("button", "tile", picture(item), made("span", "title", named(item)));
    button.type = "button";
    button.dataset.item = item.item_id;
    button.setAttribute("aria-label", `Add ${named(item)} to the history`);
    button.addEventListener("click", () => add(item));
    return made("li", "", button);
  }));
  at("item-count").textContent = shownOf(found.items.length, found.total, "item");
}

function shownOf(shown, total, noun) {
  if (!total) return `No ${noun} has all these words.`;
  return shown < total ? `${shown} of ${many(total, noun)}; words narrow them down.` : many(total, noun);
}

// Choosing

async function chooseUser(id) {
  state.user = id;
  state.known = [];
  state.added = [];
  for (const button of at("users").querySelectorAll("button")) {
    button.setAttribute("aria-pressed", String(button.dataset.user === id));
  }
  if (id !== null) {
    try {
      const user = await ask(`/v1/users/${encodeURIComponent(id)}?summary=false`);
      if (state.user !== id) return;
      state.known = user.history;
    } catch (error) {
      complain(error);
      state.user = null;
    }
  }
  await refresh();
}

function add(item) {
  state.added.push(item);
  refresh();
}

function remove(place) {
  state.added.splice(place, 1);
  refresh();
  const left = at("blocks").querySelectorAll(".remove");
  (left[Math.min(place, left.length - 1)] || at("item-words")).focus();
}

function startAnew() {
  chooseUser(null);
  at("item-words").focus();
}

function remember() {
  const parts = [];
  if (state.user !== null) parts.push(`user=${encodeURIComponent(state.user)}`);
  if (state.added.length) parts.push(`history=${state.added.map((one) => encodeURIComponent(one.item_id)).join(",")}`);
  history.replaceState(null, "", parts.length ? `#${parts.join("&")}` : location.pathname);
}

async function recall() {
  const told = new URLSearchParams(location.hash.slice(1).replaceAll("+", "%2B"));
  const wanted = (told.get("history") || "").split(",").filter(Boolean);
  if (told.has("user")) {
    state.user = told.get("user");
    state.known = (await ask(`/v1/users/${encodeURIComponent(state.user)}?summary=false`)).history;
  }
  for (const id of wanted) {
    const found = (await ask(`/v1/items?limit=50&query=${encodeURIComponent(id)}`)).items.find((one) => one.item_id === id);
    if (found) state.added.push(found);
  }
}

// Asking

async function refresh() {
  const mine = ++latest;
  if (underWay) underWay.abort();
  underWay = new AbortController();
  remember();
  const all = [...state.known, ...state.added];
  at("history-empty").hidden = all.length > 0;
  at("clear").hidden = state.user === null && !state.added.length;
  at("history-title").textContent = state.user === null ? "The history" : `User ${state.user}`;
  showBlocks(all, [], "");
  if (!all.length && state.user === null) {
    at("ranked").replaceChildren();
    at("legend").hidden = true;
    at("status").textContent = "Nothing yet.";
    return;
  }
  for (const list of [at("ranked"), at("blocks")]) list.setAttribute("aria-busy", "true");
  at("status").textContent = "Asking the model …";
  const body = { k: Number(at("k").value), explain: true, candidates: at("retriever").value };
  if (state.user !== null) body.user_id = state.user;
  if (state.added.length) body.history = state.added.map((one) => one.item_id);
  if (at("seen").checked) body.exclude_seen = false;
  const started = performance.now();
  try {
    const answer = await ask("/v1/recommend", body, underWay.signal);
    if (mine !== latest) return;
    at("problem").hidden = true;
    showBlocks(all, answer.steps, answer.summary || "");
    showRanked(answer);
    const ms = Math.round(performance.now() - started);
    at("status").textContent = `${many(answer.items.length, "item")} of ${many(answer.candidates, "candidate")}, in ${ms.toLocaleString("en")} ms.`;
  } catch (error) {
    if (mine !== latest) return;
    complain(error);
    at("ranked").replaceChildren();
    at("status").textContent = "No answer.";
  } finally {
    if (mine === latest) for (const list of [at("ranked"), at("blocks")]) list.removeAttribute("aria-busy");
  }
}

function showBlocks(items, steps, summary) {
  const size = state.info && state.info.mode === "recurrent" ? state.info.block : Math.max(items.length, 1);
  const blocks = [];
  for (let begin = 0; begin < items.length; begin += size) {
    const part = items.slice(begin, begin + size);
    const block = made("li", "");
    const last = begin + part.length;
    block.append(made("p", "step", `${part.length === 1 ? `Item ${last}` : `Items ${begin + 1} to ${last}`}, and the summary after ${part.length === 1 ? "it" : "them"}`));
    block.append(made("ol", "taken", ...part.map((item, place) => taken(item, begin + place))));
    const step = steps[blocks.length];
    const text = step ? step.summary : last === items.length ? summary : "";
    if (text) block.append(quoted(text, blocks.length && steps[blocks.length - 1] ? steps[blocks.length - 1].summary : ""));
    blocks.push(block);
  }
  at("blocks").replaceChildren(...blocks);
}

// Words that the summary before did not have are underlined.
function quoted(text, before) {
  const had = new Set(before.toLowerCase().split(/\W+/));
  const quote = made("blockquote", "");
  for (const part of text.split(/(\s+)/)) {
    const word = part.toLowerCase().replace(/\W+/g, "");
    quote.append(before && word && !had.has(word) ? made("mark", "", part) : part);
  }
  return quote;
}

function taken(item, place) {
  const row = made("li", "", made("div", "tile", picture(item), made("span", "title", named(item))));
  if (place >= state.known.length) {
    const button = made("button", "remove", "×");
    button.type = "button";
    button.setAttribute("aria-label", `Remove ${named(item)} from the history`);
    button.addEventListener("click", () => remove(place - state.known.length));
    row.append(button);
  }
  return row;
}

function showRanked(answer) {
  at("ranked").replaceChildren(...answer.items.map((item) => {
    const from = `${item.retrieved_by} ${ordinal(item.retrieval_rank)}`;
    const what = made("span", "what", made("span", "title", named(item)), made("span", "from", from));
    const score = made("span", item.score === null ? "score unscored" : "score");
    let said = "not scored";
    if (item.score === null) {
      score.append("not scored");
    } else {
      said = `p(yes) ${shownScore(item.score)}`;
      const filled = made("i");
      filled.style.width = `${(100 * item.score).toFixed(1)}%`;
      const bar = made("span", "bar", filled);
      score.append(shownScore(item.score), bar);
    }
    const button = made("button", "choice", made("span", "rank", String(item.rank)), picture(item), what, score);
    button.type = "button";
    button.dataset.item = item.item_id;
    button.setAttribute("aria-label", `${item.rank}. ${named(item)}, ${said}, ${from}. Add it to the history`);
    button.addEventListener("click", () => add(item));
    return made("li", "", button);
  }));
  at("legend").hidden = !answer.items.length;
}

function shownScore(score) {
  if (score > 0.9995) return "> .999";
  return score < 0.0005 ? "< .001" : score.toFixed(3).replace(/^0/, "");
}

// Keys: the arrows walk through a list, "/" goes to the search for items.

document.addEventListener("keydown", (event) => {
  const typing = event.target.matches("input[type=search], input[type=password], select");
  if (event.key === "/" && !typing) {
    event.preventDefault();
    at("item-words").focus();
    return;
  }
  const step = { ArrowDown: 1, ArrowRight: 1, ArrowUp: -1, ArrowLeft: -1 }[event.key];
  const list = event.target.closest("ul, ol");
  if (event.target.matches("input[type=search]") && event.key === "ArrowDown") {
    const first = event.target.parentElement.querySelector("ul button");
    if (first) { event.preventDefault(); first.focus(); }
  } else if (step && list && event.target.matches("button")) {
    const buttons = [...list.querySelectorAll("button")];
    const next = buttons[buttons.indexOf(event.target) + step];
    if (next) { event.preventDefault(); next.focus(); }
  }
});

async function start() {
  const info = await ask("/v1/info");
  state.info = info;
  document.title = `${info.name} - msr serve`;
  at("name").textContent = `${info.name}: what would they choose next?`;
  at("facts").textContent = `${many(info.items, "item")}, ${many(info.users, "user")}; answered by ${info.model || "a model that is being loaded"}.`;
  at("retriever").replaceChildren(...info.candidates.map((one) => made("option", "", one)));
  at("token-form").hidden = true;
  at("problem").hidden = true;
  await recall();
  await Promise.all([users(), items()]);
  await refresh();
  document.documentElement.dataset.ready = "";
}

const users = searching(at("user-words"), findUsers);
const items = searching(at("item-words"), findItems);
for (const id of ["retriever", "k", "seen"]) at(id).addEventListener("change", refresh);
at("clear").addEventListener("click", startAnew);
at("token-form").addEventListener("submit", (event) => {
  event.preventDefault();
  state.token = at("token").value.trim();
  start().catch(complain);
});
start().catch(complain);
