// Small parts of the page: elements, times, and what goes on in an area. Knows no server.

export const byId = (id) => document.getElementById(id);

export function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

export const makeButton = (text, onclick) =>
  make("button", { type: "button", textContent: text, onclick });
export const asItems = (elements) => elements.map((element) => make("li", {}, element));
// The chosen one of the radio buttons of this name.
export const checked = (name) => document.querySelector(`[name=${name}]:checked`).value;

// The name of a chosen file, beside its button.
export function nameChosenFiles() {
  for (const input of document.querySelectorAll("label.file input")) {
    const name = byId(`${input.id}-name`);
    const show = () => {
      const names = [...input.files].map((file) => file.name);
      name.textContent = names.length > 1 ? `${names.length} files` : (names[0] ?? "no file yet");
    };
    if (!name) continue;
    input.addEventListener("change", show);
    input.form?.addEventListener("reset", () => setTimeout(show));
    show();
  }
}

// Such as 1:05, or 1:05.3 with one digit.
export function clock(seconds, digits = 0) {
  const rounded = Math.floor(seconds * 10 ** digits + 1e-6) / 10 ** digits;
  const rest = (rounded % 60).toFixed(digits).padStart(digits ? digits + 3 : 2, "0");
  return `${Math.floor(rounded / 60)}:${rest}`;
}

export function asSentence(text) {
  const begun = text.charAt(0).toUpperCase() + text.slice(1);
  return /[.?!]$/.test(begun) ? begun : `${begun}.`;
}

export const percent = (probability) => `${Math.round(100 * probability)} %`;

export function complain(area, error) {
  if (error.name === "AbortError") return;
  area.querySelector(":scope > .error").textContent = asSentence(error.message);
}

const running = new Map();

// Work for one part of the page: what goes on, then the error as a sentence. New work ends the old.
export async function during(area, sentence, work) {
  running.get(area)?.abort();
  const controller = new AbortController();
  running.set(area, controller);
  const status = area.querySelector(":scope > .status");
  status.textContent = sentence;
  area.querySelector(":scope > .error").textContent = "";
  try {
    await work(controller.signal, (text) => {
      status.textContent = text;
    });
  } catch (error) {
    complain(area, error);
  } finally {
    if (running.get(area) === controller) status.textContent = "";
  }
}
