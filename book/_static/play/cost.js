// Cost: epochs x images x operations, on so many accelerators, in hours; every factor is in the line that is shown.
"use strict";
globalThis.Play = globalThis.Play || {};
Play.figures = Play.figures || {};

Play.figures.cost = (root, data) => {
  const { h, range, select } = Play.dom;
  const { presets, devices, utilisation } = data.cost;
  const state = { preset: 0, device: 0, epochs: presets[0].epochs, count: 1, utilisation, price: 2 };
  const rows = h("tbody", { "aria-live": "polite" });
  const whole = (value) => Math.round(value).toLocaleString("en");
  const number = (value) => (value < 10 ? value.toPrecision(2) : whole(value));

  // A number in powers of ten, as the chapters write them.
  function power(value) {
    const exponent = Math.floor(Math.log10(value));
    return [`${(value / 10 ** exponent).toFixed(1)} \u00d7 10`, h("sup", {}, String(exponent))];
  }

  function draw() {
    const preset = presets[state.preset];
    const device = devices[state.device];
    const shown = preset.images * state.epochs;
    const work = shown * (preset.teacher + preset.student);
    const speed = device.peak[preset.dtype] * state.utilisation;
    const hours = work / speed / 3600;
    const lines = [
      ["images shown, in all", [`${whole(preset.images)} \u00d7 ${whole(state.epochs)} epochs = `, ...power(shown)]],
      ["operations for each", ["teacher ", ...power(preset.teacher), ", student ", ...power(preset.student), " (three times its answer)"]],
      ["operations, in all", power(work)],
      [`one ${device.name}`, [...power(device.peak[preset.dtype]), ` a second \u00d7 ${Math.round(100 * state.utilisation)} % = `, ...power(speed)]],
      ["hours on one", power(work).concat(" / ", power(speed), ` / 3,600 = ${number(hours)}`)],
      [`hours on ${state.count}`, [`${number(hours)} / ${state.count} = ${number(hours / state.count)}`, ` (${number(hours / state.count / 24)} days)`]],
      ["money", [`${number(hours)} hours \u00d7 ${state.price} an hour = ${number(hours * state.price)}`]],
    ];
    rows.replaceChildren(...lines.map(([name, parts]) => h("tr", {}, h("th", { scope: "row" }, name), h("td", {}, ...parts))));
  }
  const set = (key) => (value) => {
    state[key] = Number(value);
    draw();
  };
  const named = (list) => list.map(({ name }, value) => ({ value, name }));
  const epochs = range(
    "Epochs",
    { min: 0, max: 6, step: 0.05, value: Math.log10(state.epochs), text: (value) => whole(10 ** value) },
    (value) => set("epochs")(10 ** value)
  );
  const pick = (value) => {
    set("preset")(value);
    set("epochs")(presets[state.preset].epochs);
    epochs.set(Math.log10(state.epochs));
  };
  const price = h("input", { type: "number", min: 0, step: 0.1, value: state.price, oninput: (event) => set("price")(event.target.value) });
  root.append(
    h("div", { class: "play-row" }, select("Images and networks of", named(presets), 0, pick), select("Accelerator", named(devices), 0, set("device"))),
    epochs.element,
    range("Accelerators", { min: 0, max: 9, step: 1, value: 0, text: (value) => 2 ** value }, (value) => set("count")(2 ** value)).element,
    range("Share of the peak", { min: 0.05, max: 1, step: 0.05, value: utilisation, text: (value) => `${Math.round(100 * value)} %` }, set("utilisation")).element,
    h("label", { class: "play-select" }, h("span", {}, "Price of an accelerator-hour"), price),
    h("table", { class: "play-sum" }, rows)
  );
  draw();
};
