// Statistics of the chosen models: pure functions of arrays, with the same results as reports/statistics/bootstrap.py.
"use strict";

const RESAMPLES = 1000;
// Nearer to 1, Fisher's transformation is infinite up to rounding.
const NEARLY_ONE = 1 - 1e-12;
// The probabilities of the standard normal distribution at -1 and 1.
const MIDDLE = [0.15865525393145707, 0.8413447460685429];

function sum(numbers) {
  let total = 0;
  for (let i = 0; i < numbers.length; i++) total += numbers[i];
  return total;
}

function order_of(x) {
  return Int32Array.from(x.keys()).sort((i, j) => x[i] - x[j]);
}

// Centred ranks of x under weights, mean ranks for ties; order sorts x.
function centred_ranks(x, order, weights) {
  const ranks = new Float64Array(x.length);
  const half = sum(weights) / 2;
  let below = 0;
  for (let start = 0; start < order.length;) {
    let end = start, tied = 0;
    while (end < order.length && x[order[end]] === x[order[start]]) tied += weights[order[end++]];
    for (let place = start; place < end; place++) ranks[order[place]] = below + tied / 2 - half;
    below += tied;
    start = end;
  }
  return ranks;
}

function correlation(a, b, weights) {
  let aa = 0, bb = 0, ab = 0;
  for (let i = 0; i < a.length; i++) {
    aa += weights[i] * a[i] * a[i];
    bb += weights[i] * b[i] * b[i];
    ab += weights[i] * a[i] * b[i];
  }
  return aa > 0 && bb > 0 ? Math.max(-1, Math.min(1, ab / Math.sqrt(aa * bb))) : NaN;
}

function spearman(x, y) {
  const once = new Float64Array(x.length).fill(1);
  return correlation(centred_ranks(x, order_of(x), once), centred_ranks(y, order_of(y), once), once);
}

// Random numbers in [0, 1), the same on every visit: a 32-bit linear congruential generator.
function generator(seed) {
  let state = seed >>> 0;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 4294967296;
  };
}

// The number of each family, from 0, in order of appearance.
function numbered(units) {
  const numbers = new Map();
  return units.map((unit) => numbers.get(unit) ?? numbers.set(unit, numbers.size).get(unit));
}

// Spearman's rho in resamples of whole families.
function resampled(x, y, unit, units) {
  const [order_x, order_y, random] = [order_of(x), order_of(y), generator(0)];
  const drawn = [], weights = new Float64Array(x.length);
  for (let b = 0; b < RESAMPLES; b++) {
    const count = new Float64Array(units);
    for (let draw = 0; draw < units; draw++) count[Math.floor(random() * units)]++;
    for (let i = 0; i < weights.length; i++) weights[i] = count[unit[i]];
    const rho = correlation(centred_ranks(x, order_x, weights), centred_ranks(y, order_y, weights), weights);
    if (!Number.isNaN(rho)) drawn.push(rho);
  }
  return drawn;
}

function quantile(sorted, share) {
  const place = share * (sorted.length - 1), low = Math.floor(place);
  const high = Math.min(low + 1, sorted.length - 1);
  return sorted[low] + (place - low) * (sorted[high] - sorted[low]);
}

// The share of the variance between families.
function shared_part(unit, sizes, numbers) {
  const families = sizes.length, n = unit.length;
  if (families < 2 || families >= n) return 0;
  const total = new Float64Array(families), mean = sum(numbers) / n;
  numbers.forEach((number, i) => { total[unit[i]] += number; });
  let within = 0, between = 0;
  numbers.forEach((number, i) => { within += (number - total[unit[i]] / sizes[unit[i]]) ** 2; });
  sizes.forEach((size, g) => { between += size * (total[g] / size - mean) ** 2; });
  within /= n - families;
  const usual = (n - sum(sizes.map((size) => size * size)) / n) / (families - 1);
  const variance = Math.max((between / (families - 1) - within) / usual, 0);
  return variance + within > 0 ? variance / (variance + within) : 0;
}

