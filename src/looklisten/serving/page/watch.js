// One clip: its player with the map over it, its spectrogram and its scores.

import { clear, mixedMaps, paintHeat, paintSpectrogram } from "./drawing.js";
import { asSentence, byId, checked, clock, during, make, percent } from "./elements.js";
import { addressOf, ask, checkSize, field, finished } from "./server.js";

const MOST_RECORDED_SECONDS = 10;
const MOST_MAPS = 60;
const SHORTEST_STEP_SECONDS = 0.25;
const MOST_VIDEO_HEIGHT = 62; // in hundredths of the window's height

const reducedMotion = matchMedia("(prefers-reduced-motion: reduce)");

export const player = byId("player");
export let clip; // the open clip: {name, kind}, with `file` or the id `media`
let maps = []; // the moments of the clip with their maps, in the order of time
let soundSeconds = 0; // the length of the spectrogram
let recorder;

// ---------------------------------------------------------------- open a clip

function clipOfFile(file) {
  // Browsers do not know the type of every video.
  const kind = /^(audio|image)\//.exec(file.type)?.[1] ?? "video";
  return { name: file.name, kind, file };
}

// `seconds`: where its player begins.
export async function openClip(opened, seconds = 0) {
  clip = opened;
  maps = [];
  soundSeconds = 0;
  const isVideo = clip.kind === "video";
  for (const id of ["comparisons", "score", "now"]) byId(id).replaceChildren();
  for (const id of ["keep", "own-score", "show-map-line"]) byId(id).hidden = !isVideo;
  for (const id of ["made-video", "sound-view", "calibration", "not-playable", "score-bar"])
    byId(id).hidden = true;
  clear(byId("frame-map"));
  clear(byId("sound-map"));
  byId("opened").hidden = false;
  byId("clip-name").textContent = clip.name;
  byId("clip-name").focus({ preventScroll: true });
  byId("clip-name").scrollIntoView({ behavior: reducedMotion.matches ? "auto" : "smooth" });
  const [sound, picture] = document.querySelectorAll("[name=role]");
  // Another sound needs the picture of this clip, and another picture its sound.
  sound.disabled = clip.kind === "audio";
  picture.disabled = clip.kind === "image";
  (sound.disabled ? picture : sound).checked = true;
  await during(byId("watch"), "The server looks and listens", async (signal) => {
    if (clip.file) checkSize(clip.file);
    await showMedium(opened);
    if (seconds) player.currentTime = seconds;
    // The user may have opened another clip meanwhile.
    if (opened !== clip) return;
    const work = [];
    const form = field("file", opened);
    if (clip.kind !== "image") work.push(showSpectrogram(form, signal));
    if (isVideo) work.push(showMaps(form, signal), showScore(form, signal));
    const failed = (await Promise.allSettled(work)).filter((each) => each.status === "rejected");
    // A video without sound gets the same error three times.
    const sentences = new Set(failed.map((each) => each.reason.message));
    if (failed.some((each) => each.reason.name === "AbortError")) return;
    if (sentences.size) throw new Error([...sentences].map(asSentence).join(" "));
  });
}

async function showMedium(opened) {
  const isImage = opened.kind === "image";
  const address = opened.file
    ? URL.createObjectURL(opened.file)
    : await addressOf(`v1/media/${opened.media}`);
  player.hidden = isImage;
  byId("picture").hidden = !isImage;
  player.parentElement.classList.toggle("sound", opened.kind === "audio");
  player.pause();
  URL.revokeObjectURL(player.src || byId("picture").src);
  if (isImage) {
    player.removeAttribute("src");
    byId("picture").alt = opened.name;
    byId("picture").src = address;
    await byId("picture").decode();
    fitScreen(byId("picture").naturalWidth, byId("picture").naturalHeight);
    return;
  }
  player.src = address;
  await new Promise((resolve) => {
    player.onloadedmetadata = resolve;
    player.onerror = resolve;
  });
  byId("not-playable").hidden = !player.error;
  fitScreen(player.videoWidth, player.videoHeight);
}

// The canvas with the map covers all of `screen`, so `screen` gets the shape of the video.
function fitScreen(width, height) {
  byId("screen").style.maxWidth = height ? `${(MOST_VIDEO_HEIGHT * width) / height}vh` : "";
}

