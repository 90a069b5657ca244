// Draws the attention of every layer and head from the data in the page, and one map large when it is chosen.
"use strict";
(() => {
  const SHADES = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+-";
  const rank = new Map([...SHADES].map((sign, index) => [sign, index]));
  const root = document.documentElement;
  const redraws = [];

  // An element that nobody sees, which says what a colour of the style sheet is by day or by night.
  const probe = document.createElement("span");
  probe.hidden = true;
  document.body.append(probe);
  const color = (name) => {
    probe.style.color = `var(--${name})`;
    return getComputedStyle(probe).color;
  };
  const parts = (text) => text.match(/[\d.]+/g).slice(0, 3).map(Number);

  // Shares of one head, by their root, 0 to 1.
  const sharesOf = (data, layer, head) => {
    const side = data.tokens.length;
    const first = (layer * data.heads + head) * side * side;
    return Float32Array.from({ length: side * side }, (_, at) => rank.get(data.cells[first + at]) / 63);
  };

  const drawSmall = (canvas, shares, side) => {
    canvas.width = canvas.height = side;
    const context = canvas.getContext("2d");
    const image = context.createImageData(side, side);
    const [ink, paper] = [parts(color("mark-0")), parts(color("card"))];
    shares.forEach((share, at) => {
      for (let i = 0; i < 3; i += 1) image.data[4 * at + i] = paper[i] + (ink[i] - paper[i]) * share;
      image.data[4 * at + 3] = 255;
    });
    context.putImageData(image, 0, 0);
  };

  const drawLarge = (canvas, data, shares) => {
    const side = data.tokens.length;
    const cell = Math.max(7, Math.min(26, Math.floor(640 / side)));
    const longest = Math.max(...data.tokens.map((token) => token.length));
    const margin = Math.min(150, 8 + longest * 7);
    const scale = window.devicePixelRatio || 1;
    const size = margin + cell * side;
    canvas.width = canvas.height = size * scale;
    canvas.style.width = `${size}px`;
    const context = canvas.getContext("2d");
    context.scale(scale, scale);
    context.font = `${Math.min(12, cell)}px system-ui, sans-serif`;
    const [ink, paper] = [parts(color("mark-0")), parts(color("card"))];
    shares.forEach((share, at) => {
      const mixed = paper.map((value, i) => Math.round(value + (ink[i] - value) * share));
      context.fillStyle = `rgb(${mixed.join(",")})`;
      context.fillRect(margin + (at % side) * cell, margin + Math.floor(at / side) * cell, cell, cell);
    });
    context.fillStyle = color("text");
    context.textBaseline = "middle";
    data.tokens.forEach((token, at) => {
      context.textAlign = "right";
      context.fillText(token, margin - 4, margin + (at + 0.5) * cell, margin - 6);
      context.save();
      context.translate(margin + (at + 0.5) * cell, margin - 4);
      context.rotate(-Math.PI / 2);
      context.textAlign = "left";
      context.fillText(token, 0, 0, margin - 6);
      context.restore();
    });
    return { cell, margin, side };
  };

  // Where most of a head's attention goes, for those who do not see it.
  const strongest = (data, { shares }) => {
    const side = data.tokens.length;
    const best = shares.reduce((top, share, at) => (share > shares[top] ? at : top), 0);
    return `${data.tokens[Math.floor(best / side)]} looks at ${data.tokens[best % side]}`;
  };

  const tableOf = (data, { layer, head, shares }) => {
    const side = data.tokens.length;
    const scroll = document.createElement("div");
    scroll.className = "scroll";
    scroll.tabIndex = 0;
    scroll.setAttribute("role", "group");
    const name = `Shares of layer ${layer + 1}, head ${head + 1}; rows look at columns`;
    scroll.setAttribute("aria-label", name);
    const table = document.createElement("table");
    table.className = "plain";
    table.createCaption().textContent = name;
    const cell = (row, tag, text, scope) => {
      const made = document.createElement(tag);
      made.textContent = text;
      if (scope) made.scope = scope;
      row.append(made);
    };
    const top = table.createTHead().insertRow();
    cell(top, "td", "");
    data.tokens.forEach((token) => cell(top, "th", token, "col"));
    const body = table.createTBody();
    data.tokens.forEach((token, row) => {
      const line = body.insertRow();
      cell(line, "th", token, "row");
      for (let at = row * side; at < (row + 1) * side; at += 1) cell(line, "td", (shares[at] ** 2).toFixed(2));
    });
    scroll.append(table);
    return scroll;
  };

  const show = (place) => {
    const data = JSON.parse(document.getElementById(place.dataset.source).textContent);
    const side = data.tokens.length;
    const large = document.createElement("div");
    large.className = "large";
    const canvas = document.createElement("canvas");
    const said = document.createElement("p");
    said.setAttribute("aria-live", "polite");
    const behind = document.createElement("details");
    const summary = document.createElement("summary");
    summary.textContent = "Show as a table";
    behind.append(summary);
    const scroll = document.createElement("div");
    scroll.className = "scroll across";
    scroll.tabIndex = 0;
    scroll.setAttribute("role", "group");
    large.append(said, scroll, behind);
    scroll.append(canvas);
    let chosen = null;
    let layout = null;
    const fillTable = () => {
      if (behind.open && chosen) behind.replaceChildren(summary, tableOf(data, chosen));
    };
    behind.addEventListener("toggle", fillTable);
    const choose = (layer, head, button) => {
      for (const other of place.querySelectorAll("button")) {
        other.setAttribute("aria-pressed", String(other === button));
        // One of them is reached by the tabulator, the others by arrows.
        other.tabIndex = other === button ? 0 : -1;
      }
      chosen = { layer, head, shares: sharesOf(data, layer, head) };
      layout = drawLarge(canvas, data, chosen.shares);
      const name = `Attention of layer ${layer + 1}, head ${head + 1}`;
      canvas.setAttribute("role", "img");
      canvas.setAttribute("aria-label", `${name}. Strongest: ${strongest(data, chosen)}`);
      scroll.setAttribute("aria-label", name);
      said.textContent = `Layer ${layer + 1}, head ${head + 1}`;
      fillTable();
    };
    place.setAttribute("role", "group");
    place.setAttribute("aria-label", "Attention of every layer and head");
    place.addEventListener("keydown", (event) => {
      const buttons = [...place.querySelectorAll("button")];
      const at = buttons.indexOf(event.target);
      const steps = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -data.heads, ArrowDown: data.heads };
      const next = buttons[at + steps[event.key]];
      if (at < 0 || !next) return;
      event.preventDefault();
      next.focus();
      next.click();
    });
    canvas.addEventListener("mousemove", (event) => {
      if (!chosen) return;
      const box = canvas.getBoundingClientRect();
      const shrink = (layout.margin + layout.cell * side) / box.width;
      const [column, row] = [event.clientX - box.left, event.clientY - box.top]
        .map((at) => Math.floor((at * shrink - layout.margin) / layout.cell));
      if (column < 0 || row < 0 || column >= side || row >= side) return;
      const share = chosen.shares[row * side + column] ** 2;
      said.textContent = `Layer ${chosen.layer + 1}, head ${chosen.head + 1}: ` +
        `${data.tokens[row]} looks at ${data.tokens[column]} with a share of about ${share.toFixed(2)}`;
    });
    let first = null;
    for (let layer = 0; layer < data.layers; layer += 1) {
      const row = document.createElement("div");
      row.className = "map-row";
      const name = document.createElement("span");
      name.textContent = `layer ${layer + 1}`;
      row.append(name);
      for (let head = 0; head < data.heads; head += 1) {
        const button = document.createElement("button");
        button.type = "button";
        button.title = `layer ${layer + 1}, head ${head + 1}`;
        button.setAttribute("aria-label", button.title);
        const small = document.createElement("canvas");
        const draw = () => drawSmall(small, sharesOf(data, layer, head), side);
        draw();
        redraws.push(draw);
        button.append(small);
        button.addEventListener("click", () => choose(layer, head, button));
        row.append(button);
        first = first || (() => choose(layer, head, button));
      }
      place.append(row);
    }
    place.append(large);
    redraws.push(() => { if (chosen) layout = drawLarge(canvas, data, chosen.shares); });
    if (first) first();
  };

  document.querySelectorAll(".maps").forEach(show);
  const redraw = () => redraws.forEach((draw) => draw());
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  // Paper is white, whatever the screen was.
  window.addEventListener("beforeprint", () => {
    root.dataset.print = "";
    redraw();
  });
  window.addEventListener("afterprint", () => {
    delete root.dataset.print;
    redraw();
  });
})();
