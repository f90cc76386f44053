// The page: a beginning goes in, text comes out, and what is happening is said in words.

import { ask } from "./thread.js";
import { WORDS, explain } from "./words.js";

const PACE = 30; // characters a second that a person can follow
const AHEAD = 64; // characters written at once, so that the clock measures the model and not the pauses
const LATELY = 0.7; // what of the speed so far counts at the next turn: the first hundreds warm the engine up
const BLOCK = 12; // milliseconds of writing that are shown at once, where there is no pace
const LONGEST = 200; // and where there is one, after which those that are there are shown
const BEGINNING = "分开";

const at = (id) => document.getElementById(id);
let language = initialLanguage();
let words = WORDS[language];
let model = null;
let writing = null; // the AbortController of the text being written
let texts = 0; // begun so far
let say = () => words.loading; // what the line under the text says, in whichever language
let complain = null;
let announce = () => ""; // what a screen reader was told last, in whichever language

start();

async function start() {
  at("language").addEventListener("click", () => speak(language === "en" ? "zh" : "en"));
  at("form").addEventListener("submit", (event) => {
    event.preventDefault();
    write("error");
  });
  at("stop").addEventListener("click", () => writing?.abort());
  at("skip").addEventListener("click", () => write("skip"));
  at("keep").addEventListener("click", keepSeed);
  at("temperature").addEventListener("input", showDegree);
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape") writing?.abort();
  });
  if (matchMedia("(prefers-reduced-motion: reduce)").matches) at("pace").checked = false;
  showDegree();
  speak(language);
  try {
    const { variant } = document.documentElement.dataset;
    const progress = (bytes, of) => show(() => (bytes < of ? words.progress(bytes, of) : words.starting));
    model = await ask("load", { url: new URL("model/", document.baseURI).href, variant }, progress);
  } catch (error) {
    at("meter").hidden = true;
    complainOf(() => words.cannot + explain(words, error));
    console.error(error);
    return;
  }
  ready();
  // For the next visit, with or without a network; where it cannot be kept the page is as it is.
  navigator.serviceWorker?.register("sw.js").catch((error) => console.warn(error));
}

function ready() {
  const letters = model.vocabulary.filter((token) => /^\p{L}$/u.test(token));
  const known = model.unit === "byte" || [...BEGINNING].every((c) => model.vocabulary.includes(c));
  at("prompt").value ||= known ? BEGINNING : letters.slice(0, 1).join("");
  at("text").lang = at("prompt").lang = scriptOf(letters.join(""));
  at("write").disabled = false;
  show(() => (model.unit === "byte" ? words.readyForAny : words.ready(model.vocabulary.length)));
  speak(language);
}

async function write(unknown) {
  if (!model || writing || !at("form").reportValidity()) return;
  const prompt = at("prompt").value;
  const seed = at("seed").value ? BigInt(at("seed").value) : BigInt(crypto.getRandomValues(new Uint32Array(1))[0]);
  const temperature = Number(at("temperature").value);
  const controller = new AbortController();
  const options = {
    length: Number(at("length").value),
    topK: Number(at("top-k").value),
    temperature,
    seed,
    unknown,
  };
  complainOf(null);
  writing = controller;
  const text = ++texts;
  try {
    await ask("begin", { text, prompt, options });
  } catch (error) {
    writing = null;
    complainOf(() => explain(words, error), error.code === "unknown");
    return;
  }
  begin();
  const begun = document.createElement("b");
  const follows = document.createTextNode("");
  begun.textContent = prompt;
  at("text").replaceChildren(begun, follows);
  const drawn = () => (temperature > 0 ? words.seedIs(seed) : words.greedy);
  let [count, busy, seen] = [0, 0, 0];
  const shown = (piece) => {
    const more = piece.join("");
    follows.appendData(more);
    count += [...more].length;
  };
  try {
    for await (const { piece, speed, pace } of paced(text, controller.signal)) {
      shown(piece);
      [busy, seen] = [speed, pace];
      show(() => words.figures(count, speed, pace, drawn()));
    }
    end(() => words.done(count));
  } catch (error) {
    if (!controller.signal.aborted) complainOf(() => explain(words, error));
    end(() => words.stopped(count));
  }
  ask("end", { text });
  show(() => words.figures(count, busy, seen, drawn()));
  at("keep").hidden = temperature === 0 || at("seed").value !== "";
  at("keep").dataset.seed = String(seed);
}

