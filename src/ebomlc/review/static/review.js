// The page: which row is shown, what a key or a button does, and what stands around it.

import { element, sampleOf, show } from "./sample.js";
import { Outbox, Refused, ask } from "./server.js";

const ALONE = 1024;
const TILE = 320;
const PER_GRID = 12;
const AHEAD = 3;
const FEW = 8;
const MOST_CHIPS = 10;
const MOST_FOUND = 50;
const NO_FILTER = { given: null, suggested: null, low: 0, high: 100, show: "open" };
const DONE = { accept: "Accepted", keep: "Kept", other: "Corrected", skip: "Skipped", undo: "Taken back" };

const $ = (id) => document.getElementById(id);
const count = new Intl.NumberFormat("en");
const clock = new Intl.DateTimeFormat(undefined, { dateStyle: "short", timeStyle: "short" });
const percent = (share) => `${Math.round(100 * share)} %`;
const ORDERS = ["suspect", "unsure", "random"];
const percentage = (share) => `${100 * share}%`;

const state = {
  classes: [],
  counts: null,
  order: "suspect",
  view: "one",
  filter: { ...NO_FILTER },
  queue: [],
  at: 0,
  matching: 0,
  isWhole: false,
  loads: 0,
  mine: [],
  target: null,
};
const outbox = new Outbox(showSaved);

// --- rows ---------------------------------------------------------------------------------------------------------

const current = () => state.queue[state.at];
const isFiltered = () => JSON.stringify(state.filter) !== JSON.stringify(NO_FILTER);
const className = (label) => (label === null ? "none" : state.classes[label]);

function query(after) {
  const wanted = new URLSearchParams({ order: state.order });
  if (after !== undefined) wanted.set("after", after);
  if (state.order !== "random") {
    const { given, suggested, low, high, show: standing } = state.filter;
    if (given !== null) wanted.set("given", given);
    if (suggested !== null) wanted.set("suggested", suggested);
    wanted.set("low", low / 100);
    wanted.set("high", high / 100);
    wanted.set("show", standing);
  }
  return `cards?${wanted}`;
}

async function load() {
  const turn = (state.loads += 1);
  await outbox.tail;
  const answer = await guarded(() => ask(query()));
  if (!answer || turn !== state.loads) return;
  Object.assign(state, { queue: answer.cards, at: 0, isWhole: answer.cards.length === 0 });
  learn(answer);
  remember();
  draw();
}

async function loadMore() {
  if (state.isWhole || !state.queue.length) return;
  const turn = state.loads;
  const answer = await guarded(() => ask(query(state.queue.at(-1).row)));
  if (!answer || turn !== state.loads) return;
  const known = new Set(state.queue.map((card) => card.row));
  const fresh = answer.cards.filter((card) => !known.has(card.row));
  state.isWhole = answer.cards.length === 0;
  state.queue.push(...fresh);
  learn(answer);
}

function learn(answer) {
  state.counts = answer.counts;
  if (answer.matching !== undefined) state.matching = answer.matching;
  drawCounts();
}

/** Rows that somebody else decided on meanwhile need no second look. */
function leaveOut(rows) {
  if (state.filter.show !== "open") return;
  const gone = new Set(rows);
  state.queue = state.queue.filter((card, position) => position <= state.at || card.decision || !gone.has(card.row));
}

// --- decisions ----------------------------------------------------------------------------------------------------

/** What choosing a class means for a row. */
function actionFor(card, label) {
  if (label === card.given) return "keep";
  return label === card.suggested ? "accept" : "other";
}

function decide(card, action, label) {
  if (!card || card.pending) return;
  if (action === "keep" && card.given === null) return;
  if (action === "accept" && card.given === card.suggested) action = "keep";
  if (action === "accept") label = card.suggested;
  if (action === "keep") label = card.given;
  const mode = state.order === "random" ? "random" : "suspect";
  const skipped = action === "skip";
  card.pending = true;
  card.decision = { action, label: skipped ? null : label, at: new Date().toISOString(), reviewer: state.reviewer };
  say(skipped ? "Skipped" : `${DONE[action]}: ${className(label)}`);
  const kept = outbox.send("decisions", () => ({
    row: card.row,
    action,
    label: skipped ? null : label,
    mode,
    since: state.counts.newest,
  }));
  kept.then((answer) => settle(card, answer), (error) => fail(card, error));
  advance(card);
}

