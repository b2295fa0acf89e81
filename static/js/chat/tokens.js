// Tokens coloured by how likely the model held them, and what else might have stood there, on hover, focus or tap.
import { visible } from "./plain.js";

const levels = [0.9, 0.5, 0.2, 0.05]; // server/probabilities.py has the same

const percent = (p) => (p >= 0.0995 ? `${(p * 100).toFixed(0)}%` : p >= 0.001 ? `${(p * 100).toFixed(1)}%` : "< 0.1%");

// [text, logprob, [[text, logprob], …]] as it comes from a stream.
export function tokenSpan([text, logprob, rest]) {
  const span = document.createElement("span");
  const p = Math.exp(Math.min(0, logprob ?? 0));
  const level = levels.findIndex((least) => p >= least);
  span.className = `token p${level < 0 ? levels.length : level}`;
  span.tabIndex = -1;
  span.dataset.p = p;
  span.dataset.rest = JSON.stringify((rest || []).map(([other, value]) => [other, Math.exp(Math.min(0, value))]));
  span.textContent = visible(text);
  return span;
}

function fill(tip, token) {
  const rows = JSON.parse(token.dataset.rest);
  const table = document.createElement("table");
  const shown = visible(token.dataset.text ?? token.textContent);
  const caption = table.createCaption();
  caption.textContent = `${quoted(shown)} ${percent(Number(token.dataset.p))}`;
  for (const [text, p] of rows) {
    const row = table.insertRow();
    const bar = document.createElement("span");
    bar.className = "token-bar";
    bar.style.width = `${Math.round(p * 100)}%`;
    row.insertCell().textContent = quoted(visible(text));
    row.insertCell().textContent = percent(p);
    row.insertCell().append(bar);
    if (visible(text) === shown) row.className = "is-taken";
  }
  tip.replaceChildren(table);
}

function quoted(text) {
  return text.replaceAll("\n", "↵").replaceAll(" ", "␣").replaceAll("\t", "⇥") || "∅";
}

function place(tip, token) {
  const box = token.getClientRects()[0] || token.getBoundingClientRect();
  tip.hidden = false;
  const left = Math.max(8, Math.min(box.left, document.documentElement.clientWidth - tip.offsetWidth - 8));
  const below = box.bottom + 6;
  const fits = below + tip.offsetHeight < innerHeight;
  tip.style.left = `${left}px`;
  tip.style.top = `${fits ? below : Math.max(8, box.top - tip.offsetHeight - 6)}px`;
}

// One tooltip for all tokens below `root`; arrow keys go from token to token once the sheet has the focus.
export function explainTokens(root, tip) {
  let current = null;
  const show = (token) => {
    current?.removeAttribute("aria-describedby");
    current = token;
    if (!token) {
      tip.hidden = true;
      return;
    }
    fill(tip, token);
    token.setAttribute("aria-describedby", tip.id);
    place(tip, token);
  };
  root.addEventListener("pointerover", (event) => show(event.target.closest(".sheet .token")));
  root.addEventListener("pointerleave", () => show(null));
  root.addEventListener("focusin", (event) => show(event.target.closest(".sheet .token")));
  root.addEventListener("click", (event) => event.target.closest(".sheet .token")?.focus({ preventScroll: true }));
  addEventListener("scroll", () => show(null), { passive: true });
  root.addEventListener("keydown", (event) => {
    const sheet = event.target.closest(".sheet");
    if (!sheet) return;
    if (event.key === "Escape") show(null);
    if (event.key !== "ArrowRight" && event.key !== "ArrowLeft") return;
    const tokens = [...sheet.querySelectorAll(".token")];
    const at = tokens.indexOf(document.activeElement);
    const next = event.key === "ArrowRight" ? at + 1 : at < 0 ? tokens.length - 1 : at - 1;
    event.preventDefault();
    tokens[Math.max(0, Math.min(tokens.length - 1, next))]?.focus();
  });
}
