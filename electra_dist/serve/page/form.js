"use strict";
// What the server sends is put into the page as text, never as HTML.

const byId = (id) => document.getElementById(id);

function element(name, className, text) {
  const made = document.createElement(name);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

const asPercent = (share) => `${(100 * share).toFixed(1)}%`;

// Python counts characters, JavaScript counts UTF-16 units.
const charactersOf = (text) => Array.from(text);

function bars(probabilities, predicted) {
  const list = element("div", "bars");
  const best = [predicted].flat();
  const sorted = Object.entries(probabilities).sort((one, other) => other[1] - one[1]);
  for (const [label, share] of sorted) {
    const row = element("div", best.includes(label) ? "bar best" : "bar");
    const meter = element("meter");
    meter.value = share;
    meter.setAttribute("aria-label", label);
    row.append(element("span", "label", label), meter, element("span", "value", asPercent(share)));
    list.append(row);
  }
  return list;
}

// `spans`: {start, end, title, note, strength}, in their order, without overlap.
function passage(text, spans) {
  const shown = element("p", "passage");
  const characters = charactersOf(text);
  let done = 0;
  for (const span of spans) {
    if (span.start < done || span.end <= span.start) continue;
    shown.append(characters.slice(done, span.start).join(""));
    const mark = element("mark", "", characters.slice(span.start, span.end).join(""));
    if (span.title) mark.title = span.title;
    if (span.note) mark.append(element("small", "", span.note));
    if (span.strength !== undefined) {
      mark.style.setProperty("background", `rgba(var(--mark), ${(0.75 * span.strength).toFixed(3)})`);
    }
    shown.append(mark);
    done = span.end;
  }
  shown.append(characters.slice(done).join(""));
  return shown;
}

function answer(content, input) {
  const parts = [];
  if (content.answer) {
    const title = `probability ${asPercent(content.probability)}`;
    parts.push(element("p", "found", `${content.answer} (${title})`));
    parts.push(passage(input.context, [{ start: content.start, end: content.end, title }]));
  } else {
    parts.push(element("p", "found", `no answer (probability ${asPercent(content.probability)})`));
  }
  return parts;
}

function tokens(content) {
  const spans = content.tokens.map((token) => ({
    start: token.start,
    end: token.end,
    title: `${token.token}: replaced with probability ${asPercent(token.replaced)}`,
    strength: token.replaced,
  }));
  return [passage(content.text, spans)];
}

function suspects(content) {
  const spans = content.words.filter((word) => word.suspect).map((word) => {
    const others = word.suggestions.map((one) => one.text).join(", ");
    const title = `does not belong: ${asPercent(word.probability)}`;
    return { ...word, title: others ? `${title}; instead: ${others}` : title, strength: word.probability };
  });
  return [passage(content.text, spans)];
}

function entities(content) {
  const spans = content.entities.map((one) => ({
    start: one.start,
    end: one.end,
    title: `${one.label}: ${asPercent(one.probability)}`,
    note: ` ${one.label}`,
  }));
  return [passage(content.text, spans)];
}

function ranking(content) {
  const list = element("ol", "ranking");
  for (const one of content.ranking) {
    list.append(element("li", "", `${one.candidate} (${one.score.toFixed(3)})`));
  }
  return [list];
}

function masks(content) {
  return content.masks.flatMap((found, index) => {
    const shares = Object.fromEntries(found.map((one) => [one.token, one.probability]));
    return [element("h3", "", `[MASK] ${index + 1}`), bars(shares, found[0]?.token)];
  });
}

// The parts of the page for one prediction; none where the JSON alone says it.
function parts(content, input) {
  if (content.entities && content.text) return entities(content);
  if (content.words && "suspect" in (content.words[0] ?? {})) return suspects(content);
  if (content.ranking) return ranking(content);
  if (content.probabilities && !Array.isArray(content.probabilities)) {
    return [bars(content.probabilities, content.predicted)];
  }
  if (typeof content.predicted === "number") {
    return [element("p", "number", content.predicted.toFixed(4))];
  }
  if (typeof content.predicted === "string") return [element("p", "found", content.predicted)];
  if ("answer" in content) return answer(content, input);
  if (content.tokens && content.text) return tokens(content);
  if (content.masks) return masks(content);
  return [];
}

function show(content, input) {
  byId("shown").replaceChildren(...parts(content, input));
  byId("json").textContent = JSON.stringify(content, null, 2);
  const details = byId("json").parentElement;
  details.open = byId("shown").childElementCount === 0;
}

function tell(sentence) {
  byId("error").textContent = sentence;
  byId("error").hidden = sentence === "";
}

async function predict(input) {
  const headers = { "Content-Type": "application/json" };
  const token = byId("token");
  if (token && token.value) headers.Authorization = `Bearer ${token.value}`;
  const body = JSON.stringify({ inputs: [input] });
  const response = await fetch("predict", { method: "POST", headers, body });
  const content = await response.json();
  if (!response.ok) throw new Error(content.error);
  return content.predictions[0];
}

// Of a field: a text, or a list with a text per line.
function valueOf(box) {
  if (!("list" in box.dataset)) return box.value;
  return box.value.split("\n").filter((line) => line.trim() !== "");
}

async function ask(event) {
  event.preventDefault();
  const boxes = [...document.querySelectorAll(".field")];
  const input = Object.fromEntries(boxes.map((box) => [box.dataset.name, valueOf(box)]));
  const started = performance.now();
  byId("ask").disabled = true;
  byId("shown").replaceChildren();
  byId("json").textContent = "";
  tell("");
  try {
    show(await predict(input), input);
  } catch (error) {
    tell(error.message);
  } finally {
    byId("time").textContent = `${Math.round(performance.now() - started)} ms`;
    byId("result").hidden = false;
    byId("ask").disabled = false;
  }
}

byId("form").addEventListener("submit", ask);