function settle(card, answer) {
  card.pending = false;
  card.decision = answer.event;
  state.mine.push(answer.event.number);
  learn(answer);
  leaveOut(answer.elsewhere);
}

function fail(card, error) {
  card.pending = false;
  card.decision = null;
  alarm(error);
  if (error.status === 409) load();
}

async function undo() {
  let answer;
  try {
    answer = await outbox.send("undo", () => ({ number: state.mine.at(-1) ?? null, since: state.counts.newest }));
  } catch (error) {
    if (error.status === 409) say("Nothing to undo");
    else alarm(error);
    return;
  }
  state.mine.pop();
  learn(answer);
  say(`Taken back: ${answer.card.id}`);
  open(answer.card);
}

/** Show a row, wherever it stands in the queue. */
function open(card) {
  const found = state.queue.findIndex((other) => other.row === card.row);
  if (found >= 0) state.queue[found] = card;
  const isOnGrid = state.view === "grid" && found >= state.at && found < state.at + PER_GRID;
  if (isOnGrid) {
    draw();
    $("tiles").children[found - state.at].focus();
    return;
  }
  if (found < 0) state.queue.splice(state.at, 0, card);
  else state.at = found;
  draw();
}

async function openRow(row) {
  const card = await guarded(() => ask(`cards/${row}`));
  if (!card) return;
  state.view = "one";
  open(card);
}

// --- moving -------------------------------------------------------------------------------------------------------

function advance(card) {
  if (state.view === "grid") {
    drawTile(card);
    nextTile();
    return;
  }
  move(1);
}

function move(step) {
  const isUnanswered = step > 0 && state.order === "random" && current() && !current().decision;
  if (isUnanswered) {
    say("Random rows come in their order: decide, or skip");
    return;
  }
  state.at = Math.min(Math.max(state.at + step, 0), state.queue.length);
  if (state.queue.length - state.at < (state.view === "grid" ? 2 * PER_GRID : FEW)) {
    const wasEmpty = !current();
    loadMore().then(() => wasEmpty && draw());
  }
  draw();
}

function nextTile() {
  const tiles = [...$("tiles").children];
  const from = Math.max(tiles.indexOf(document.activeElement.closest(".tile")), 0);
  const open = [...tiles.slice(from), ...tiles.slice(0, from)].find((tile) => !tile.classList.contains("is-decided"));
  (open ?? $("more")).focus();
}

/** Place of the first row without a decision, from a row on. */
function openFrom(card) {
  const from = Math.max(state.queue.indexOf(card), state.at);
  const found = state.queue.findIndex((other, place) => place >= from && !other.decision);
  return found < 0 ? state.queue.length : found;
}

/** Up and down go to the tile that lies nearest in that direction. */
function moveOnGrid(key) {
  const tiles = [...$("tiles").children];
  const at = tiles.indexOf(document.activeElement.closest(".tile"));
  if (at < 0) {
    tiles[0]?.focus();
    return;
  }
  const columns = tiles.filter((tile) => tile.offsetTop === tiles[0].offsetTop).length;
  const step = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns }[key];
  tiles[at + step]?.focus();
}

function chooseOrder(order) {
  if (order === state.order) return;
  state.order = order;
  if (order === "random") state.view = "one";
  load();
}

function chooseView(view) {
  if (view === state.view || (view === "grid" && state.order === "random")) return;
  if (view === "one") state.at = openFrom(keyed());
  state.view = view;
  remember();
  draw();
}

// --- drawing ------------------------------------------------------------------------------------------------------

