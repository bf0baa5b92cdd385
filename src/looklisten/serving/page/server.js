// Asking the server: its routes, its errors as sentences, its jobs. Knows nothing of the page.

const POLL_MILLISECONDS = 250;

let token = sessionStorage.getItem("token") ?? "";

let mostMegabytes = Infinity;

export function useLimits(limits) {
  mostMegabytes = limits.max_megabytes;
}

// A sentence before the upload is better than one after it.
export function checkSize(file) {
  const megabytes = Math.ceil(file.size / 1e6);
  if (megabytes <= mostMegabytes) return;
  throw new Error(
    `${file.name} has ${megabytes} MB; this server takes ${mostMegabytes} MB at most.`,
  );
}

export function useToken(value) {
  token = value;
  // For this tab alone, until it is closed.
  sessionStorage.setItem("token", value);
}

async function request(path, { method = "GET", form, json, signal } = {}) {
  const headers = token ? { authorization: `Bearer ${token}` } : {};
  let body;
  if (form) {
    body = new FormData();
    for (const [name, value] of Object.entries(form)) body.append(name, value);
  } else if (json) {
    body = JSON.stringify(json);
    headers["content-type"] = "application/json";
  }
  let response;
  try {
    response = await fetch(path, { method, headers, body, signal });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error("The server does not answer. Is it still running?");
  }
  if (!response.ok) {
    const reply = await response.json().catch(() => ({}));
    const error = new Error(reply.error ?? `The server answered ${response.status}.`);
    throw Object.assign(error, { status: response.status });
  }
  return response;
}

export async function ask(path, options) {
  return (await request(path, options)).json();
}

// Players and pictures cannot send a token, so with one their files are fetched first.
export async function addressOf(path) {
  if (!token) return path;
  return URL.createObjectURL(await (await request(path)).blob());
}

// Waits until a job is over; `note` is called with each state of it.
export async function finished(job, signal, note = () => {}) {
  while (job.state === "queued" || job.state === "running") {
    note(job);
    await new Promise((resolve) => setTimeout(resolve, POLL_MILLISECONDS));
    job = await ask(`v1/jobs/${job.id}`, { signal });
  }
  if (job.state === "failed") throw new Error(job.error);
  return job;
}

// A clip as a field of a form: an upload, or the id of a file of the index.
export function field(role, clip) {
  if (clip.file) return { [role]: clip.file };
  return { [role === "file" ? "media" : `${role}_media`]: clip.media };
}
