// Searching the index, and teaching tags from scenes that were found.

import { paintHeat } from "./drawing.js";
import {
  asItems,
  asSentence,
  byId,
  checked,
  clock,
  complain,
  during,
  make,
  makeButton,
  percent,
} from "./elements.js";
import { addressOf, ask, checkSize, field, finished } from "./server.js";
import { clip, openClip, player } from "./watch.js";

const MOST_SCENES = 12;
const MOST_TAGS = 3;
const MOMENT_SECONDS = 1; // the map of a scene is that of its best moment

// ---------------------------------------------------------------- search

byId("search-form").onchange = () => {
  for (const line of document.querySelectorAll("[data-by]"))
    line.hidden = line.dataset.by !== checked("by");
};

byId("search-form").onsubmit = (event) => {
  event.preventDefault();
  const by = checked("by");
  const file = byId("search-file").files[0];
  let query;
  if (by === "file") query = () => field("file", { file });
  if (by === "tag") query = () => ({ tag: byId("search-tag").value });
  if (by === "clip") query = () => field("file", clip);
  if (by === "second") query = () => ({ ...field("file", clip), at_seconds: player.currentTime });
  search(() => {
    if (by === "file" && !file) throw new Error("Choose a file first.");
    if ((by === "clip" || by === "second") && !clip) throw new Error("Open a clip above first.");
    return query();
  });
};

function search(queryForm) {
  return during(byId("searching"), "The server searches", async (signal) => {
    const form = { ...queryForm(), find: byId("find").value, k: MOST_SCENES };
    if (form.file) checkSize(form.file);
    if (byId("weak").checked) form.threshold = 0;
    const reply = await ask("v1/search", { method: "POST", form, signal });
    const scenes = reply.hits.length ? reply.hits : reply.nearest;
    const found = reply.nothing_found
      ? `Nothing found: ${reply.reason}`
      : `${scenes.length} scenes, best first`;
    const nearest = reply.nothing_found && scenes.length ? " These are the nearest." : "";
    byId("found").textContent = asSentence(found) + nearest;
    byId("no-hits").hidden = true;
    byId("hits").replaceChildren(...asItems(scenes.map(sceneCard)));
  });
}

// ---------------------------------------------------------------- scenes

const keyOf = (scene) => `${scene.media}@${scene.seconds}`;

function sceneCard(scene) {
  const view = make("div", { className: "view" });
  const showing = scene.thumbnail
    ? showThumbnail(view, scene)
    : view.append(make("p", { textContent: "a sound" }));
  Promise.resolve(showing).catch((error) => complain(byId("searching"), error));
  const name = scene.label ? `${scene.name} (${scene.label})` : scene.name;
  const facts = [`matches by its ${scene.matched}`];
  if (scene.kind !== "image")
    facts.push(`${clock(scene.start_seconds)} to ${clock(scene.end_seconds)}`);
  const figure = make("b", { textContent: percent(scene.score) });
  return make(
    "article",
    {},
    view,
    make("h3", { textContent: name }),
    make("p", { className: "soft" }, figure, `, ${[...facts, ...scene.marks].join("; ")}`),
    make("p", { className: "tags" }, ...tagsOf(scene)),
    make("div", { className: "row" }, ...sceneButtons(view, scene)),
  );
}

// The tags with the highest scores; more would hide the rest of the card.
function tagsOf(scene) {
  const tags = Object.entries(scene.tags).sort((first, second) => second[1] - first[1]);
  const own = tags.filter(([tag]) => ownNames.includes(tag));
  const shown = new Map([...own, ...tags].slice(0, MOST_TAGS + own.length));
  return [...shown].map(([tag, score]) =>
    make("span", { className: "tag", textContent: `${tag} ${percent(score)}` }),
  );
}

function sceneButtons(view, scene) {
  // A file on another machine cannot be played from here.
  if (!scene.media) return [];
  const mark = makeButton("Mark as example", () => toggleMark(scene));
  mark.dataset.key = keyOf(scene);
  mark.ariaPressed = String(marks.has(keyOf(scene)));
  const similar = makeButton("Find similar", () => {
    const second = scene.kind === "image" ? {} : { at_seconds: scene.seconds };
    search(() => ({ media: scene.media, ...second }));
  });
  const open = makeButton("Open above", () => openClip(scene, scene.seconds));
  if (scene.kind === "image") return [mark, similar, open];
  const play = makeButton(`Play from ${clock(scene.seconds)}`, () => {
    playScene(view, scene).catch((error) => complain(byId("searching"), error));
  });
  return [play, mark, similar, open];
}