function draw() {
  const card = current();
  const isRandom = state.order === "random";
  for (const order of ORDERS) $(`order-${order}`).ariaPressed = String(state.order === order);
  for (const view of ["one", "grid"]) $(`view-${view}`).ariaPressed = String(state.view === view);
  $("view-grid").disabled = isRandom;
  $("view-grid").title = isRandom ? "Random rows come one by one" : "";
  $("open-filter").disabled = isRandom;
  $("filtered").hidden = isRandom || !isFiltered();
  $("filtered-text").textContent = `Filtered: ${count.format(state.matching)} rows`;
  $("one").hidden = !card || state.view !== "one";
  $("grid").hidden = !card || state.view !== "grid";
  $("done").hidden = Boolean(card);
  drawCounts();
  if (!card) drawDone();
  else if (state.view === "one") drawOne(card);
  else drawGrid();
}

function drawCounts() {
  const { counts } = state;
  if (!counts) return;
  const { order } = state;
  const [seen, all] = {
    suspect: [counts.suspects - counts.suspects_left, counts.suspects],
    unsure: [counts.decided + counts.skipped, counts.rows],
    random: [counts.drawn, counts.rows],
  }[order];
  const what = {
    suspect: `of ${count.format(all)} suspects seen`,
    unsure: `of ${count.format(all)} rows seen`,
    random: `random rows seen, of ${count.format(all)} rows`,
  }[order];
  const skipped = counts.skipped ? ` · ${count.format(counts.skipped)} skipped` : "";
  $("progress").max = Math.max(all, 1);
  $("progress").value = seen;
  $("counts").textContent = `${count.format(seen)} ${what} · ${count.format(counts.decided)} decided${skipped}`;
}

function drawOne(card) {
  const agrees = card.given === card.suggested;
  show($("sample"), card.row, ALONE);
  for (const next of state.queue.slice(state.at + 1, state.at + 1 + AHEAD)) sampleOf(next.row, ALONE).catch(() => {});
  $("row-id").textContent = card.id;
  $("where").textContent = state.order === "random" ? "random row" : "";
  $("given").textContent = className(card.given);
  $("given-share").style.width = percentage(card.quality ?? 0);
  $("given-likely").textContent = card.quality === null ? "came without" : `${percent(card.quality)} likely right`;
  $("suggested").textContent = className(card.suggested);
  $("suggested-share").style.width = percentage(card.confidence);
  $("suggested-likely").textContent = `${percent(card.confidence)} likely right`;
  $("accept").hidden = agrees;
  $("keep").disabled = card.given === null;
  $("keep").classList.toggle("accept", agrees);
  $("keep").firstElementChild.textContent = agrees ? "The label is right" : `Keep ${className(card.given)}`;
  $("accept").firstElementChild.textContent = `Accept ${className(card.suggested)}`;
  $("previous").disabled = state.at === 0;
  drawStanding(card);
  drawChips(card);
}

function standing({ action, label, reviewer, at }) {
  const what = action === "skip" ? "Skipped" : `${DONE[action]}: ${className(label)}`;
  return `${what}, ${reviewer}, ${clock.format(new Date(at))}`;
}

function drawStanding(card) {
  $("stands").hidden = !card.decision;
  $("stands").textContent = card.decision ? standing(card.decision) : "";
}

function drawChips(card) {
  const others = state.classes.map((_, label) => label).filter((label) => label !== card.given && label !== card.suggested);
  $("other").hidden = others.length === 0;
  const chips = others.map((label) => {
    const key = element("kbd", { textContent: keyOf(label) });
    const chip = element("button", { type: "button" }, className(label), key);
    chip.addEventListener("click", () => decide(card, "other", label));
    return chip;
  });
  $("chips").replaceChildren(...(state.classes.length <= MOST_CHIPS ? chips : []));
}

/** The number that chooses a class: its own name where all are called 0 to 9, else its place. */
function keyOf(label) {
  if (state.classes.every((name) => /^[0-9]$/.test(name))) return state.classes[label];
  return label < 10 ? String((label + 1) % 10) : "";
}