// The player knows no length of a recording, nor of a file that this browser cannot play.
const lengthSeconds = () => (Number.isFinite(player.duration) ? player.duration : soundSeconds);

async function showMaps(form, signal) {
  const everySeconds = Math.max(lengthSeconds() / MOST_MAPS, SHORTEST_STEP_SECONDS);
  const reply = await ask("v1/localize", {
    method: "POST",
    form: { ...form, every_seconds: everySeconds },
    signal,
  });
  maps = reply.moments;
  showMoment(player.currentTime);
}

async function showSpectrogram(form, signal) {
  const reply = await ask("v1/spectrogram", { method: "POST", form, signal });
  soundSeconds = reply.seconds;
  byId("sound-view").hidden = false;
  paintSpectrogram(byId("spectrogram"), reply.levels);
  byId("spectrogram").style.width = `${(100 * soundSeconds) / lengthSeconds()}%`;
  byId("time").max = lengthSeconds();
  showMoment(player.currentTime);
}

// ---------------------------------------------------------------- the time of the player

function showMoment(seconds) {
  const length = lengthSeconds();
  byId("cursor").style.left = `${length ? (100 * seconds) / length : 0}%`;
  byId("clock").textContent = clock(seconds, 1);
  byId("time").value = seconds;
  byId("time").setAttribute("aria-valuetext", `${seconds.toFixed(1)} seconds`);
  if (!maps.length) return;
  const isShown = byId("show-map").checked;
  byId("frame-map").hidden = !isShown;
  byId("sound-map").hidden = !isShown;
  const after = maps.findIndex((moment) => moment.at_seconds > seconds);
  // After the last moment `after` is -1, and `at(-1)` is the last moment.
  const second = maps.at(after);
  const first = maps[Math.max(after < 0 ? maps.length - 1 : after - 1, 0)];
  const span = second.at_seconds - first.at_seconds;
  const share = span > 0 ? (seconds - first.at_seconds) / span : 0;
  const nearest = share < 0.5 ? first : second;
  byId("now").textContent = nearest.is_silent
    ? "at this second: silent"
    : `at this second: ${percent(nearest.probability)}`;
  if (!isShown) return;
  // A map that changes from frame to frame is motion too.
  const isStill = reducedMotion.matches || first === second;
  paintHeat(
    byId("frame-map"),
    isStill ? nearest.frame_map : mixedMaps(first.frame_map, second.frame_map, share),
  );
  // Rows begin with the lowest frequency, and a canvas begins at the top.
  paintHeat(byId("sound-map"), nearest.sound_map.toReversed());
  // The map covers one second of the sound.
  const { style } = byId("sound-map");
  style.left = `${(100 * nearest.sound_start_seconds) / length}%`;
  style.width = `${100 / length}%`;
}

function followFrames() {
  if (!player.requestVideoFrameCallback) return;
  player.requestVideoFrameCallback((_, frame) => {
    // While paused the user chose the time; that of the frame would move the slider back.
    if (!player.paused) showMoment(frame.mediaTime);
    followFrames();
  });
}

followFrames();
// For sounds, which have no frames, and for browsers that report none.
for (const event of ["timeupdate", "seeked"])
  player.addEventListener(event, () => showMoment(player.currentTime));
byId("time").oninput = () => {
  player.currentTime = Number(byId("time").value);
};
byId("show-map").onchange = () => showMoment(player.currentTime);
byId("spectrogram").onclick = (event) => {
  const { left, width } = byId("spectrogram").parentElement.getBoundingClientRect();
  player.currentTime = ((event.clientX - left) / width) * lengthSeconds();
};

// ---------------------------------------------------------------- scores

const figureOf = (probability) => (probability === null ? "–" : percent(probability));

function verdict(probability) {
  if (probability === null) return "There is no answer, since the sound is silent.";
  if (probability >= 0.9) return "They clearly belong together.";
  if (probability >= 0.6) return "They probably belong together.";
  if (probability > 0.4) return "The network cannot tell.";
  if (probability > 0.1) return "They probably do not belong together.";
  return "They clearly do not belong together.";
}

async function showScore(form, signal) {
  const reply = await ask("v1/score", { method: "POST", form, signal });
  byId("score").replaceChildren(
    make("b", { className: "figure", textContent: figureOf(reply.probability) }),
    verdict(reply.probability),
  );
  byId("score-bar").hidden = reply.probability === null;
  byId("score-bar").firstElementChild.style.width = `${100 * (reply.probability ?? 0)}%`;
  byId("calibration").hidden = reply.is_calibrated;
}

