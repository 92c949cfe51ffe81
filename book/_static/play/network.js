// A BiT network (distill_lib/models/bit.py) for one image. No JavaScript modules: browsers do not load them from disk.
// Activations are {side, channels, values}: a square of pixels, row by row, all channels of a pixel together.
"use strict";

(globalThis.Play ??= {}).network = (() => {
  const GROUPS = 8;

  // The sixteen bits of a half-precision number, sign, exponent and fraction, as a number.
  function half(bits) {
    const sign = bits & 0x8000 ? -1 : 1;
    const exponent = (bits >> 10) & 31;
    const fraction = bits & 1023;
    return exponent ? sign * 2 ** (exponent - 15) * (1 + fraction / 1024) : sign * 2 ** -24 * fraction;
  }

  function bytes(base64) {
    return Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
  }

  // Mean 0 and variance 1 of the weights that make one output channel, once and for all (standardize in bit.py).
  function standardised({ shape, values }) {
    const outputs = shape[3];
    const count = values.length / outputs;
    for (let channel = 0; channel < outputs; channel++) {
      let sum = 0;
      let squares = 0;
      for (let i = channel; i < values.length; i += outputs) sum += values[i];
      for (let i = channel; i < values.length; i += outputs) squares += (values[i] - sum / count) ** 2;
      const factor = 1 / Math.sqrt(squares / count + 1e-10);
      for (let i = channel; i < values.length; i += outputs) values[i] = (values[i] - sum / count) * factor;
    }
    return { shape, values };
  }

  // Parameters by name, from {shapes, weights}: float16 numbers, one parameter after the other, in base64.
  const loaded = new WeakMap();
  function load(packed) {
    if (loaded.has(packed)) return loaded.get(packed);
    const { shapes, weights } = packed;
    const raw = new Uint16Array(bytes(weights).buffer);
    const params = {};
    let start = 0;
    for (const [name, shape] of shapes) {
      const length = shape.reduce((product, size) => product * size, 1);
      params[name] = { shape, values: Float32Array.from(raw.subarray(start, start + length), half) };
      if (name.endsWith("kernel") && !name.startsWith("head")) standardised(params[name]);
      start += length;
    }
    loaded.set(packed, params);
    return params;
  }

  function convolve(x, kernel, stride = 1) {
    const [size, , inputs, outputs] = kernel.shape;
    const side = Math.ceil(x.side / stride);
    const pad = size >> 1;
    const values = new Float32Array(side * side * outputs);
    const [seen, weights] = [x.values, kernel.values];
    for (let row = 0; row < side; row++)
      for (let column = 0; column < side; column++) {
        const to = (row * side + column) * outputs;
        for (let tap = 0; tap < size * size; tap++) {
          const y = row * stride - pad + Math.floor(tap / size);
          const z = column * stride - pad + (tap % size);
          if (y < 0 || z < 0 || y >= x.side || z >= x.side) continue;
          const from = (y * x.side + z) * inputs;
          for (let input = 0; input < inputs; input++) {
            const value = seen[from + input];
            if (value === 0) continue; // about half of them, behind a ReLU
            const first = (tap * inputs + input) * outputs;
            for (let k = 0; k < outputs; k++) values[to + k] += value * weights[first + k];
          }
        }
      }
    return { side, channels: outputs, values };
  }

  // Group normalisation and the ReLU behind it.
  function normalised(x, scale, bias) {
    const each = x.channels / GROUPS;
    const values = new Float32Array(x.values.length);
    for (let group = 0; group < GROUPS; group++) {
      const own = [];
      for (let i = group * each; i < values.length; i += x.channels) for (let k = 0; k < each; k++) own.push(i + k);
      const mean = own.reduce((sum, i) => sum + x.values[i], 0) / own.length;
      const variance = own.reduce((sum, i) => sum + (x.values[i] - mean) ** 2, 0) / own.length;
      const factor = 1 / Math.sqrt(variance + 1e-5);
      for (const i of own) {
        const channel = i % x.channels;
        values[i] = Math.max(0, (x.values[i] - mean) * factor * scale.values[channel] + bias.values[channel]);
      }
    }
    return { ...x, values };
  }

  function unit(params, name, x, stride) {
    const part = (layer) => params[`${name}/${layer}`];
    const norm = (layer, values) => normalised(values, part(`${layer}/scale`), part(`${layer}/bias`));
    const first = norm("gn1", x);
    const projection = part("conv_proj/kernel");
    const shortcut = projection ? convolve(first, projection, stride) : x;
    let inner = convolve(first, part("conv1/kernel"));
    inner = convolve(norm("gn2", inner), part("conv2/kernel"), stride);
    inner = convolve(norm("gn3", inner), part("conv3/kernel"));
    return { ...inner, values: inner.values.map((value, i) => value + shortcut.values[i]) };
  }

  // Logits of one square grey image, values in [-1, 1].
  function logits(params, image) {
    let x = { side: Math.sqrt(image.length), channels: 1, values: image };
    x = convolve(x, params["root_block/conv_root/kernel"], 2);
    const units = new Set(Object.keys(params).flatMap((name) => name.match(/^block\d+\/unit\d+/) || []));
    for (const name of units) x = unit(params, name, x, /^block1\/|unit0[^1]/.test(name) ? 1 : 2);
    x = normalised(x, params["norm-pre-head/scale"], params["norm-pre-head/bias"]);
    const { values: head, shape } = params["head/kernel"];
    return Array.from(params["head/bias"].values, (bias, label) => {
      let sum = 0;
      for (let i = 0; i < x.values.length; i++) sum += x.values[i] * head[(i % x.channels) * shape[1] + label];
      return bias + sum / x.side ** 2;
    });
  }

  function logSoftmax(scores) {
    const top = Math.max(...scores);
    const total = top + Math.log(scores.reduce((sum, score) => sum + Math.exp(score - top), 0));
    return scores.map((score) => score - total);
  }

  const softmax = (scores) => logSoftmax(scores).map(Math.exp);

  // KL divergence in nats from the student's prediction to the teacher's (losses.kl, temperature 1).
  function kl(student, teacher) {
    const ours = logSoftmax(student);
    return logSoftmax(teacher).reduce((sum, log, label) => sum + Math.exp(log) * (log - ours[label]), 0);
  }

  return { bytes, load, logits, softmax, kl };
})();
