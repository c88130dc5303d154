// Adds a file to a case: sends it as it is, shows how far it is, and tells what the server said. Whether it may be added,
// and what it is, the server finds out; only what is too large for it is not sent at all.

const LOST = "The connection was lost, and it is not known whether the file has arrived. Send it again: it is added once.";
const STOPPED = "You stopped it. Had all of it been sent, it may be added all the same: look at the case.";
const USED = "This page has added a file already. Go back to the case and look.";
const BROKEN = "Something went wrong on our side. Look at the case before you send it again.";

const form = document.getElementById("adding");
const [file, name, stop, progress, said] = ["file", "name", "stop", "progress", "said"].map((id) =>
  document.getElementById(id),
);
const { to, case: done, limit, limitWords, key, csrf } = form.dataset;

function size(bytes) {
  for (const [unit, length] of [["MiB", 2 ** 20], ["KiB", 2 ** 10]]) {
    if (bytes >= length) return `${(bytes / length).toFixed(1)} ${unit}`;
  }
  return `${bytes} bytes`;
}

function show(sent, all) {
  progress.querySelector("progress").value = all ? sent / all : 0;
  progress.querySelector("span").textContent = `${size(sent)} of ${size(all)}`;
}

function sending(is) {
  progress.hidden = stop.hidden = !is;
  for (const each of [file, name, form.querySelector("[type=submit]")]) each.disabled = is;
}

function refuse(text) {
  sending(false);
  said.textContent = text;
  said.hidden = false;
}

function words(problem) {
  if (problem.code === "idempotency_key_reused") return USED;
  if (problem.errors?.some((each) => each.field === "name")) {
    return `The name can't stay as it is. ${document.getElementById("name-help").textContent}`;
  }
  return problem.detail ?? BROKEN;
}

function named() {
  if (file.files.length > 0) name.value = file.files[0].name;
}

file.addEventListener("change", () => {
  said.hidden = true;
  named();
});

form.addEventListener("submit", (event) => {
  event.preventDefault();
  const [chosen] = file.files;
  said.hidden = true;
  if (chosen.size > Number(limit)) {
    refuse(`This file has ${size(chosen.size)}; a document may have ${limitWords}. Nothing was sent.`);
    return;
  }
  const request = new XMLHttpRequest();
  request.open("POST", `${to}&name=${encodeURIComponent(name.value)}`);
  request.setRequestHeader("Content-Type", "application/octet-stream");
  request.setRequestHeader("Idempotency-Key", key);
  request.setRequestHeader("X-CSRF-Token", csrf);
  request.upload.addEventListener("progress", (now) => show(now.loaded, now.total));
  request.addEventListener("error", () => refuse(LOST));
  request.addEventListener("abort", () => refuse(STOPPED));
  request.addEventListener("load", () => {
    if (request.status === 201) {
      location.assign(done);
      return;
    }
    let problem = {};
    try {
      problem = JSON.parse(request.responseText);
    } catch {
      // What stands between us and the server answers in its own way.
    }
    refuse(words(problem));
  });
  stop.onclick = () => request.abort();
  show(0, chosen.size);
  sending(true);
  request.send(chosen);
});

named(); // browsers keep what was chosen before a page was loaded anew
document.getElementById("without").hidden = true;
form.hidden = false;
