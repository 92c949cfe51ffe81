// Cost: epochs x images x operations, on so many accelerators, in hours; every factor is in the line that is shown.
"use strict";

((globalThis.Play ??= {}).figures ??= {}).cost = (root, data) => {
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
    const peak = device.peak[preset.dtype];
    const speed = peak * state.utilisation;
    const hours = work / speed / 3600;
    const inDays = ` (${number(hours / state.count / 24)} days)`;
    const lines = [
      ["images, in all", [`${whole(preset.images)} \u00d7 ${whole(state.epochs)} epochs = `, ...power(shown)]],
      ["operations each", ["teacher ", ...power(preset.teacher), ", student ", ...power(preset.student)]],
      ["operations, in all", power(work)],
      [device.name, [...power(peak), ` a second \u00d7 ${percent(state.utilisation)} = `, ...power(speed)]],
      ["hours on one", power(work).concat(" / ", power(speed), ` / 3,600 = ${number(hours)}`)],
      [`hours on ${state.count}`, [`${number(hours)} / ${state.count} = ${number(hours / state.count)}${inDays}`]],
      ["money", [`${number(hours)} hours \u00d7 ${state.price} an hour = ${number(hours * state.price)}`]],
    ];
    const row = ([name, parts]) => h("tr", {}, h("th", { scope: "row" }, name), h("td", {}, ...parts));
    rows.replaceChildren(...lines.map(row));
  }
  const set = (key) => (value) => {
    state[key] = Number(value);
    draw();
  };
  const percent = (share) => `${Math.round(100 * share)} %`;
  const named = (list) => list.map(({ name }, value) => ({ value, name }));
  const decades = { min: 0, max: 6, step: 0.05, value: Math.log10(state.epochs), text: (value) => whole(10 ** value) };
  const epochs = range("Epochs", decades, (value) => set("epochs")(10 ** value));
  const pick = (value) => {
    set("preset")(value);
    set("epochs")(presets[state.preset].epochs);
    epochs.set(Math.log10(state.epochs));
  };
  const doubled = { min: 0, max: 9, step: 1, value: 0, text: (value) => 2 ** value };
  const share = { min: 0.05, max: 1, step: 0.05, value: utilisation, text: percent };
  const money = (event) => set("price")(event.target.value);
  const price = h("input", { type: "number", min: 0, step: 0.1, value: state.price, oninput: money });
  root.append(
    select("Images and networks of", named(presets), 0, pick),
    select("Accelerator", named(devices), 0, set("device")),
    epochs.element,
    range("Accelerators", doubled, (value) => set("count")(2 ** value)).element,
    range("Share of the peak", share, set("utilisation")).element,
    h("label", { class: "play-select" }, h("span", {}, "Price of an accelerator-hour"), price),
    h("table", { class: "play-sum" }, rows)
  );
  draw();
};