async function showThumbnail(view, scene) {
  const picture = make("img", { alt: `${scene.name} at ${clock(scene.seconds)}` });
  const canvas = make("canvas", { ariaHidden: "true" });
  picture.onload = () =>
    view.classList.toggle("tall", picture.naturalHeight > picture.naturalWidth);
  view.append(picture, canvas);
  picture.src = await addressOf(`v1/thumbnails/${scene.thumbnail}`);
  const { frame_map: map } = await ask(`v1/thumbnails/${scene.thumbnail}/map`);
  if (map) paintHeat(canvas, map);
}

async function playScene(view, scene) {
  for (const other of document.querySelectorAll("video, audio")) other.pause();
  let medium = view.querySelector("video, audio");
  if (!medium) {
    medium = make(scene.kind === "audio" ? "audio" : "video", {
      controls: true,
      playsInline: true,
    });
    medium.setAttribute("aria-label", scene.name);
    const loaded = new Promise((resolve, reject) => {
      medium.onloadedmetadata = resolve;
      medium.onerror = () => reject(new Error(`This browser cannot play ${scene.name}.`));
    });
    medium.src = await addressOf(`v1/media/${scene.media}`);
    await loaded;
    view.firstElementChild.replaceWith(medium);
    medium.ontimeupdate = () => hideOldMap(view, scene, medium.currentTime);
  }
  medium.currentTime = scene.seconds;
  await medium.play();
}

function hideOldMap(view, scene, seconds) {
  const canvas = view.querySelector("canvas");
  if (canvas)
    canvas.hidden = Math.abs(seconds - scene.seconds - MOMENT_SECONDS / 2) > MOMENT_SECONDS;
}

// ---------------------------------------------------------------- tags

const marks = new Map();
let ownNames = [];

function toggleMark(scene) {
  const key = keyOf(scene);
  if (!marks.delete(key)) marks.set(key, scene);
  showMarks();
}

function showMarks() {
  for (const mark of document.querySelectorAll("[data-key]"))
    mark.ariaPressed = String(marks.has(mark.dataset.key));
  const chips = [...marks.values()].map((scene) => {
    const title = `${scene.name} at ${clock(scene.seconds)}`;
    const remove = makeButton(`${title} ×`, () => {
      toggleMark(scene);
      byId("tag-name").focus();
    });
    remove.ariaLabel = `Remove ${title}`;
    return remove;
  });
  byId("no-marks").hidden = marks.size > 0;
  byId("marked").replaceChildren(...asItems(chips));
}

// The server takes letters, digits, - and _ in the name of a set; each tag is a set of its own.
const setName = (tag) =>
  encodeURIComponent(tag)
    .replaceAll(/[^A-Za-z0-9-]/g, "_")
    .slice(0, 64);

byId("tag-form").onsubmit = (event) => {
  event.preventDefault();
  const tag = byId("tag-name").value.trim();
  if (ownNames.includes(tag) && !confirm(`There is a tag ${tag}. Replace it?`)) return;
  during(byId("tags"), "The network learns the tag", async (signal) => {
    if (marks.size < 2) throw new Error("Mark two scenes or more as examples first.");
    const examples = [...marks.values()].map(({ media, seconds }) => ({ media, seconds }));
    const json = { name: setName(tag), classes: { [tag]: examples } };
    await finished(await ask("v1/tags", { method: "POST", json, signal }), signal);
    marks.clear();
    showMarks();
    byId("tag-name").value = "";
    await showTags();
    searchTag(tag);
  });
};

function searchTag(tag) {
  document.querySelector("[name=by][value=tag]").checked = true;
  byId("search-form").onchange();
  byId("search-tag").value = tag;
  return search(() => ({ tag }));
}

async function showTags() {
  const { sets, tags } = await ask("v1/tags");
  byId("search-tag").replaceChildren(...tags.map((tag) => make("option", { textContent: tag })));
  ownNames = sets.flatMap((set) => set.classes);
  byId("no-tags").hidden = sets.length > 0;
  byId("own-tags").replaceChildren(
    ...sets.map((set) => {
      const names = set.classes.join(", ");
      const about = `${names}: right for ${percent(set.accuracy)} of examples that were held out`;
      const remove = makeButton(`Remove ${names}`, () => removeTags(set.name, names));
      return make(
        "li",
        { className: "row" },
        make("span", { textContent: about }),
        makeButton(`Search ${set.classes[0]}`, () => searchTag(set.classes[0])),
        remove,
      );
    }),
  );
}

function removeTags(name, names) {
  if (!confirm(`Remove ${names} from all of the index?`)) return;
  during(byId("tags"), "The server removes the tag", async () => {
    await ask(`v1/tags/${name}`, { method: "DELETE" });
    await showTags();
    byId("tag-name").focus();
  });
}

export function showSize(index) {
  byId("index-size").textContent =
    `The index holds ${index.moments} moments of ${index.sources} files.`;
}

export async function startSearch(index) {
  byId("searching").hidden = false;
  showSize(index);
  await showTags();
}
