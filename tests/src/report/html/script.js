// Tooltips that come at once and follow the pointer; without this script the browser shows the same texts, later.
"use strict";
const tip = document.getElementById("tip");
for (const title of document.querySelectorAll("figure svg title")) {
  title.parentNode.dataset.tip = title.textContent;
  title.remove();
}
document.addEventListener("pointermove", (event) => {
  const owner = event.target.closest && event.target.closest("[data-tip]");
  tip.hidden = !owner;
  if (!owner) return;
  tip.textContent = owner.dataset.tip;
  const left = Math.min(event.clientX + 14, innerWidth - tip.offsetWidth - 8);
  const below = event.clientY + 18;
  const fits = below + tip.offsetHeight < innerHeight;
  tip.style.left = Math.max(8, left) + "px";
  tip.style.top = (fits ? below : event.clientY - tip.offsetHeight - 10) + "px";
});
document.addEventListener("pointerleave", () => { tip.hidden = true; });
// On paper the tables behind the charts are all there is to look up.
addEventListener("beforeprint", () => {
  for (const details of document.querySelectorAll("figure details, .run")) details.open = true;
});