// The small-sample correction for few, unequal families: a factor of the error, and Satterthwaite's degrees of freedom.
function precision(unit, sizes, influence) {
  const n = unit.length, r = shared_part(unit, sizes, influence);
  const a = sizes.map((size) => size * (1 + (size - 1) * r)), w = sizes.map((size) => size / n);
  const dot = (one, other) => sum(one.map((value, g) => value * other[g]));
  const [total, aa, wa, ww] = [sum(a), dot(a, a), dot(w, a), dot(w, w)];
  const trace = total - 2 * wa + total * ww;
  const off = 2 * (wa ** 2 + ww * aa) - 4 * total * wa * ww + (total * ww) ** 2;
  const square = aa + 2 * sum(a.map((value, g) => value * (total * w[g] ** 2 - 2 * w[g] * value))) + off;
  return sizes.length < 2 || trace <= 0
    ? {scale: 1, degrees: 1}
    : {scale: Math.sqrt(total / trace), degrees: Math.max(trace ** 2 / square, 1)};
}

function interpolated([at, values], wanted) {
  const next = Math.max(1, Math.min(at.findIndex((place) => place >= wanted), at.length - 1));
  const end = wanted > at[at.length - 1] ? at.length - 1 : next;
  const share = (wanted - at[end - 1]) / (at[end] - at[end - 1]);
  return values[end - 1] + Math.max(0, Math.min(1, share)) * (values[end] - values[end - 1]);
}

// The 95% interval of Spearman's rho over whole families; null with too few.
function family_interval(x, y, units, settings) {
  const unit = numbered(units), count = new Set(unit).size, n = x.length;
  const rho = spearman(x, y);
  if (count < settings.leastUnits || Number.isNaN(rho)) return null;
  const sizes = new Array(count).fill(0);
  unit.forEach((u) => { sizes[u]++; });
  const drawn = resampled(x, y, unit, count);
  if (drawn.length < RESAMPLES / 2 || Math.abs(rho) >= NEARLY_ONE) return null;
  const bound = Math.max(1 - 1 / n ** 2, Math.abs(rho));
  const z = drawn.map((value) => Math.atanh(Math.max(-bound, Math.min(bound, value)))).sort((a, b) => a - b);
  const once = new Float64Array(n).fill(1);
  const [rank_x, rank_y] = [x, y].map((values) => {
    const ranks = centred_ranks(values, order_of(values), once);
    const deviation = Math.sqrt(sum(ranks.map((rank) => rank * rank)) / n);
    return ranks.map((rank) => rank / deviation);
  });
  const influence = Array.from(rank_x, (a, i) => a * rank_y[i] - rho / 2 * (a ** 2 + rank_y[i] ** 2));
  const {scale, degrees} = precision(unit, sizes, influence);
  const error = (quantile(z, MIDDLE[1]) - quantile(z, MIDDLE[0])) / 2;
  const half = interpolated(settings.student, 1 / degrees) * scale * error;
  return {low: Math.tanh(Math.atanh(rho) - half), high: Math.tanh(Math.atanh(rho) + half), units: count};
}

// Each value's rank, 1 the greatest, and the simultaneous 95% range of the rank.
// Errors are treated as independent; scores on the same images are not, so the ranges are too wide.
function ranks_of(values, errors, settings) {
  const known = values.map((value) => Number.isFinite(value)), n = sum(known.map(Number));
  const reach = n > 1 ? interpolated(settings.normal, Math.log(n - 1)) : 0;
  const squares = errors.map((error) => error * error);  // Math.hypot takes ten times as long as a root
  return values.map((value, i) => {
    if (!known[i]) return {rank: NaN, low: NaN, high: NaN};
    let above = 0, surely_above = 0, surely_below = 0;
    for (let j = 0; j < values.length; j++) {
      if (!known[j] || j === i) continue;
      if (values[j] > value) above++;
      const margin = reach * Math.sqrt(squares[i] + squares[j]);
      if (values[j] - value > margin) surely_above++;
      if (value - values[j] > margin) surely_below++;
    }
    const has_error = Number.isFinite(errors[i]);
    return {rank: above + 1, low: has_error ? surely_above + 1 : NaN, high: has_error ? n - surely_below : NaN};
  });
}