/** Pieces as they are to be shown, a frame's worth at a time; how fast they are written lately, and shown. */
async function* paced(text, signal) {
  const ready = [];
  let [given, written, busy, done, coming] = [0, 0, 0, false, null];
  const began = performance.now();
  const taken = (more) => {
    coming = null;
    done = more.done;
    ready.push(...more.pieces);
    written = written * LATELY + more.pieces.length;
    busy = busy * LATELY + more.busy;
  };
  while (!done || ready.length) {
    const free = !at("pace").checked;
    if (!done && !coming && (free || ready.length < AHEAD / 2)) {
      const [most, milliseconds] = free ? [Infinity, BLOCK] : [AHEAD, LONGEST];
      coming = ask("take", { text, most, milliseconds }).then(taken);
      coming.catch(() => {}); // it is said where it is waited for
    }
    if (!ready.length) await coming;
    const piece = ready.splice(0, free ? ready.length : allowance(began, given));
    given += piece.length;
    const pace = free ? 0 : Math.round((given * 1000) / (performance.now() - began)); // 0: as fast as written
    if (piece.length) yield { piece, speed: busy ? Math.round((written / busy) * 1000) : 0, pace };
    if (!done || ready.length) await frame();
    signal.throwIfAborted();
  }
}

/** How many more characters a reader is ready for. */
function allowance(began, given) {
  return Math.max(0, Math.floor(((performance.now() - began) / 1000) * PACE) - given);
}

/** The next frame; a hidden page has none. */
function frame() {
  return new Promise((resolve) => (document.hidden ? setTimeout(resolve, 100) : requestAnimationFrame(resolve)));
}

function begin() {
  tell(() => "");
  at("keep").hidden = true;
  at("text").classList.add("writing");
  const focused = document.activeElement === at("write");
  at("write").hidden = true;
  at("stop").hidden = false;
  if (focused) at("stop").focus();
}

function end(message) {
  writing = null;
  tell(message);
  at("text").classList.remove("writing");
  const focused = document.activeElement === at("stop");
  at("stop").hidden = true;
  at("write").hidden = false;
  if (focused) at("write").focus();
}

function keepSeed() {
  at("seed").value = at("keep").dataset.seed;
  at("keep").hidden = true;
  at("seed").focus();
}

function showDegree() {
  at("degree").textContent = Number(at("temperature").value).toFixed(2);
}

function show(line) {
  say = line;
  at("figures").textContent = line();
}

/** What a screen reader says; it is said again where the language changes. */
function tell(message) {
  announce = message;
  at("said").textContent = message();
}

function complainOf(message, skippable = false) {
  complain = message;
  at("problem").hidden = !message;
  at("problem").textContent = message?.() ?? "";
  at("skip").hidden = !skippable;
}

/** Say everything in a language; what is being said at the moment too. */
function speak(chosen) {
  language = chosen;
  words = WORDS[chosen];
  document.documentElement.lang = words.html;
  for (const element of document.querySelectorAll("[data-say]")) {
    if (element !== at("figures")) element.textContent = words[element.dataset.say];
  }
  at("language").textContent = words.other;
  at("language").lang = chosen === "en" ? "zh-Hans" : "en";
  show(say);
  tell(announce);
  if (complain) at("problem").textContent = complain();
  if (model) {
    at("about").textContent = words.about(model.variant.replace("-weights", ""), model.bytes, model.engine);
  }
  try {
    localStorage.setItem("steprnn.language", chosen);
  } catch {
    // storage is switched off; the choice lasts as long as the page
  }
}

function initialLanguage() {
  const asked = new URLSearchParams(location.search).get("lang");
  if (Object.hasOwn(WORDS, asked ?? "")) return asked;
  try {
    const kept = localStorage.getItem("steprnn.language");
    if (Object.hasOwn(WORDS, kept ?? "")) return kept;
  } catch {
    // storage is switched off
  }
  return /^zh/i.test(navigator.language) ? "zh" : "en";
}

/** The language tag that makes a browser choose the right shapes for Han characters. */
function scriptOf(letters) {
  if (/[\p{Script=Hiragana}\p{Script=Katakana}]/u.test(letters)) return "ja";
  if (/\p{Script=Hangul}/u.test(letters)) return "ko";
  return /\p{Script=Han}/u.test(letters) ? "zh-Hans" : "";
}
