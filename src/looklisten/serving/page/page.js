// The page of `looklisten serve`. It asks the server's own routes and nothing else.

import { asItems, byId, complain, make, makeButton } from "./elements.js";
import { startSearch } from "./search.js";
import { ask, useLimits, useToken } from "./server.js";
import { openClip } from "./watch.js";

const MOST_EXAMPLES = 12;
const MOST_CHOICES = 200;

async function start() {
  let model;
  try {
    model = await ask("v1/model");
  } catch (error) {
    byId("token-form").hidden = error.status !== 401;
    complain(byId("watch"), error);
    return;
  }
  byId("token-form").hidden = true;
  useLimits(model.limits);
  const { max_megabytes: megabytes, max_seconds: seconds } = model.limits;
  byId("network").textContent = `Here it is ${model.name}.`;
  byId("limits").textContent = `A file may have ${megabytes} MB and ${seconds} s.`;
  byId("no-index").hidden = model.can_search;
  if (!model.can_search) return;
  const index = await ask(`v1/index?limit=${MOST_CHOICES}`);
  const files = index.files.filter((file) => file.media);
  showExamples(files.filter((file) => file.kind === "video").slice(0, MOST_EXAMPLES));
  byId("compare-index-line").hidden = false;
  byId("compare-index").append(...files.map((file) => make("option", { value: file.media, textContent: file.name })));
  await startSearch(index);
}

function showExamples(files) {
  byId("examples").hidden = files.length === 0;
  const buttons = files.map((file) => makeButton(file.name, () => openClip(file)));
  byId("examples").querySelector("ul").replaceChildren(...asItems(buttons));
}

byId("token-form").onsubmit = (event) => {
  event.preventDefault();
  byId("watch").querySelector(".error").textContent = "";
  useToken(byId("token").value);
  start().catch((error) => complain(byId("watch"), error));
};

start().catch((error) => complain(byId("watch"), error));
