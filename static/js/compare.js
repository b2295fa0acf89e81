// The slider of two runs: says where it stands while it moves, and asks for that place when it is let go.
function stops() {
  const data = document.getElementById("stops");
  return data ? JSON.parse(data.textContent) : [];
}

document.addEventListener("input", (event) => {
  if (!event.target.matches?.("[data-stops]")) return;
  const slider = event.target;
  const stop = stops()[slider.valueAsNumber];
  if (!stop) return;
  slider.setAttribute("aria-valuetext", stop.text);
  slider.form.querySelector("output").textContent = stop.text;
  const x = slider.form.elements.namedItem("x");
  x.value = stop.x;
  x.disabled = false;
});
