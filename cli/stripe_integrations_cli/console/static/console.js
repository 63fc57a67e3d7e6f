"use strict";

// Asks before a form is sent that changes much, and sends it once at a double click.
document.addEventListener("submit", (event) => {
  const form = event.target;
  const question = form.dataset.confirm;
  if (form.dataset.sent || (question && !window.confirm(question))) {
    event.preventDefault();
    return;
  }
  form.dataset.sent = "yes";
  window.setTimeout(() => delete form.dataset.sent, 1000);
});

// Replaces a part of the page by the server's newer one, while something runs.
const part = document.querySelector("[data-refresh]");
if (part) {
  const announced = document.getElementById("refreshed");
  const opened = Date.now();
  const stateOf = () => part.querySelector(".state")?.textContent;
  const refresh = async () => {
    // What was started a moment ago is not there yet.
    const isDue = part.querySelector("[data-running]") || Date.now() - opened < 60_000;
    if (!isDue || document.hidden) return;
    const response = await fetch(part.dataset.refresh);
    if (!response.ok) return;
    const text = await response.text();
    if (text.trim() === part.innerHTML.trim()) return;
    const focused = part.contains(document.activeElement);
    const before = stateOf();
    part.innerHTML = text;
    if (focused) part.querySelector("button")?.focus();
    // A screen reader gets the state alone, not every number.
    if (stateOf() !== before) announced.textContent = `The run is ${stateOf()}.`;
  };
  const repeat = () => refresh().catch(() => {}).finally(() => window.setTimeout(repeat, 2000));
  window.setTimeout(repeat, 2000);
}

// Shows each change of an event as it happens.
const live = document.getElementById("live");
if (live) {
  const status = document.getElementById("live-status");
  status.textContent = "Connecting…";
  const source = new EventSource(live.dataset.source);
  source.onopen = () => { status.textContent = "Connected: changes are shown as they happen."; };
  source.onerror = () => { status.textContent = "The connection was lost; reconnecting."; };
  source.onmessage = (message) => {
    const change = JSON.parse(message.data);
    if (change.error) {
      status.textContent = `${change.error} – reload the page to connect again.`;
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
