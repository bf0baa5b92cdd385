// The page of `looklisten serve`. It asks the server's own routes and nothing else.

import { useIndexForm } from "./add.js";
import { asItems, byId, complain, make, makeButton, nameChosenFiles } from "./elements.js";
import { showSize, startSearch } from "./search.js";
import { addressOf, ask, useLimits, useToken } from "./server.js";
import { startUnits } from "./units.js";
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
  byId("network").textContent = `The network of this server: ${model.name}.`;
  byId("limits").textContent = `A file may have up to ${megabytes} MB and ${seconds} seconds.`;
  byId("no-index").hidden = model.can_search;
  if (!model.can_search) return;
  byId("parts").hidden = false;
  await startSearch(await showIndex());
  useIndexForm(showIndex);
  startUnits();
}

// What the index holds now: its size, its examples and its files to compare with.
async function showIndex() {
  const index = await ask(`v1/index?limit=${MOST_CHOICES}`);
  const files = index.files.filter((file) => file.media);
  showSize(index);
  showExamples(files.filter((file) => file.kind === "video").slice(0, MOST_EXAMPLES));
  byId("compare-index-line").hidden = false;
  byId("compare-index").replaceChildren(
    byId("compare-index").options[0],
    ...files.map((file) => make("option", { value: file.media, textContent: file.name })),
  );
  return index;
}

function showExamples(files) {
  byId("examples").hidden = files.length === 0;
  byId("example-list").replaceChildren(...asItems(files.map(exampleButton)));
}

function exampleButton(file) {
  const example = makeButton("", () => openClip(file));
  example.title = file.name;
  example.append(make("span", { textContent: file.name }));
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

nameChosenFiles();

byId("token-form").onsubmit = (event) => {
  event.preventDefault();
  byId("watch").querySelector(".error").textContent = "";
  useToken(byId("token").value);
  start().catch((error) => complain(byId("watch"), error));
};

start().catch((error) => complain(byId("watch"), error));
