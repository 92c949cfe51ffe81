// The mixup line: what the teacher and every student say on the way from one image to another.
"use strict";

((globalThis.Play ??= {}).figures ??= {}).mixup = (root, data) => {
  const { h, range, choice, later, pictures, paint } = Play.dom;
  const { render, mix, WHOLE } = Play.views;
  const { bytes, load, logits, softmax, kl } = Play.network;
  const POINTS = 21;
  const whole = data.images.map(({ pixels }) => render(bytes(pixels), WHOLE, false, data.size));
  const lengths = [...new Set(data.students.map(({ epochs }) => epochs))];
  const [from, to] = data.start.line;
  const state = { from, to, epochs: data.start.epochs, weight: 0.5 };
  const [probability, divergence] = [h("div"), h("div")];
  const blend = h("canvas", { "aria-hidden": "true", class: "play-blend" });
  const said = h("p", { "aria-live": "polite", class: "play-note" });
  const share = (value) => value.toFixed(2);
  const along = "\u03bb, the share of the first image";
  const axis = { min: 0, max: 1, ticks: [0, 0.25, 0.5, 0.75, 1], text: share, label: along };

  let line = []; // of each network: {name, colour, answers}, the logits at each point
  function answer() {
    const at = (i) => mix(whole[state.from], whole[state.to], i / (POINTS - 1));
    const blends = Array.from({ length: POINTS }, (_, i) => at(i));
    const students = data.students.filter(({ epochs }) => epochs === state.epochs);
    const teacher = { name: "teacher", colour: "currentColor", network: data.teacher, dash: "5 3" };
    const networks = [teacher, ...students.map(({ policy, network }) => ({ ...data.policies[policy], network }))];
    const answers = (network) => blends.map((view) => logits(load(network), view));
    line = networks.map(({ network, ...rest }) => ({ ...rest, answers: answers(network) }));
    draw();
  }

  function draw() {
    const teacher = line[0].answers;
    const ends = softmax(teacher.at(-1));
    const named = ends.indexOf(Math.max(...ends));
    const curve = (of) => (answers) => answers.map((scores, i) => [i / (POINTS - 1), of(scores, i)]);
    const series = (networks, of) => networks.map(({ answers, ...look }) => ({ ...look, points: curve(of)(answers) }));
    const shares = series(line, (scores) => softmax(scores)[named]);
    const distances = series(line.slice(1), (scores, i) => kl(scores, teacher[i]));
    const title = `probability of ${data.classes[named]}`;
    const percent = (value) => `${Math.round(100 * value)} %`;
    const parts = { min: 0, max: 1, ticks: [0, 0.5, 1], text: percent, label: title };
    const most = Math.max(...distances.flatMap(({ points }) => points.map(([, value]) => value)), 0);
    const top = [0.5, 1, 2, 3, 4, 6, 8, 10].find((value) => value >= most) || most;
    const label = "KL from the teacher's answer (nats)";
    const nats = { min: 0, max: top, ticks: [0, top / 2, top], text: share, label };
    const shared = { x: axis, cursor: state.weight };
    Play.chart.lines(probability, { ...shared, title, series: shares, y: parts });
    Play.chart.lines(divergence, { ...shared, title: nats.label, series: distances, y: nats });
    const near = Math.round(state.weight * (POINTS - 1));
    paint(blend, mix(whole[state.from], whole[state.to], near / (POINTS - 1)));
    const values = shares.map(({ name, points }) => `${name} ${percent(points[near][1])}`);
    said.textContent = `At \u03bb = ${share(near / (POINTS - 1))}, ${title}: ${values.join(", ")}.`;
  }

  const again = later(answer);
  const set = (key, then) => (value) => {
    state[key] = value;
    then();
  };
  const epochs = lengths.map((value) => ({ value, name: `${value.toLocaleString("en")} epochs` }));
  root.append(
    choice("First image, \u03bb = 1", pictures(data), state.from, set("from", again)),
    choice("Second image, \u03bb = 0", pictures(data), state.to, set("to", again)),
    choice("Students taught for", epochs, state.epochs, set("epochs", again)),
    range("\u03bb", { min: 0, max: 1, step: 0.05, value: 0.5, text: share }, set("weight", later(draw))).element,
    blend,
    probability,
    divergence,
    said
  );
  again();
  new ResizeObserver(later(() => line.length && draw())).observe(root);
};
