// What a network is shown (distill_lib/views.py and crops.py): a box of a grey image, resized, mirrored and mixed.
"use strict";

(globalThis.Play ??= {}).views = (() => {
  const WHOLE = { top: 0, left: 0, height: 1, width: 1 };

  // Where the `size` pixels of one axis of a crop lie between the image's: half-pixel centres, edges repeated.
  function centres(start, extent, pixels, size) {
    const first = start * pixels;
    const length = extent * pixels;
    return Array.from({ length: size }, (_, i) => {
      const centre = first + ((i + 0.5) * length) / size - 0.5;
      return Math.min(Math.max(centre, first), first + Math.max(length - 1, 0), pixels - 1);
    });
  }

  // The crop `box` of a square image of bytes, as size x size values in [-1, 1].
  function render(image, box, flip, size) {
    const pixels = Math.sqrt(image.length);
    const rows = centres(box.top, box.height, pixels, size);
    const columns = centres(box.left, box.width, pixels, size);
    if (flip) columns.reverse();
    const at = (row, column) => image[Math.min(row, pixels - 1) * pixels + Math.min(column, pixels - 1)];
    const between = (row, column) => {
      const left = Math.floor(column);
      return at(row, left) * (1 - column + left) + at(row, left + 1) * (column - left);
    };
    return Float32Array.from({ length: size * size }, (_, i) => {
      const row = rows[Math.floor(i / size)];
      const top = Math.floor(row);
      const column = columns[i % size];
      const value = between(top, column) * (1 - row + top) + between(top + 1, column) * (row - top);
      return value / 127.5 - 1;
    });
  }

  const mix = (own, partner, weight) => own.map((value, i) => weight * value + (1 - weight) * partner[i]);

  // An inception crop with at least the share `smallest` of the image; `random` gives numbers in [0, 1).
  function inception(smallest, random = Math.random) {
    const aspect = 3 / 4 + (4 / 3 - 3 / 4) * random(); // with a quarter or more of a square, each of them fits
    const low = Math.sqrt(smallest / aspect);
    const high = Math.min(1, Math.sqrt(1 / aspect), 1 / aspect);
    const height = low + (high - low) * random();
    const width = Math.min(1, height * aspect);
    return { top: random() * (1 - height), left: random() * (1 - width), height, width };
  }

  return { WHOLE, render, mix, inception };
})();
