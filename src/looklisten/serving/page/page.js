// The page of `looklisten serve`. It asks the server's own routes and nothing else.

import { asItems, byId, complain, make, makeButton } from "./elements.js";
import { startSearch } from "./search.js";
import { addressOf, ask, useLimits, useToken } from "./server.js";
import { openClip } from "./watch.js";

const MOST_EXAMPLES = 10;
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
  byId("network").textContent = `The network of this server: ${model.name}.`;
  byId("limits").textContent = `A file may have up to ${megabytes} MB and ${seconds} seconds.`;
  byId("no-index").hidden = model.can_search;
  if (!model.can_search) return;
  const index = await ask(`v1/index?limit=${MOST_CHOICES}`);
  const files = index.files.filter((file) => file.media);
  showExamples(files.filter((file) => file.kind === "video").slice(0, MOST_EXAMPLES));
  byId("compare-index-line").hidden = false;
  byId("compare-index").append(
    ...files.map((file) => make("option", { value: file.media, textContent: file.name })),
  );
  await startSearch(index);
}

function showExamples(files) {
  byId("examples").hidden = files.length === 0;
  byId("example-list").replaceChildren(...asItems(files.map(exampleButton)));
}

function exampleButton(file) {
  const example = makeButton(file.name, () => openClip(file));
  if (file.thumbnail) {
    const picture = make("img", { alt: "" });
    example.prepend(picture);
    addressOf(`v1/thumbnails/${file.thumbnail}`).then(
      (address) => (picture.src = address),
      (error) => complain(byId("watch"), error),
    );
  }
  return example;
}

byId("token-form").onsubmit = (event) => {
  event.preventDefault();
  byId("watch").querySelector(".error").textContent = "";
  useToken(byId("token").value);
  start().catch((error) => complain(byId("watch"), error));
};

start().catch((error) => complain(byId("watch"), error));
