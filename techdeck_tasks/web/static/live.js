// Keeps parts marked data-live fresh: asks for the page again and puts the new parts in place of the old.
// Without this script pages are complete, only not renewed by themselves.
"use strict";

const EVERY_MS = 5000;

async function renew() {
  const parts = [...document.querySelectorAll("[data-live]")];
  if (document.hidden || parts.length === 0) return;
  const answer = await fetch(location.href, { headers: { "X-Techdeck-Live": "1" }, redirect: "manual" });
  if (answer.type === "opaqueredirect") {
    location.assign("/login"); // the session ended
    return;
  }
  if (!answer.ok) return;
  const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
  for (const part of parts) {
    const other = fresh.getElementById(part.id);
    // Whoever is inside with the keyboard must not lose their place.
    if (other && !part.contains(document.activeElement) && other.innerHTML !== part.innerHTML) {
      part.replaceChildren(...other.childNodes);
    }
  }
}

setInterval(() => renew().catch(() => {}), EVERY_MS); // the server is away: the next time, then
