// A row as what it is: a picture, a text, the cells of a table, or the reason why there is nothing to see.

import { ask } from "./server.js";

const KEPT = 48;
const SMALL = 96; // pixels up to which a picture is shown enlarged, pixel by pixel
const MIDDLE = 512; // and up to which it is enlarged smoothly
const SHORT = 160; // letters up to which a text is set in large type
const CODE = /\n(\t| {2,})\S/;

const nodes = new Map();

export function element(name, properties = {}, ...children) {
  const { className, ...others } = properties;
  const node = document.createElement(name);
  if (className) node.className = className;
  Object.assign(node, others);
  node.append(...children);
  return node;
}

function picture(row, side, sample) {
  const image = element("img", { src: `pictures/${row}?side=${side}`, alt: "the row's picture", decoding: "async" });
  [image.width, image.height] = sample.size;
  const longer = Math.max(...sample.size);
  if (longer <= MIDDLE) image.className = longer <= SMALL ? "small" : "middle";
  return image;
}

function text(sample) {
  const kind = CODE.test(sample.text) ? "text code" : sample.text.length <= SHORT ? "text short" : "text";
  return element("div", { className: kind, dir: "auto", textContent: sample.text });
}

function cells(sample) {
  const rows = sample.fields.map(([name, value]) =>
    element("tr", {}, element("th", { scope: "row", textContent: name }), element("td", { dir: "auto", textContent: value })),
  );
  return element("table", { className: "fields" }, element("tbody", {}, ...rows));
}

function missing(reason) {
  return element("p", { className: "missing" }, element("b", { textContent: "Nothing to see" }), reason);
}

async function build(row, side) {
  const sample = await ask(`samples/${row}?side=${side}`);
  const holder = element("div", { className: "sample" });
  if (sample.kind === "image") holder.append(picture(row, side, sample));
  else if (sample.kind === "text") holder.append(text(sample));
  else if (sample.kind === "missing") holder.append(missing(sample.reason));
  if (sample.fields.length) {
    holder.append(cells(sample));
    holder.classList.add("has-fields");
  }
  return holder;
}

/** The row, ready to be put into the page; asked for once, so that the next ones can be fetched ahead. */
export function sampleOf(row, side) {
  const key = `${row}/${side}`;
  if (!nodes.has(key)) {
    const node = build(row, side);
    node.catch(() => nodes.delete(key));
    nodes.set(key, node);
    if (nodes.size > KEPT) nodes.delete(nodes.keys().next().value);
  }
  return nodes.get(key);
}

/** Put the row into the place of `box`, unless that has been asked for another row by the time it is there. */
export async function show(box, row, side) {
  box.dataset.row = row;
  let node;
  try {
    node = await sampleOf(row, side);
  } catch (error) {
    node = missing(error.message);
  }
  if (box.dataset.row !== String(row)) return;
  box.className = node.className.includes("has-fields") ? "sample has-fields" : "sample";
  box.replaceChildren(...(node.className.startsWith("sample") ? [...node.childNodes].map((child) => child.cloneNode(true)) : [node]));
  box.scrollTop = 0;
}
