"use strict";

// Asks before a form is sent that changes much.
document.addEventListener("submit", (event) => {
  const question = event.target.dataset.confirm;
  if (question && !window.confirm(question)) event.preventDefault();
});

// Replaces a part of the page by the server's newer one, while something runs.
const part = document.querySelector("[data-refresh]");
if (part) {
  const refresh = async () => {
    const response = await fetch(part.dataset.refresh);
    if (!response.ok) return;
    const text = await response.text();
    if (text.trim() === part.innerHTML.trim()) return;
    const focused = part.contains(document.activeElement);
    part.innerHTML = text;
    if (focused) part.querySelector("button")?.focus();
  };
  window.setInterval(() => refresh().catch(() => {}), 2000);
}

// Shows each change of an event as it happens.
const live = document.getElementById("live");
if (live) {
  const status = document.getElementById("live-status");
  const source = new EventSource(live.dataset.source);
  source.onopen = () => { status.textContent = "Connected: changes are shown as they happen."; };
  source.onerror = () => { status.textContent = "The connection was lost; it is made again."; };
  source.onmessage = (message) => {
    const change = JSON.parse(message.data);
    if (change.error) {
      status.textContent = change.error;
      source.close();
      return;
    }
    const row = live.insertRow(0);
    const link = document.createElement("a");
    link.href = `events/${encodeURIComponent(change.event)}`;
    link.textContent = change.event;
    row.insertCell().append(link);
    for (const name of ["type", "state", "customer", "outcome"]) {
      const cell = row.insertCell();
      cell.textContent = change[name] ?? "";
      if (name === "state") cell.className = `state ${change.state}`;
    }
    while (live.rows.length > 200) live.deleteRow(-1);
  };
}