function drawGrid() {
  const cards = state.queue.slice(state.at, state.at + PER_GRID);
  $("tiles").replaceChildren(...cards.map(makeTile));
  for (const next of state.queue.slice(state.at + PER_GRID, state.at + 2 * PER_GRID)) sampleOf(next.row, TILE).catch(() => {});
  $("tiles").firstElementChild?.focus({ preventScroll: true });
}

function makeTile(card) {
  const box = element("div", { className: "sample" });
  const names = element("p", { className: "turn" });
  names.append(element("span", { className: "from", textContent: className(card.given) }));
  names.append(element("span", { className: "arrow", textContent: "→" }));
  names.append(element("span", { className: "to", textContent: className(card.suggested) }));
  const about = element("p", { className: "about id", textContent: `${percent(card.confidence)} sure · ${card.id}` });
  const tile = element("article", { className: "tile", tabIndex: 0, role: "listitem" }, box, names, about, makeFour(card));
  tile.dataset.row = card.row;
  tile.classList.toggle("is-decided", Boolean(card.decision));
  show(box, card.row, TILE);
  return tile;
}

function makeFour(card) {
  const four = element("div", { className: "four" });
  for (const [action, name, key] of [["accept", "Accept", "A"], ["keep", "Keep", "K"], ["other", "Other", "O"], ["skip", "Skip", "S"]]) {
    const button = element("button", { type: "button", textContent: name, title: `${name} (${key})`, tabIndex: -1 });
    button.ariaPressed = String(card.decision?.action === action);
    button.addEventListener("click", () => (action === "other" ? chooseClass(card) : decide(card, action)));
    four.append(button);
  }
  return four;
}

function drawTile(card) {
  const tile = [...$("tiles").children].find((other) => other.dataset.row === String(card.row));
  if (!tile) return;
  const hadFocus = tile.contains(document.activeElement);
  tile.classList.toggle("is-decided", Boolean(card.decision));
  tile.querySelector(".four").replaceWith(makeFour(card));
  if (hadFocus) tile.focus();
}

function drawDone() {
  const { counts, order } = state;
  const isPassed = state.matching > 0 && state.queue.some((card) => !card.decision);
  const options = isPassed
    ? ["That was the last one", "Some rows were passed without a decision.", "Begin again", load]
    : order === "random"
      ? ["Every row has been seen", "There is no further random row.", "Most suspect", () => chooseOrder("suspect")]
      : isFiltered()
        ? ["No row passes the filter", "Other rows are left to look at.", "Show all", clearFilter]
        : order === "suspect" && counts.suspects
          ? ["All suspects are seen", "ebomlc export takes your decisions with it. Random rows tell how many labels are wrong.", "Random rows", () => chooseOrder("random")]
          : order === "unsure"
            ? ["Every row has been seen", "ebomlc export takes your decisions with it.", "Most suspect", () => chooseOrder("suspect")]
            : ["No label is suspected", "The run suggests no other label for any row. Random rows tell how many labels are wrong.", "Random rows", () => chooseOrder("random")];
  [$("done-title").textContent, $("done-text").textContent, $("done-action").textContent] = options;
  $("done-action").onclick = options[3];
}

// --- what is said -------------------------------------------------------------------------------------------------

function say(text) {
  $("saved").textContent = text;
}

function showSaved() {
  if (outbox.unreachable) alarm(null);
  else if (outbox.waiting === 0) $("alarm").hidden = true;
}

function alarm(error) {
  const unsaved = outbox.waiting ? ` Not kept: ${outbox.waiting} ${outbox.waiting === 1 ? "decision" : "decisions"}.` : "";
  if (!(error instanceof Refused)) $("alarm").textContent = `The server does not answer; the page tries again.${unsaved}`;
  else if (error.status === 403) $("alarm").textContent = `The server was started anew: open the address that it printed.${unsaved}`;
  else $("alarm").textContent = error.message;
  $("alarm").hidden = false;
}

/** The answer to a question, or nothing and an alarm. */
async function guarded(question) {
  try {
    return await question();
  } catch (error) {
    alarm(error);
    return undefined;
  }
}

