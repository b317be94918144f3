"use strict";
// Making elements. Text only ever becomes text nodes: the page's policy forbids every other way.

const el = (tag, props = {}, ...children) => {
  const node = document.createElement(tag);
  for (const [key, value] of Object.entries(props)) {
    if (value === false || value === null || value === undefined) continue;
    if (key === "on") for (const [type, act] of Object.entries(value)) node.addEventListener(type, act);
    else if (key === "style") for (const [name, set] of Object.entries(value)) node.style.setProperty(name, set);
    else node.setAttribute(key, value === true ? "" : value);
  }
  node.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return node;
};

const byId = (id) => document.getElementById(id);
const count = (number) => number.toLocaleString("en-US");

// A colour of the style as the canvas needs it: variables resolved for the theme that is on.
const probe = el("span", { class: "hidden", "aria-hidden": "true" });
document.body.append(probe);
const colour = (name, alpha = 1) => {
  probe.style.color = `color-mix(in srgb, var(--${name}) ${100 * alpha}%, transparent)`;
  return getComputedStyle(probe).color;
};
