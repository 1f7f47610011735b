"use strict";
// Helpers that change the page in place, so that focus and selected text stay when values change.

const $ = id => document.getElementById(id);

// setText changes the text of an element that has no other content.
function setText(e, text) {
  text = String(text);
  if (e.textContent === text) return;
  if (e.firstChild) e.firstChild.data = text;
  else e.textContent = text;
}

function setAttribute(e, name, value) {
  value = String(value);
  if (e.getAttribute(name) !== value) e.setAttribute(name, value);
}

// reconcile makes the children of a parent match a list of items. The child of an item that stays
// is kept. keyOf names an item, create makes its child, and update sets the content of the child.
function reconcile(parent, items, keyOf, create, update) {
  const keys = new Set(items.map(item => String(keyOf(item))));
  const old = new Map();
  for (const e of [...parent.children]) {
    if (keys.has(e.dataset.key)) old.set(e.dataset.key, e);
    else e.remove();
  }
  const focused = document.activeElement;
  let next = parent.firstElementChild;
  for (const item of items) {
    const key = String(keyOf(item));
    const e = old.get(key) || create(item);
    e.dataset.key = key;
    if (e === next) next = next.nextElementSibling;
    else parent.insertBefore(e, next);
    update(e, item);
  }
  // A row that was moved has lost the focus.
  if (focused !== document.activeElement && focused.isConnected) focused.focus();
}

// fillRow sets the cells of a row. A column has a label for narrow screens, and a function that
// returns the text of the cell, or an object with text, css and title.
function fillRow(row, columns, ...of) {
  columns.forEach((column, i) => {
    const td = row.cells[i] || addCell(row, column);
    let shown = column.show(...of);
    if (typeof shown !== "object") shown = { text: shown };
    setText(td.firstChild, shown.text);
    setAttribute(td, "class", [column.css, shown.css].filter(Boolean).join(" "));
    if (shown.title) setAttribute(td, "title", shown.title);
  });
}

function addCell(row, column) {
  const td = row.insertCell();
  td.append(document.createElement("span"));
  td.dataset.label = column.label;
  return td;
}

// fillButtons shows the buttons of a row in its last cell. A button has css,
// text, target and press, and a label if its text does not go with the target.
function fillButtons(row, columns, buttons) {
  const td = row.cells[columns.length] || row.insertCell();
  td.className = "actions";
  reconcile(td, buttons, b => b.css, createButton, (e, b) => {
    e.dataset.target = b.target;
    setText(e, b.text);
    setAttribute(e, "aria-label", `${b.label || b.text} ${b.target}`);
    e.onclick = b.press;
    e.disabled = state.lost;
  });
}

function createButton(b) {
  const e = document.createElement("button");
  e.type = "button";
  e.className = `act ${b.css}`;
  return e;
}
