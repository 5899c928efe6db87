"use strict";

// Columns sort by a click on their head, numbers as numbers; a second click turns the order round.
const table = document.querySelector("#rows");
const heads = [...table.querySelectorAll("th")];
heads.forEach((head, column) => head.querySelector("button").addEventListener("click", () => {
  const down = head.getAttribute("aria-sort") === "ascending";
  heads.forEach((other) => other.removeAttribute("aria-sort"));
  head.setAttribute("aria-sort", down ? "descending" : "ascending");
  const value = (row) => row.cells[column].dataset.value ?? row.cells[column].textContent;
  const numeric = head.classList.contains("number");
  const compare = (a, b) => {
    if (value(a) === "" || value(b) === "") return (value(a) === "") - (value(b) === "");
    const order = numeric ? value(a) - value(b) : value(a).localeCompare(value(b));
    return down ? -order : order;
  };
  table.tBodies[0].append(...[...table.tBodies[0].rows].sort(compare));
}));

// What belongs to one row lights up together: its line in the table, its images, its points in the figures.
const parts = new Map();
const add = (key, element) => parts.set(key, [...(parts.get(key) ?? []), element]);
document.querySelectorAll("[data-key]").forEach((element) => add(element.dataset.key, element));
document.querySelectorAll('svg [id*="point-"]').forEach((point) => {
  const key = point.id.split("point-")[1];
  const title = document.createElementNS("http://www.w3.org/2000/svg", "title");
  title.textContent = table.querySelector(`tr[data-key="${key}"]`).title;
  point.prepend(title);
  add(key, point);
});
parts.forEach((elements) => elements.forEach((element) => {
  const light = (on) => elements.forEach((each) => each.classList.toggle("hot", on));
  element.addEventListener("pointerenter", () => light(true));
  element.addEventListener("pointerleave", () => light(false));
}));
