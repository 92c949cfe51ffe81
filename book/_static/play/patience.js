// Patience: recorded runs of one length of schedule, their curves, and how they rank at its end.
"use strict";

((globalThis.Play ??= {}).figures ??= {}).patience = (root, data) => {
  const { h, range, choice, later, swatch } = Play.dom;
  const lengths = [...new Set(data.runs.map(({ epochs }) => epochs))].sort((a, b) => a - b);
  const seeds = [...new Set(data.runs.map(({ seed }) => seed))].sort((a, b) => a - b);
  const LOWEST = 0.5; // of the axis, which stays, so that lengths can be compared; what is below it is left out
  const state = { length: 0, seed: "mean" };
  const [chart, ranking] = [h("div"), h("ol", { class: "play-ranking", "aria-live": "polite" })];
  const mean = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;
  const percent = (share) => `${(100 * share).toFixed(1)} %`;
  const whole = (share) => `${Math.round(100 * share)} %`;
  const inEpochs = (value) => value.toLocaleString("en");

  function draw() {
    if (!lengths.length) return;
    const epochs = lengths[state.length];
    const own = data.runs.filter((run) => run.epochs === epochs && (state.seed === "mean" || run.seed === state.seed));
    const policies = [...new Set(own.map(({ policy }) => policy))].map((policy) => {
      const runs = own.filter((run) => run.policy === policy);
      const means = runs[0].curve.map(([epoch], i) => [epoch, mean(runs.map(({ curve }) => curve[i][1]))]);
      const points = means.filter(([, share]) => share >= LOWEST);
      return { ...data.policies[policy], points, count: runs.length, top1: mean(runs.map(({ top1 }) => top1)) };
    });
    policies.sort((a, b) => b.top1 - a.top1);
    Play.chart.lines(chart, {
      title: `Accuracy on validation images along a schedule of ${inEpochs(epochs)} epochs`,
      series: policies,
      x: { min: 0, max: epochs, ticks: [0, epochs / 2, epochs], text: inEpochs, label: "epoch" },
      y: { min: LOWEST, max: 0.9, ticks: [0.5, 0.6, 0.7, 0.8, 0.9], text: whole, label: "validation images right" },
    });
    const points = ({ top1 }) => (100 * (data.teacherTop1 - top1)).toFixed(1);
    const gap = (run) => (data.teacherTop1 ? `, ${points(run)} points below the teacher` : "");
    const text = (run) => `${run.name}: ${percent(run.top1)} of the test images${gap(run)} (n = ${run.count})`;
    ranking.replaceChildren(...policies.map((run) => h("li", {}, swatch(run.colour), text(run))));
  }
  const redraw = later(draw);
  const set = (key) => (value) => {
    state[key] = value;
    redraw();
  };
  const text = (index) => (lengths.length ? `${inEpochs(lengths[index])} epochs` : "no records yet");
  const each = seeds.map((value) => ({ value, name: `seed ${value}` }));
  root.append(
    range("Schedule", { min: 0, max: lengths.length - 1, step: 1, value: 0, text }, set("length")).element,
    choice("Runs", [{ value: "mean", name: "mean over seeds" }, ...each], state.seed, set("seed")),
    chart,
    ranking
  );
  new ResizeObserver(redraw).observe(root);
};
