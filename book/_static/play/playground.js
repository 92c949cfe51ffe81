// The playground: one view of one image, what a student says to it, and what three kinds of teachers would have it say.
"use strict";

((globalThis.Play ??= {}).figures ??= {}).playground = (root, data) => {
  const { h, range, choice, paint, later, swatch, pictures } = Play.dom;
  const { render, mix, inception, WHOLE } = Play.views;
  const { bytes, load, logits, softmax, kl } = Play.network;
  const SMALLEST = 0.2; // side of a crop, as a share of the image's
  const images = data.images.map(({ pixels }) => bytes(pixels));
  const state = { ...data.start, weight: 1, flip: false, otherFlip: true };
  const columns = [
    { name: "student", note: "this view" },
    { name: "con\u00adsistent teacher", note: "this view", policy: "same/ic" },
    { name: "inde\u00adpendent teacher", note: "another crop", policy: "ind/ic" },
    { name: "fixed teacher", note: "whole image", policy: "fix/cc" },
  ]; // with soft hyphens, for phones

  // The picture, with the crop of this view and, dashed, the independent teacher's.
  const picture = h("canvas", { "aria-hidden": "true" });
  const corner = h("i", { class: "play-corner" });
  const box = h("div", { class: "play-box" }, corner);
  const other = h("div", { class: "play-box play-other" });
  const stage = h("div", { class: "play-stage" }, picture, other, box);

  const percent = (share) => `${Math.round(100 * share)} %`;
  const full = { min: 0, max: 1, step: 0.01, value: 0, text: percent };
  const side = (key, name) => [key, range(name, full, (value) => setBox({ ...state.box, [key]: value }))];
  const sides = Object.fromEntries(
    [["left", "Left"], ["top", "Top"], ["width", "Width"], ["height", "Height"]].map((names) => side(...names))
  );

  // A crop may not leave the image: its place gives way to its size.
  function setBox({ top, left, height, width }) {
    const within = (low, value, high) => Math.min(Math.max(value, low), high);
    height = within(SMALLEST, height, 1);
    width = within(SMALLEST, width, 1);
    state.box = { top: within(0, top, 1 - height), left: within(0, left, 1 - width), height, width };
    for (const [key, slider] of Object.entries(sides)) slider.set(state.box[key]);
    redraw();
  }

  // Dragging inside the box moves it; dragging its corner, or anywhere else, draws it anew.
  stage.addEventListener("pointerdown", (event) => {
    const frame = stage.getBoundingClientRect();
    const at = ({ clientX, clientY }) => [(clientX - frame.left) / frame.width, (clientY - frame.top) / frame.height];
    const [x, y] = at(event);
    const before = state.box;
    const [left, top] = event.target === corner ? [before.left, before.top] : [x, y];
    const move = (to) => {
      const [u, v] = at(to);
      if (event.target === box) setBox({ ...before, left: before.left + u - x, top: before.top + v - y });
      else {
        const [width, height] = [Math.abs(u - left), Math.abs(v - top)];
        setBox({ left: Math.min(left, u), top: Math.min(top, v), width, height });
      }
    };
    stage.setPointerCapture(event.pointerId);
    stage.addEventListener("pointermove", move);
    stage.addEventListener("lostpointercapture", () => stage.removeEventListener("pointermove", move), { once: true });
    event.preventDefault();
  });

  // The table: a row for each class, a column for each network, above it what that network sees.
  const views = columns.map(() => h("canvas", { "aria-hidden": "true" }));
  const colours = columns.map(({ policy }) => (policy ? data.policies[policy].colour : "currentColor"));
  const heads = columns.map(({ name, note }, i) =>
    h("th", { scope: "col" }, views[i], h("b", {}, swatch(colours[i]), name), h("small", {}, note))
  );
  const cells = data.classes.map(() => columns.map((_, i) => h("td", { style: `--colour:${colours[i]}` })));
  const rows = data.classes.map((name, row) => h("tr", {}, h("th", { scope: "row" }, name), ...cells[row]));
  const losses = columns.map(() => h("td"));
  const foot = h("tr", {}, h("th", { scope: "row" }, "loss of the student, KL in nats"), ...losses);
  const head = h("thead", {}, h("tr", {}, h("td"), ...heads));
  const table = h("table", {}, head, h("tbody", {}, ...rows), h("tfoot", {}, foot));
  const told = h("p", { "aria-live": "polite", class: "play-note" });

  const chosen = () => data.students.find(({ policy, epochs }) => policy === state.policy && epochs === state.epochs);

  // Asks the network of a column only where it, or what it sees, has changed.
  const known = [];
  function ask(column, network, values) {
    const { network: before, values: seen, scores } = known[column] || {};
    if (network === before && seen && values.every((value, i) => value === seen[i])) return scores;
    known[column] = { network, values, scores: network && logits(load(network), values) };
    return known[column].scores;
  }

  function draw() {
    const partner = render(images[state.partner], WHOLE, false, data.size);
    const seen = (crop, flip) => mix(render(images[state.image], crop, flip, data.size), partner, state.weight);
    const view = seen(state.box, state.flip);
    const whole = render(images[state.image], WHOLE, false, data.size);
    const shown = [view, view, seen(state.other, state.otherFlip), whole];
    const student = chosen();
    const networks = [student && student.network, data.teacher, data.teacher, data.teacher];
    const answers = shown.map((values, i) => ask(i, networks[i], values));
    paint(picture, whole);
    shown.forEach((values, i) => paint(views[i], values));
    for (const [element, crop] of [[box, state.box], [other, state.other]])
      for (const [key, value] of Object.entries(crop)) element.style[key] = `${100 * value}%`;
    answers.forEach((scores, i) => {
      const shares = scores && softmax(scores);
      const most = shares && Math.max(...shares);
      cells.forEach((row, label) => {
        row[i].textContent = shares ? percent(shares[label]) : "no weights";
        row[i].style.setProperty("--share", shares ? shares[label] : 0);
        row[i].classList.toggle("play-most", Boolean(shares) && shares[label] === most);
      });
      losses[i].textContent = i && scores && answers[0] ? kl(answers[0], scores).toFixed(3) : "";
    });
    told.textContent = student
      ? `This student is right on ${student.top1} of the test images.`
      : "There are no weights of this student yet.";
  }
  const redraw = later(draw);
  const set = (key) => (value) => {
    state[key] = value;
    redraw();
  };

  const button = (text, act) => h("button", { type: "button", onclick: act }, text);
  const flip = h("input", { type: "checkbox", onchange: (event) => set("flip")(event.target.checked) });
  const policies = [...new Set(data.students.map(({ policy }) => policy))].map((key) => {
    const { name, colour } = data.policies[key];
    return { value: key, name, content: h("span", {}, swatch(colour), name) };
  });
  const lengths = [...new Set(data.students.map(({ epochs }) => epochs))].map((value) => ({
    value,
    name: `${value.toLocaleString("en")} epochs`,
  }));
  const share = (value) => value.toFixed(2);
  const buttons = [
    button("Draw a crop", () => setBox(inception(data.smallest))),
    button("Whole image", () => setBox(WHOLE)),
    button("Another crop for the independent teacher", () => {
      state.otherFlip = Math.random() < 0.5;
      set("other")(inception(data.smallest));
    }),
    h("label", {}, flip, " mirrored"),
  ];
  const sliders = Object.values(sides).map(({ element }) => element);
  root.append(
    choice("Image", pictures(data), state.image, set("image")),
    h("div", { class: "play-row" }, stage, h("div", {}, ...sliders, h("p", { class: "play-buttons" }, ...buttons))),
    choice("Partner for mixup, shown whole", pictures(data), state.partner, set("partner")),
    range("\u03bb, its share", { min: 0, max: 1, step: 0.01, value: 1, text: share }, set("weight")).element,
    choice("Student taught by", policies, state.policy, set("policy")),
    choice("Length of its training", lengths, state.epochs, set("epochs")),
    told,
    table
  );
  setBox(state.box);
};
