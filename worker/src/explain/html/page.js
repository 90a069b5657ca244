// Draws the attention of every layer and head from the data in the page, and one map large when it is chosen.
"use strict";
(() => {
  const SHADES = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+-";
  const rank = new Map([...SHADES].map((sign, index) => [sign, index]));
  const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const redraws = [];

  const parts = (hex) => [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));

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
    const [ink, paper] = [parts(color("--line0")), parts(color("--paper"))];
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
    const [ink, paper] = [parts(color("--line0")), parts(color("--paper"))];
    shares.forEach((share, at) => {
      const mixed = paper.map((value, i) => Math.round(value + (ink[i] - value) * share));
      context.fillStyle = `rgb(${mixed.join(",")})`;
      context.fillRect(margin + (at % side) * cell, margin + Math.floor(at / side) * cell, cell, cell);
    });
    context.fillStyle = color("--ink");
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

  const show = (place) => {
    const data = JSON.parse(document.getElementById(place.dataset.source).textContent);
    const side = data.tokens.length;
    const large = document.createElement("div");
    large.className = "large";
    const canvas = document.createElement("canvas");
    const said = document.createElement("p");
    said.setAttribute("aria-live", "polite");
    large.append(said, canvas);
    let chosen = null;
    let layout = null;
    const choose = (layer, head, button) => {
      for (const other of place.querySelectorAll("button")) other.setAttribute("aria-pressed", String(other === button));
      chosen = { layer, head, shares: sharesOf(data, layer, head) };
      layout = drawLarge(canvas, data, chosen.shares);
      canvas.setAttribute("role", "img");
      canvas.setAttribute("aria-label", `attention of layer ${layer + 1}, head ${head + 1}`);
      said.textContent = `Layer ${layer + 1}, head ${head + 1}`;
    };
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
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => redraws.forEach((draw) => draw()));
})();
