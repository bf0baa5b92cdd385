// Heat maps and spectrograms on canvases. Knows numbers and colors, no server.

// The colors of `looklisten localize`: Matplotlib's inferno without its darkest part, and bone.
const HEAT_STOPS = [
  [106, 23, 110],
  [143, 36, 105],
  [177, 50, 90],
  [210, 70, 68],
  [234, 99, 42],
  [248, 135, 14],
  [252, 178, 22],
  [244, 221, 79],
  [252, 255, 164],
];
const SOUND_STOPS = [
  [0, 0, 0],
  [56, 56, 78],
  [112, 123, 144],
  [169, 200, 200],
  [255, 255, 255],
];
const BASE_BRIGHTNESS = 0.72;
const HIGHEST_OPACITY = 0.85;
const LEVELS = Array.from({ length: 256 }, (_, level) => level / 255);

const clamp = (value, low, high) => Math.min(Math.max(value, low), high);
const between = (a, b, share) => a + (b - a) * share;

function colorAt(stops, position) {
  const place = position * (stops.length - 1);
  const first = Math.min(Math.floor(place), stops.length - 2);
  return stops[first].map((value, channel) =>
    between(value, stops[first + 1][channel], place - first),
  );
}

// `localize` mixes image x factor + color. The same as one color with an opacity:
const HEAT_COLORS = LEVELS.map((level) => {
  const intensity = Math.sqrt(level);
  const opacity = HIGHEST_OPACITY * intensity ** 1.5;
  const covered = 1 - BASE_BRIGHTNESS * (1 - opacity);
  const color = colorAt(HEAT_STOPS, intensity).map((value) => (value * opacity) / covered);
  return [...color, 255 * covered];
});
const SOUND_COLORS = LEVELS.map((level) => [...colorAt(SOUND_STOPS, level), 255]);

function paint(canvas, rows, colors) {
  const width = rows[0].length;
  const pixels = new ImageData(width, rows.length);
  rows.forEach((row, y) => {
    row.forEach((level, x) => pixels.data.set(colors[level], 4 * (y * width + x)));
  });
  canvas.width = width;
  canvas.height = rows.length;
  canvas.getContext("2d").putImageData(pixels, 0, 0);
}

// For each place of an enlarged map: the two cells beside it, and the share of the second.
function neighbors(cells, factor) {
  return Array.from({ length: cells * factor }, (_, pixel) => {
    const place = clamp((pixel + 0.5) / factor - 0.5, 0, cells - 1);
    const first = Math.floor(place);
    return [first, Math.min(first + 1, cells - 1), place - first];
  });
}

// Colors are chosen after enlarging, so that a browser's own enlarging makes no false colors.
function enlarged(rows, factor) {
  const columns = neighbors(rows[0].length, factor);
  const wide = rows.map((row) =>
    columns.map(([left, right, share]) => between(row[left], row[right], share)),
  );
  return neighbors(rows.length, factor).map(([above, below, share]) =>
    wide[above].map((value, x) => between(value, wide[below][x], share)),
  );
}

// A map with values from 0 to 1, rows from top to bottom.
export function paintHeat(canvas, rows) {
  const levels = enlarged(rows, 8).map((row) =>
    row.map((value) => Math.round(255 * clamp(value, 0, 1))),
  );
  paint(canvas, levels, HEAT_COLORS);
}

// Levels from 0 to 255, rows from low to high frequencies.
export function paintSpectrogram(canvas, levels) {
  paint(canvas, levels.toReversed(), SOUND_COLORS);
}

export function clear(canvas) {
  canvas.getContext("2d").clearRect(0, 0, canvas.width, canvas.height);
}

export function mixedMaps(first, second, share) {
  return first.map((row, y) => row.map((value, x) => between(value, second[y][x], share)));
}
