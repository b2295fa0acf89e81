// Lists whose rows can be chosen: one box for all of them, how many are chosen, and a button that waits for the first.
const form = document.querySelector("[data-choose]");
const all = form?.querySelector("[data-choose-all]");
const boxes = [...(form?.querySelectorAll("input[name=one]") ?? [])];
const count = form?.querySelector("[data-choose-count]");
const button = form?.querySelector("button[type=submit]");

function tell() {
  const chosen = boxes.filter((box) => box.checked).length;
  all.checked = chosen === boxes.length;
  all.indeterminate = chosen > 0 && chosen < boxes.length;
  count.textContent = count.dataset.text.replace("#", chosen);
  button.disabled = chosen === 0;
}

if (form) {
  all.addEventListener("change", () => {
    boxes.forEach((box) => { box.checked = all.checked; });
    tell();
  });
  form.addEventListener("change", tell);
  addEventListener("pageshow", tell); // a browser that goes back keeps what was chosen
  tell();
}
