// What a page does by itself: it says whether it still hears from the server, keeps what was opened open while it
// changes, and lets ages grow. It decides nothing and shows nothing that the server did not say.

const LOST = "The connection is lost: this page shows how things stood. It goes on by itself.";
const SIGNED_OUT = "Your session has ended: this page shows how things stood. Reload it to sign in again.";

function say(text, kind) {
  for (const line of document.querySelectorAll("[data-live]")) {
    line.textContent = text;
    line.dataset.live = kind;
  }
  for (const button of document.querySelectorAll("[data-needs-live]")) {
    button.toggleAttribute("data-stale", kind !== "live");
  }
}

document.addEventListener("htmx:sse:after:connection", (event) => {
  if (event.detail.connection.status === 200) say("Live", "live");
});
document.addEventListener("htmx:sse:error", (event) => {
  if (event.detail.status === 401) say(SIGNED_OUT, "ended");
  else say(LOST, "lost");
});
// A stream that ended by itself, and one whose first connection failed.
document.addEventListener("htmx:sse:before:connection", (event) => {
  if (event.detail.connection.attempt > 0 && !document.hidden) say(LOST, "lost");
});
document.addEventListener("htmx:response:error", (event) => {
  if (event.detail.ctx?.response?.status === 401) say(SIGNED_OUT, "ended");
  else say(LOST, "lost");
});
document.addEventListener("htmx:error", () => say(LOST, "lost"));
// What is refused or broken never takes the place of what is shown.
document.addEventListener("htmx:before:swap", (event) => {
  const status = event.detail.ctx?.response?.status;
  if (status && status !== 200) event.preventDefault();
});

// What fetches itself every few seconds rests while nobody sees it, and looks at once when somebody does.
const BY_ITSELF = "[hx-trigger^=every]";
document.addEventListener("htmx:config:request", (event) => {
  if (document.hidden && event.target.matches(BY_ITSELF)) event.preventDefault();
});
document.addEventListener("visibilitychange", () => {
  if (document.hidden) return;
  for (const each of document.querySelectorAll(BY_ITSELF)) htmx.trigger(each, "every");
});

function whatIsOpen(extensions) {
  extensions.registerExtension("keep-open", {
    // The server does not know which details somebody opened.
    htmx_before_morph_attr: (element, detail) => !(element.localName === "details" && detail.attrName === "open"),
  });
}
if (window.htmx) whatIsOpen(window.htmx);

function age(at, now) {
  const seconds = (now - at) / 1000;
  const size = Math.abs(seconds);
  let amount = `${Math.floor(size)} s`;
  for (const [unit, length] of [["d", 86400], ["h", 3600], ["min", 60]]) {
    if (size >= length) {
      amount = `${Math.floor(size / length)} ${unit}`;
      break;
    }
  }
  return seconds >= 0 ? `${amount} ago` : `in ${amount}`;
}

// The states stand in the middle of a picture, whatever of it the window has room for.
for (const picture of document.querySelectorAll(".picture")) {
  picture.scrollLeft = (picture.scrollWidth - picture.clientWidth) / 2;
}

// By the server's clock, which the page tells: this machine's may be wrong.
const served = Date.parse(document.documentElement.dataset.now ?? "");
const skew = Number.isNaN(served) ? 0 : served - Date.now();

setInterval(() => {
  const now = Date.now() + skew;
  for (const time of document.querySelectorAll("time[data-age]")) {
    time.textContent = age(Date.parse(time.dateTime), now);
  }
}, 15_000);