byId("compare").onsubmit = (event) => {
  event.preventDefault();
  during(byId("compare"), "The server compares", async (signal) => {
    const chosen = byId("compare-index").selectedOptions[0];
    const file = byId("compare-file").files[0];
    if (!chosen.value && !file) throw new Error("Choose a file first.");
    const other = chosen.value
      ? { name: chosen.textContent, media: chosen.value }
      : { name: file.name, file };
    if (other.file) checkSize(other.file);
    const role = checked("role");
    const form = { ...field(role, other), ...field(role === "sound" ? "picture" : "sound", clip) };
    const { probability } = await ask("v1/score", { method: "POST", form, signal });
    const what = role === "sound" ? "the sound of" : "the picture of";
    byId("comparisons").prepend(
      make(
        "li",
        {},
        make("b", { textContent: figureOf(probability) }),
        ` with ${what} ${other.name}. ${verdict(probability)}`,
      ),
    );
  });
};
byId("compare-index").onchange = () => {
  byId("compare-file-line").hidden = byId("compare-index").value !== "";
};

// ---------------------------------------------------------------- a video to keep

byId("make-video").onclick = () => {
  const opened = clip;
  during(byId("keep"), "The server draws the video", async (signal, say) => {
    let job = await ask("v1/localize", {
      method: "POST",
      form: { ...field("file", opened), format: "video" },
      signal,
    });
    byId("cancel-video").hidden = false;
    byId("cancel-video").onclick = () => ask(`v1/jobs/${job.id}`, { method: "DELETE" });
    try {
      job = await finished(
        job,
        signal,
        (state) =>
          state.total && say(`The server draws the video: ${percent(state.done / state.total)}`),
      );
    } finally {
      byId("cancel-video").hidden = true;
    }
    if (job.state !== "done" || opened !== clip) return;
    // Without the slash the address is relative to the page.
    byId("made-video").href = await addressOf(job.file.slice(1));
    byId("made-video").hidden = false;
    byId("made-video").focus();
  });
};

// ---------------------------------------------------------------- choose, drop, record

function openFile(file) {
  if (file) openClip(clipOfFile(file));
}

byId("clip-file").onchange = () => openFile(byId("clip-file").files[0]);
window.ondragover = (event) => {
  event.preventDefault();
  document.body.classList.add("dragging");
};
window.ondragleave = () => document.body.classList.remove("dragging");
window.ondrop = (event) => {
  event.preventDefault();
  document.body.classList.remove("dragging");
  openFile(event.dataTransfer.files[0]);
};

async function openCamera() {
  try {
    return await navigator.mediaDevices.getUserMedia({ audio: true, video: true });
  } catch (error) {
    if (error.name === "NotFoundError") return navigator.mediaDevices.getUserMedia({ audio: true });
    throw new Error(
      "The browser gave no camera and no microphone. Allow them for this page, then try again.",
    );
  }
}

byId("record").hidden = !(navigator.mediaDevices?.getUserMedia && window.MediaRecorder);
byId("record").onclick = () => {
  if (recorder) {
    recorder.stop();
    return;
  }
  during(byId("watch"), "Waiting for the camera and the microphone", async (_, say) => {
    const stream = await openCamera();
    const parts = [];
    byId("preview").srcObject = stream;
    byId("preview").hidden = false;
    byId("preview").play();
    recorder = new MediaRecorder(stream);
    recorder.ondataavailable = (event) => parts.push(event.data);
    const stopped = new Promise((resolve) => {
      recorder.onstop = resolve;
    });
    recorder.start();
    setTimeout(
      () => recorder?.state === "recording" && recorder.stop(),
      1000 * MOST_RECORDED_SECONDS,
    );
    say(`Recording; it ends after ${MOST_RECORDED_SECONDS} s`);
    byId("record").textContent = "Stop recording";
    await stopped;
    const type = recorder.mimeType.split(";")[0];
    recorder = undefined;
    byId("record").textContent = "Record a clip";
    byId("preview").srcObject = null;
    byId("preview").hidden = true;
    for (const track of stream.getTracks()) track.stop();
    openFile(new File(parts, `recording.${type.split("/")[1]}`, { type }));
  });
};
