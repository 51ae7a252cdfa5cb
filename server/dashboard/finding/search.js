// The search of the bar: "/" focuses it, what is found comes while one types, arrows choose, Enter goes there.
(() => {
  let wanted = 0, waiting = 0, chosen = -1;
  const field = () => document.getElementById("tf-search");
  const list = () => document.getElementById("tf-found");
  const options = () => [...list().querySelectorAll("[role=option]")];
  const close = () => { wanted++; list().replaceChildren(); list().hidden = true; chosen = -1; mark(); };
  const mark = () => {
    options().forEach((one, at) => one.setAttribute("aria-selected", at === chosen));
    field().setAttribute("aria-expanded", !list().hidden);
    if (chosen >= 0) {
      field().setAttribute("aria-activedescendant", options()[chosen].id);
      options()[chosen].scrollIntoView({ block: "nearest" });
    } else field().removeAttribute("aria-activedescendant");
  };
  const part = (name, text) => {
    const made = document.createElement("span");
    made.className = name; made.textContent = text;
    return made;
  };
  const show = (found) => {
    list().replaceChildren(...found.map((one, at) => {
      const made = document.createElement("div");
      made.id = `tf-found-${at}`; made.className = "tf-hit"; made.dataset.href = one.href;
      made.setAttribute("role", "option");
      made.append(part("tf-hit-kind", one.kind), part("tf-hit-text", one.text), part("tf-muted tf-small", one.detail));
      return made;
    }));
    list().hidden = !found.length; chosen = -1; mark();
  };
  const ask = async () => {
    const text = field().value.trim(), mine = ++wanted;
    if (!text) { close(); return; }
    const answer = await fetch(`/search/suggest?text=${encodeURIComponent(text)}`);
    if (mine !== wanted || !answer.ok) return;
    show((await answer.json()).found);
  };
  document.addEventListener("input", (event) => {
    if (event.target.id !== "tf-search") return;
    clearTimeout(waiting);
    waiting = setTimeout(ask, 150);
  });
  document.addEventListener("keydown", (event) => {
    if (event.target.id !== "tf-search") {
      const typing = event.target.closest("input, textarea, select, [contenteditable], [role=dialog]");
      if (event.key === "/" && !typing && !event.ctrlKey && !event.metaKey && !event.altKey) {
        event.preventDefault(); field()?.focus(); field()?.select();
      }
      return;
    }
    const many = options().length;
    if (event.key === "Escape" && !list().hidden) { // a second Escape empties the field, as in browsers
      event.preventDefault(); clearTimeout(waiting); close();
    }
    else if (many && (event.key === "ArrowDown" || event.key === "ArrowUp")) {
      event.preventDefault();
      chosen = (chosen + (event.key === "ArrowDown" ? 1 : chosen < 0 ? 0 : -1) + many) % many;
      mark();
    } else if (event.key === "Enter" && chosen >= 0) {
      event.preventDefault(); location.href = options()[chosen].dataset.href;
    }
  });
  document.addEventListener("mousedown", (event) => {
    const hit = event.target.closest(".tf-hit");
    if (hit) { event.preventDefault(); location.href = hit.dataset.href; }
    else if (list() && !list().hidden && event.target.id !== "tf-search") close();
  });
  document.addEventListener("focusout", (event) => { if (event.target.id === "tf-search") close(); });
})();
