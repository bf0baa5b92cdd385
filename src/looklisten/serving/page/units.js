// Single units of the network, with the moments of the index that activate them most.

import { paintHeat } from "./drawing.js";
import { asItems, byId, checked, clock, complain, during, make, percent } from "./elements.js";
import { addressOf, ask, finished } from "./server.js";
import { openClip } from "./watch.js";

const SOUND_SECONDS = 1; // a unit of the sound responds to one second

let units = [];
let played; // the sound that plays

export function startUnits() {
  byId("units").hidden = false;
}

byId("show-units").onclick = () => {
  during(byId("units"), "The network looks through the index", async (signal, say) => {
    let job = await ask("v1/units", { method: "POST", signal });
    byId("cancel-units").hidden = false;
    byId("cancel-units").onclick = () => ask(`v1/jobs/${job.id}`, { method: "DELETE" });
    try {
      job = await finished(
        job,
        signal,
        (state) =>
          state.total &&
          say(`The network looks through the index: ${percent(state.done / state.total)}`),
      );
    } finally {
      byId("cancel-units").hidden = true;
    }
    if (job.state !== "done") return;
    units = job.result.units;
    const { files, files_of_index: all } = job.result;
    byId("units-found").textContent =
      `${files} of ${all} files of the index were looked at. Press a moment to ` +
      "see it above, or to hear the second that a unit of the sound responds to.";
    byId("unit-list").classList.toggle("cropped", job.result.is_cropped);
    byId("unit-results").hidden = false;
    showUnits();
  });
};

for (const side of document.querySelectorAll("[name=unit-side]")) side.onchange = showUnits;

function showUnits() {
  const side = checked("unit-side");
  const shown = units.filter((unit) => unit.side === side);
  byId("unit-list").replaceChildren(...asItems(shown.map(unitCard)));
}

function unitCard(unit) {
  const about = unit.tags.join(", ");
  return make(
    "article",
    {},
    make("h3", { textContent: `Unit ${unit.number}` }),
    make("p", { className: "soft", textContent: about }),
    make("div", { className: "moments" }, ...unit.moments.map((each) => momentButton(unit, each))),
  );
}

function momentButton(unit, moment) {
  const title = `${moment.name} at ${clock(moment.seconds)}`;
  const isSound = unit.side === "audio";
  const button = make("button", {
    type: "button",
    ariaLabel: isSound ? `Play ${title}` : `Open ${title}`,
    title,
  });
  button.onclick = () => {
    const done = isSound ? playSound(button, moment) : openClip(moment, moment.seconds);
    done.catch((error) => complain(byId("units"), error));
  };
  if (moment.thumbnail) {
    const picture = make("img", { alt: "" });
    button.append(picture);
    addressOf(`v1/thumbnails/${moment.thumbnail}`).then(
      (address) => (picture.src = address),
      (error) => complain(byId("units"), error),
    );
  }
  const canvas = make("canvas", { ariaHidden: "true" });
  canvas.className = isSound ? "sound" : "frame";
  // Rows of a sound begin with the lowest frequency, and a canvas begins at the top.
  paintHeat(canvas, isSound ? moment.unit_map.toReversed() : moment.unit_map);
  button.append(canvas);
  return button;
}

async function playSound(button, moment) {
  played?.pause();
  const sound = new Audio(await addressOf(`v1/media/${moment.media}`));
  played = sound;
  sound.currentTime = moment.seconds;
  sound.ontimeupdate = () => {
    if (sound.currentTime >= moment.seconds + SOUND_SECONDS) sound.pause();
  };
  sound.onpause = () => button.classList.remove("playing");
  button.classList.add("playing");
  await sound.play();
}
