// Extras of the pages: uploads with progress, copying, the folder picker.
// Every page works without it.
"use strict";
(() => {
  const csrf = document.body.dataset.csrf;
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const say = text => { const live = document.getElementById("live"); if (live) live.textContent = text; };
  const make = (name, properties = {}, ...children) => {
    const element = Object.assign(document.createElement(name), properties);
    element.append(...children);
    return element;
  };

  for (const button of all("[data-back]")) {
    button.hidden = history.length < 2;
    button.addEventListener("click", () => history.back());
  }

  // On a narrow screen the sections are a strip that scrolls: scroll to the current one.
  const here = document.querySelector(".parts [aria-current]");
  const strip = here?.closest(".parts");
  if (strip && strip.scrollWidth > strip.clientWidth) {
    strip.scrollLeft = here.offsetLeft - strip.offsetLeft - (strip.clientWidth - here.offsetWidth) / 2;
  }

  // Menus close by Escape and by a click elsewhere.
  for (const menu of all("details.menu")) {
    menu.addEventListener("toggle", () => menu.open && menu.querySelector("input:not([type=hidden])")?.focus());
    menu.addEventListener("keydown", event => {
      if (event.key === "Escape") { menu.open = false; menu.querySelector("summary").focus(); }
    });
    document.addEventListener("click", event => { if (!menu.contains(event.target)) menu.open = false; });
  }

  // Copying
  const copy = async (source, button) => {
    const text = source.textContent;
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      getSelection().selectAllChildren(source);
      document.execCommand("copy");
    }
    button.textContent = "Copied";
    say("Copied");
  };
  for (const button of all("[data-copy]")) {
    button.hidden = false;
    button.addEventListener("click", () => copy(document.getElementById(button.dataset.copy), button));
  }
  for (const button of all("[data-copy-before]")) {
    button.hidden = false;
    button.addEventListener("click", () => copy(button.previousElementSibling, button));
  }

  // Files whose text goes into a field
  for (const chooser of all("[data-file-into]")) {
    const field = document.getElementById(chooser.dataset.fileInto);
    chooser.hidden = false;
    chooser.querySelector("input").addEventListener("change", async event => {
      const [file] = event.target.files;
      // More than the field takes is no public key: what it has is kept.
      if (!file || file.size > field.maxLength) { say("This is not the file of a public key"); return; }
      field.value = (await file.text()).trim();
      say(`The key of ${file.name} is filled in`);
    });
  }

  // Scope lines: adding more, and a tree to pick folders in
  const pick = (from, field) => {
    const dialog = make("dialog", {});
    dialog.setAttribute("aria-label", "Pick a folder");
    const close = () => { dialog.close(); dialog.remove(); field.focus(); };
    const branch = async (address, list) => {
      let answer;
      try {
        answer = await (await fetch(address, { headers: { accept: "application/json" } })).json();
      } catch {
        list.append(make("li", { className: "faint", textContent: "This folder can’t be read." }));
        return;
      }
      if (answer.folders.length === 0) list.append(make("li", { className: "faint", textContent: "No folders here" }));
      for (const folder of answer.folders) {
        const below = make("ul", { hidden: true });
        const opener = make("button", { type: "button", className: "quiet opener", textContent: "▸" });
        opener.setAttribute("aria-expanded", "false");
        opener.setAttribute("aria-label", `Open ${folder.name}`);
        opener.addEventListener("click", () => {
          if (!below.hasChildNodes()) branch(folder.below, below);
          below.hidden = !below.hidden;
          opener.textContent = below.hidden ? "▸" : "▾";
          opener.setAttribute("aria-expanded", String(!below.hidden));
        });
        const name = make("button", { type: "button", className: "quiet name", textContent: folder.name });
        name.disabled = folder.path === null || folder.permission === "none";
        name.addEventListener("click", () => {
          field.value = folder.path;
          const permission = field.closest(".line")?.querySelector("select");
          if (permission && folder.permission !== "rw") permission.value = folder.permission;
          close();
        });
        const mark = make("span", { className: "perm", textContent: folder.permission === "none" ? "path only" : folder.permission });
        list.append(make("li", {}, make("div", { className: "node" }, opener, name, mark), below));
      }
      if (answer.more) list.append(make("li", { className: "faint", textContent: "There are more: type the path." }));
    };
    const list = make("ul");
    const cancel = make("button", { type: "button", textContent: "Cancel" });
    cancel.addEventListener("click", close);
    dialog.addEventListener("cancel", event => { event.preventDefault(); close(); });
    dialog.append(make("h2", { textContent: "Pick a folder" }), list, make("p", { className: "actions" }, cancel));
    document.body.append(dialog);
    branch(from, list);
    dialog.showModal();
  };
  for (const lines of all("[data-lines]")) {
    const browsing = line => {
      const field = line.querySelector("input");
      const button = make("button", { type: "button", textContent: "Browse…" });
      button.setAttribute("aria-label", `Browse for ${line.querySelector("label").textContent.toLowerCase()}`);
      button.addEventListener("click", () => pick(lines.dataset.picker, field));
      line.append(button);
    };
    all(".line", lines).forEach(browsing);
    if ("single" in lines.dataset) continue;
    // With script more lines can be added, so one empty line is enough to start with.
    const empty = all(".line", lines).filter(line => !line.querySelector("input").value);
    empty.slice(all(".line", lines).length === empty.length ? 1 : 0).forEach(line => line.remove());
    const more = make("button", { type: "button", className: "quiet", textContent: "Add another" });
    more.addEventListener("click", () => {
      const count = all(".line", lines).length + 1;
      const line = lines.querySelector(".line").cloneNode(true);
      line.querySelector("button").remove();
      for (const part of all("[id]", line)) part.id = part.id.replace(/\d+$/, count);
      for (const label of all("label", line)) {
        label.htmlFor = label.htmlFor.replace(/\d+$/, count);
        label.textContent = label.textContent.replace(/\d+$/, count);
      }
      line.querySelector("input").value = "";
      browsing(line);
      more.before(line);
      line.querySelector("input").focus();
    });
    if (!lines.querySelector(".line")) continue;
    lines.append(more);
  }

  // Uploads
  const area = document.querySelector("[data-upload]");
  if (area) {
    area.hidden = false;
    const list = document.getElementById("uploads");
    let waiting = 0;
    const send = (file, replace) => new Promise(done => {
      const bar = make("progress", { max: 1, value: 0 });
      bar.setAttribute("aria-label", `Upload of ${file.name}`);
      const state = make("span", { className: "faint small", textContent: "0 %" });
      const line = make("div", {}, make("span", { textContent: file.name }), state, bar);
      list.hidden = false;
      list.append(line);
      const request = new XMLHttpRequest();
      request.open("PUT", area.dataset.upload + encodeURIComponent(file.name) + (replace ? "?replace=1" : ""));
      request.setRequestHeader("x-csrf-token", csrf);
      request.setRequestHeader("content-type", "application/octet-stream");
      request.upload.addEventListener("progress", event => {
        if (event.lengthComputable) {
          bar.value = event.loaded / event.total;
          state.textContent = `${Math.round(100 * bar.value)} %`;
        }
      });
      request.addEventListener("loadend", () => {
        if (request.status === 201) {
          bar.value = 1;
          state.textContent = "done";
          say(`${file.name} was uploaded`);
          done(true);
        } else if (request.status === 409 && !replace && confirm(`${file.name} already exists. Replace it?`)) {
          line.remove();
          send(file, true).then(done);
        } else {
          const page = new DOMParser().parseFromString(request.responseText || "", "text/html");
          state.textContent = page.getElementById("why")?.textContent || "The connection was lost.";
          bar.remove();
          line.classList.add("danger");
          say(`${file.name} was not uploaded: ${state.textContent}`);
          done(false);
        }
      });
      request.send(file);
    });
    const upload = async files => {
      waiting += 1;
      let good = true;
      for (const file of files) good = (await send(file, false)) && good;
      waiting -= 1;
      if (good && waiting === 0) location.reload();
    };
    document.getElementById("upload").addEventListener("change", event => upload([...event.target.files]));
    const target = document.querySelector("[data-drop]") || document.querySelector("main");
    for (const kind of ["dragenter", "dragover"]) {
      document.addEventListener(kind, event => { event.preventDefault(); target.classList.add("dropping"); });
    }
    document.addEventListener("dragleave", event => { if (!event.relatedTarget) target.classList.remove("dropping"); });
    document.addEventListener("drop", event => {
      event.preventDefault();
      target.classList.remove("dropping");
      upload([...event.dataTransfer.files]);
    });
  }
})();
