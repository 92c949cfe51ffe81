// Elements, controls that work from the keyboard, and the start: what has data-play="NAME" goes to Play.figures[NAME].
"use strict";

(globalThis.Play ??= {}).dom = (() => {
  const SVG = new Set(["svg", "g", "path", "line", "text", "tspan"]);
  let names = 0;

  function h(tag, attributes = {}, ...children) {
    const space = SVG.has(tag) ? "http://www.w3.org/2000/svg" : "http://www.w3.org/1999/xhtml";
    const element = document.createElementNS(space, tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
      else if (value !== false) element.setAttribute(name, value === true ? "" : value);
    }
    element.append(...children);
    return element;
  }

  // A slider with its name and value beside it; `set` moves it without telling.
  function range(label, { min, max, step, value, text = String }, change) {
    const output = h("output", {}, text(value));
    const input = h("input", { type: "range", min, max, step, value });
    const show = () => {
      output.value = text(Number(input.value));
      input.setAttribute("aria-valuetext", output.value);
    };
    input.addEventListener("input", () => {
      show();
      change(Number(input.value));
    });
    show();
    const element = h("label", { class: "play-range" }, h("span", {}, label), input, output);
    const set = (to) => {
      input.value = to;
      show();
    };
    return { element, set };
  }

  // One of several: radio buttons that look like what they choose. Options are {value, content, name}.
  function choice(label, options, value, change) {
    const name = `play-${names++}`;
    const buttons = options.map((option) => {
      const onchange = () => change(option.value);
      const checked = option.value === value;
      const input = h("input", { type: "radio", name, checked, "aria-label": option.name, onchange });
      return h("label", { title: option.name }, input, option.content || h("span", {}, option.name));
    });
    return h("fieldset", { class: "play-choice" }, h("legend", {}, label), ...buttons);
  }

  function select(label, options, value, change) {
    const selected = (option) => option.value === value;
    const list = options.map((option) => h("option", { value: option.value, selected: selected(option) }, option.name));
    const element = h("select", { onchange: (event) => change(event.target.value) }, ...list);
    return h("label", { class: "play-select" }, h("span", {}, label), element);
  }

  // Pixels in [-1, 1] on a canvas, as dark ink on white, as Fashion-MNIST is printed in this book.
  function paint(canvas, values) {
    const side = (canvas.width = canvas.height = Math.sqrt(values.length));
    const pixels = new ImageData(side, side);
    values.forEach((value, i) => pixels.data.set([...Array(3).fill(127.5 - 127.5 * value), 255], 4 * i));
    canvas.getContext("2d").putImageData(pixels, 0, 0);
    return canvas;
  }

  // Draws at most once for each picture of the screen, however often it is asked.
  function later(draw) {
    let asked = false;
    return () => {
      if (asked) return;
      asked = true;
      requestAnimationFrame(() => {
        asked = false;
        draw();
      });
    };
  }

  // The embedded images as options of a choice.
  function pictures({ images, size }) {
    const shown = ({ pixels }) => Play.views.render(Play.network.bytes(pixels), Play.views.WHOLE, false, size);
    return images.map((image, value) => ({ value, name: image.name, content: paint(h("canvas"), shown(image)) }));
  }

  const swatch = (colour) => h("i", { class: "play-swatch", style: `background:${colour}` });

  if (globalThis.document)
    document.addEventListener("DOMContentLoaded", () => {
      if (!Play.data) return;
      for (const root of document.querySelectorAll("[data-play]")) Play.figures[root.dataset.play](root, Play.data);
      document.documentElement.classList.add("play-live"); // only now: a failure above leaves the still pictures
    });

  return { h, range, choice, select, paint, later, pictures, swatch };
})();