/** The choice of rows survives a reload of the page. */
function remember() {
  const kept = new URLSearchParams({ order: state.order, view: state.view });
  for (const [name, value] of Object.entries(state.filter)) if (value !== NO_FILTER[name]) kept.set(name, value);
  history.replaceState(null, "", `#${kept}`);
}

function recall() {
  const kept = new URLSearchParams(location.hash.slice(1));
  if (ORDERS.includes(kept.get("order"))) state.order = kept.get("order");
  if (kept.get("view") === "grid" && state.order !== "random") state.view = "grid";
  for (const name of ["given", "suggested", "low", "high"]) {
    const value = Number(kept.get(name) ?? NaN);
    if (Number.isInteger(value)) state.filter[name] = value;
  }
  if (["decided", "skipped", "all"].includes(kept.get("show"))) state.filter.show = kept.get("show");
}

// --- dialogs ------------------------------------------------------------------------------------------------------

function chooseClass(card) {
  if (!card) return;
  state.target = card;
  $("search").value = "";
  findClasses();
  $("classes").showModal();
  $("search").focus();
}

function findClasses() {
  const wanted = $("search").value.trim().toLowerCase();
  const labels = state.classes.map((_, label) => label).filter((label) => className(label).toLowerCase().includes(wanted));
  const starts = (label) => className(label).toLowerCase().startsWith(wanted);
  labels.sort((one, other) => starts(other) - starts(one) || one - other);
  const options = labels.slice(0, MOST_FOUND).map((label) => {
    const option = element("button", { type: "button", role: "option", textContent: className(label), tabIndex: -1 });
    option.addEventListener("click", () => takeClass(label));
    return option;
  });
  $("found").replaceChildren(...options);
  selectClass(0);
}

function selectClass(position) {
  [...$("found").children].forEach((option, place) => {
    option.ariaSelected = String(place === position);
    if (place === position) option.scrollIntoView({ block: "nearest" });
  });
}

function takeClass(label) {
  $("classes").close();
  decide(state.target, actionFor(state.target, label), label);
}

function searchKey(event) {
  const options = [...$("found").children];
  const at = options.findIndex((option) => option.ariaSelected === "true");
  if (event.key === "Enter") options[at]?.click();
  else if (event.key === "ArrowDown") selectClass(Math.min(at + 1, options.length - 1));
  else if (event.key === "ArrowUp") selectClass(Math.max(at - 1, 0));
  else return;
  event.preventDefault();
}

function openFilter() {
  if (state.order === "random") return;
  for (const name of ["given", "suggested"]) {
    const options = state.classes.map((text, label) => element("option", { value: String(label), textContent: text }));
    $(`filter-${name}`).replaceChildren(element("option", { value: "", textContent: "any" }), ...options);
  }
  for (const [name, value] of Object.entries(state.filter)) $(`filter-${name}`).value = value ?? "";
  $("filter").showModal();
}

function applyFilter() {
  const number = (name) => ($(`filter-${name}`).value === "" ? NO_FILTER[name] : Number($(`filter-${name}`).value));
  const bounded = (name) => Math.min(Math.max(number(name), 0), 100);
  const [low, high] = [bounded("low"), bounded("high")].sort((one, other) => one - other);
  state.filter = { given: number("given"), suggested: number("suggested"), low, high, show: $("filter-show").value };
  $("filter").close();
  load();
}

function clearFilter() {
  state.filter = { ...NO_FILTER };
  $("filter").close();
  load();
}

