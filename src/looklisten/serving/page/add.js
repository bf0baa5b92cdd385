// Adding files to the index.

import { byId, during, make, percent } from "./elements.js";
import { ask, checkSize, finished } from "./server.js";

// `showIndex` shows what the index holds now.
export function useIndexForm(showIndex) {
  byId("add-form").onsubmit = (event) => {
    event.preventDefault();
    const files = [...byId("add-files").files];
    during(byId("add"), "The server adds the files", async (signal, say) => {
      if (!files.length) throw new Error("Choose a file first.");
      byId("added").replaceChildren();
      const button = byId("add-form").querySelector("button.main");
      button.disabled = true;
      try {
        for (const [number, file] of files.entries()) {
          const place = files.length > 1 ? ` (${number + 1} of ${files.length})` : "";
          say(`The server adds ${file.name}${place}`);
          const line = make("li", { textContent: await addFile(file, signal, say) });
          byId("added").append(line);
        }
      } finally {
        button.disabled = false;
        byId("cancel-add").hidden = true;
        await showIndex();
      }
      byId("add-form").reset();
    });
  };
}

// What became of a file. One that cannot be added does not stop the others.
async function addFile(file, signal, say) {
  try {
    checkSize(file);
    let job = await ask("v1/index", { method: "POST", form: { file }, signal });
    byId("cancel-add").hidden = false;
    byId("cancel-add").onclick = () => ask(`v1/jobs/${job.id}`, { method: "DELETE" });
    job = await finished(
      job,
      signal,
      (state) => state.total && say(`The server adds ${file.name}: ${percent(state.done / state.total)}`),
    );
    if (job.state === "canceled") return `${file.name}: canceled`;
    if (job.result.indexed) return `${file.name}: added, ${job.result.moments_added} moments`;
    return `${file.name}: the index has it already`;
  } catch (error) {
    if (error.name === "AbortError") throw error;
    // The sentence of the server begins with the name of the file.
    return error.message.startsWith(file.name) ? error.message : `${file.name}: ${error.message}`;
  }
}