async function openHistory() {
  await outbox.tail;
  const events = await guarded(() => ask("history"));
  if (!events) return;
  const undone = new Set(events.map((event) => event.undoes));
  const lines = events.map((event) => {
    const label = event.label === null ? "" : ` ${className(event.label)}`;
    const note = undone.has(event.number) ? " (taken back)" : "";
    const what = element("span", { className: "what", textContent: `${DONE[event.action]}${label}: ${event.id}${note}` });
    const when = element("span", { className: "when", textContent: `${event.reviewer}, ${clock.format(new Date(event.at))}` });
    const button = element("button", { type: "button" }, what, when);
    button.addEventListener("click", () => {
      $("history").close();
      openRow(event.row);
    });
    return element("li", {}, button);
  });
  $("events").replaceChildren(...(lines.length ? lines : [element("li", { className: "hint", textContent: "Nothing was decided yet." })]));
  $("history").showModal();
}

// --- keys and buttons ---------------------------------------------------------------------------------------------

/** The row that a key means: the one that is shown, or the tile that has the focus. */
function keyed() {
  if (state.view === "one") return current();
  const row = document.activeElement.closest(".tile")?.dataset.row;
  return state.queue.find((card) => String(card.row) === row);
}

const KEYS = {
  a: () => decide(keyed(), "accept"),
  k: () => decide(keyed(), "keep"),
  s: () => decide(keyed(), "skip"),
  o: () => chooseClass(keyed()),
  u: undo,
  g: () => chooseView(state.view === "one" ? "grid" : "one"),
  l: () => chooseOrder(state.order === "unsure" ? "suspect" : "unsure"),
  r: () => chooseOrder(state.order === "random" ? "suspect" : "random"),
  f: openFilter,
  h: openHistory,
  n: () => state.view === "grid" && move(PER_GRID),
  "?": () => $("help").showModal(),
};

function press(event) {
  const isUndo = event.key.toLowerCase() === "z" && (event.ctrlKey || event.metaKey) && !event.shiftKey;
  // all fields are in dialogs; one that was just closed may still have the focus, until the page is drawn anew
  const isOurs = !document.querySelector("dialog[open]") && !event.altKey;
  // a key that is held down must not decide row after row
  if (!isOurs || event.repeat || ((event.ctrlKey || event.metaKey) && !isUndo)) return;
  const act = isUndo ? undo : KEYS[event.key.toLowerCase()] ?? arrow(event.key) ?? digit(event.key);
  if (!act) return;
  event.preventDefault();
  act();
}

function arrow(key) {
  if (!key.startsWith("Arrow")) return undefined;
  if (state.view === "grid" && !$("grid").hidden) return () => moveOnGrid(key);
  return { ArrowLeft: () => move(-1), ArrowRight: () => move(1) }[key];
}

function digit(key) {
  const label = state.classes.findIndex((_, place) => keyOf(place) === key);
  const card = keyed();
  return label >= 0 && card && /^[0-9]$/.test(key) ? () => decide(card, actionFor(card, label), label) : undefined;
}

function onClick(id, act) {
  $(id).addEventListener("click", act);
}

function listen() {
  document.addEventListener("keydown", press);
  for (const action of ["accept", "keep", "skip"]) onClick(action, () => decide(current(), action));
  onClick("other", () => chooseClass(current()));
  for (const id of ["undo", "grid-undo", "done-undo"]) onClick(id, undo);
  onClick("previous", () => move(-1));
  onClick("next", () => move(1));
  onClick("more", () => move(PER_GRID));
  for (const order of ORDERS) onClick(`order-${order}`, () => chooseOrder(order));
  for (const view of ["one", "grid"]) onClick(`view-${view}`, () => chooseView(view));
  onClick("open-filter", openFilter);
  onClick("open-history", openHistory);
  onClick("open-help", () => $("help").showModal());
  onClick("filter-apply", applyFilter);
  for (const id of ["filter-clear", "clear-filter"]) onClick(id, clearFilter);
  $("search").addEventListener("input", findClasses);
  $("search").addEventListener("keydown", searchKey);
  for (const button of document.querySelectorAll("[data-close]")) button.addEventListener("click", () => button.closest("dialog").close());
  window.addEventListener("beforeunload", (event) => outbox.waiting && event.preventDefault());
}

async function start() {
  const about = await guarded(() => ask("about"));
  if (!about) return;
  Object.assign(state, about);
  recall();
  listen();
  load();
}

start();
