// The behaviour of the explorer: the controls change one state, and plot and table follow. Bokeh's models are found by
// name, because the page's policy forbids eval, which Bokeh's CustomJS needs.
"use strict";

// Text that a spreadsheet would take for a formula.
const FORMULA = /^[=+\-@\t\r]/;
const NEEDS_QUOTES = /[",\r\n]/;
const VIEW = "#view:";
const CHOICES = ["family", "kind", "group", "size", "extra"];
const SETTLED_MS = 150;
const MOST_NAMED = 30;

function words_of(text) {
  return text.toLowerCase().split(/[\s,]+/).filter((word) => word.length > 0);
}

function cell_of(value) {
  if (value === null || Number.isNaN(value)) return "";
  const is_formula = typeof value === "string" && FORMULA.test(value);
  const text = is_formula ? "'" + value : String(value);
  return NEEDS_QUOTES.test(text) ? '"' + text.replaceAll('"', '""') + '"' : text;
}

function csv_of(source, rows) {
  const tags = [...source.tags, ["rank", "rank"], ["ranks", "ranks"]];
  const columns = tags.map(([key, _]) => source.data[key]);
  const lines = [tags.map(([_, head]) => cell_of(head))];
  for (const i of rows) lines.push(columns.map((column) => cell_of(column[i])));
  return lines.map((cells) => cells.join(",") + "\n").join("");
}

function download(text, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], {type: "text/csv"}));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

function fixed(number, digits) {
  return Number.isFinite(number) ? number.toFixed(digits).replace("-", "\u2212") : "\u2013";
}

function element(name, text = "", children = []) {
  const made = document.createElement(name);
  made.textContent = text;
  made.append(...children);
  return made;
}

class ExplorerView {
  constructor(model, settings) {
    this.model = model;
    this.settings = settings;
    this.table = model("models");
    this.source = this.table.source;
    this.kept = this.table.view.filter;
    this.filters = CHOICES.map((name) => model(name)).filter((select) => select !== null);
    this.applying = false;
    this.timer = null;
  }

  get names() {
    const {model, size} = this.source.data;
    return model.map((name, i) => (Number.isFinite(size[i]) ? name + "@" + size[i] : name));
  }

  // The choices that differ from the defaults, as text by name.
  state() {
    const {model, settings, source} = this;
    const chosen = {
      x: model("across").value === settings.start[0] ? "" : model("across").value,
      y: model("up").value === settings.start[1] ? "" : model("up").value,
      text: model("text").value_input,
      most: model("most").value === null ? "" : String(model("most").value),
      only: model("only").active.length > 0 ? "1" : "",
    };
    for (const select of this.filters) chosen[select.name] = select.value;
    const selected = source.selected.indices;
    const {names} = this;
    chosen.models = selected.length <= MOST_NAMED ? selected.map((i) => names[i]).join(" ") : "";
    return Object.fromEntries(Object.entries(chosen).filter(([_, value]) => value !== ""));
  }

  // Set every control to the state.
  apply(state) {
    const {model, settings, source} = this;
    const offered = (select, value) => select.options.some((option) => (Array.isArray(option) ? option[0] : option) === value);
    this.applying = true;
    [["across", "x", 0], ["up", "y", 1]].forEach(([picker, name, place]) => {
      const value = state[name] ?? settings.start[place];
      model(picker).value = offered(model(picker), value) ? value : settings.start[place];
    });
    model("text").value = state.text ?? "";
    model("text").value_input = state.text ?? "";
    model("most").value = state.most && Number.isFinite(Number(state.most)) ? Number(state.most) : null;
    for (const select of this.filters) {
      const value = state[select.name] ?? "";
      select.value = offered(select, value) ? value : "";
    }
    const wanted = new Set((state.models ?? "").split(" "));
    source.selected.indices = this.names.flatMap((name, i) => (wanted.has(name) ? [i] : []));
    model("only").active = state.only && source.selected.indices.length > 0 ? [0] : [];
    this.applying = false;
    this.pick();
  }

  connect() {
    const {model, source} = this;
    const follow = (one, property, then) => one.connect(one.properties[property].change, () => {
      if (!this.applying) then();
    });
    const pick = () => this.pick(), filter = () => this.filter();
    follow(model("across"), "value", pick);
    follow(model("up"), "value", pick);
    follow(model("text"), "value_input", filter);
    follow(model("most"), "value", filter);
    follow(model("only"), "active", filter);
    for (const select of this.filters) follow(select, "value", filter);
    source.selected.connect(source.selected.properties.indices.change, () => {
      if (this.applying) return;
      if (model("only").active.length > 0) this.filter();
      else this.remember();
      this.describe();
    });
    model("clear").on_event("button_click", () => this.apply({}));
    model("save").on_event("button_click", () => download(csv_of(source, this.kept.indices), "models.csv"));
    addEventListener("hashchange", () => this.restore());
  }

  restore() {
    if (!location.hash.startsWith(VIEW)) return false;
    this.apply(Object.fromEntries(new URLSearchParams(location.hash.slice(VIEW.length))));
    return true;
  }

  remember() {
    const view = new URLSearchParams(this.state()).toString();
    const before = location.hash.startsWith(VIEW) || location.hash === "" ? "" : location.hash;
    history.replaceState(null, "", view ? VIEW + view : before || location.pathname + location.search);
  }

  title(picker) {
    const select = this.model(picker);
    return select.options.find(([key, _]) => key === select.value)[1];
  }

  // The column that ranks the models, signed so that more is better.
  get ranked() {
    const name = this.model(this.settings.ranked === "x" ? "across" : "up").value;
    return {name, sign: this.settings.falling.includes(name) ? -1 : 1};
  }

  // Change the score or accuracy.
  pick() {
    const {model, source, ranked} = this;
    const data = {...source.data};
    data.x = data[model("across").value].slice();
    data.y = data[model("up").value].slice();
    data.error = Float64Array.from(data[ranked.name + " se"] ?? data.x.map(() => NaN));
    this.put_in_order(data, ranked);
    for (const [axis, picker] of [["x axis", "across"], ["y axis", "up"]]) {
      model(axis).axis_label = new Bokeh.Models.PlainText({text: this.title(picker)});
    }
    const heads = {x: this.title("across"), y: this.title("up")};
    for (const column of this.table.columns) {
      if (column.field in heads) column.title = element("span", heads[column.field]).innerHTML;
      if (column.field === "params_m") column.visible = ![model("across").value, model("up").value].includes("params_m");
    }
    this.table.columns = [...this.table.columns];
    this.filter(data);
  }

  // Sort every column, best first, and keep the selection.
  put_in_order(data, {name, sign}) {
    const value = (i) => (Number.isFinite(data[name][i]) ? -sign * data[name][i] : Infinity);
    const order = Array.from(data.model.keys()).sort((i, j) => value(i) - value(j) || i - j);
    for (const [key, column] of Object.entries(data)) {
      const moved = order.map((i) => column[i]);
      data[key] = typeof moved[0] === "number" ? Float64Array.from(moved) : moved;
    }
    const selected = new Set(this.source.selected.indices);
    this.applying = true;
    this.source.selected.indices = order.flatMap((i, place) => (selected.has(i) ? [place] : []));
    this.applying = false;
  }

  is_meant(data) {
    const {model, source} = this;
    const words = words_of(model("text").value_input), most = model("most").value;
    const selected = model("only").active.length > 0 ? new Set(source.selected.indices) : null;
    return (i) => {
      const about = [data.model[i], data.family[i], data.kind[i], data.group[i]].join(" ").toLowerCase();
      return (words.length === 0 || words.some((word) => about.includes(word)))
        && (most === null || data.params_m === undefined || data.params_m[i] <= most)
        && this.filters.every((select) => select.value === "" || String(data[select.name][i]) === select.value)
        && (selected === null || selected.has(i));
    };
  }

  // Change the models; plot, table, ranks, statistics and download follow.
  filter(data = {...this.source.data}) {
    const kept = Array.from(data.model.keys()).filter(this.is_meant(data));
    this.rank(data, kept);
    this.source.data = data;
    this.kept.indices = kept;
    this.table.view.change.emit();  // else a table of the same rows keeps the old numbers
    this.remember();
    clearTimeout(this.timer);
    this.timer = setTimeout(() => { this.show_statistics(); this.describe(); }, SETTLED_MS);
  }

  rank(data, kept) {
    const {sign} = this.ranked;
    const found = ranks_of(kept.map((i) => sign * data[this.settings.ranked][i]), kept.map((i) => data.error[i]), this.settings);
    data.rank = new Float64Array(data.model.length).fill(NaN);
    data.ranks = data.model.map(() => "");
    kept.forEach((i, place) => {
      const {rank, low, high} = found[place];
      data.rank[i] = rank;
      if (Number.isFinite(low)) data.ranks[i] = low === high ? "no other" : low + " to " + high;
    });
  }

  // Show the correlation over the models in view.
  show_statistics() {
    const {data} = this.source;
    const rows = this.kept.indices.filter((i) => data.first[i] && Number.isFinite(data.x[i]) && Number.isFinite(data.y[i]));
    const [x, y, unit] = [data.x, data.y, data.unit].map((column) => rows.map((i) => column[i]));
    const [some, all] = [this.kept.indices.length, data.model.length];
    const rho = spearman(x, y), found = family_interval(x, y, unit, this.settings);
    const reported = this.settings.intervals[this.model("across").value]?.[this.model("up").value];
    if (some === all && found !== null && reported) [found.low, found.high] = reported;
    const shown = (some === all ? "All " + all : some + " of " + all) + " models are shown. ";
    const range = found === null
      ? " (too few " + this.settings.unit + " for an interval)"
      : " (95% interval " + fixed(found.low, 2) + " to " + fixed(found.high, 2) + " over " + found.units + " " + this.settings.unit + ")";
    const pair = this.title("across") + " and " + this.title("up");
    const words = Number.isNaN(rho)
      ? pair + ": too few models, or no variation."
      : pair + ": Spearman\u2019s rho = " + fixed(rho, 2) + range + ".";
    const caution = some === all ? "" : " Models chosen after a look at the results make the interval too optimistic: treat it as a hint.";
    document.getElementById("explorer-statistics").textContent = shown + words + caution;
  }

  // Show the facts of the selected model, and how to load it.
  describe() {
    const place = document.getElementById("explorer-model"), {data} = this.source;
    place.replaceChildren();
    const selected = this.source.selected.indices;
    if (selected.length !== 1) {
      place.append(element("p", "Click a model in the plot or the table for its facts, its scores and the code that loads it."));
      return;
    }
    const [i] = selected;
    place.append(element("h3", this.names[i]));
    const facts = Object.entries(this.settings.facts).map(([name, head]) => [head, String(data[name][i])]);
    const numbers = this.source.tags.filter(([key, _]) => !(key in this.settings.facts) && typeof data[key][i] === "number");
    const with_error = (key) => {
      const error = data[key + " se"]?.[i];
      return fixed(data[key][i], 3) + (Number.isFinite(error) ? " \u00b1 " + fixed(error, 3) : "");
    };
    const list = element("dl");
    const {titles} = this.settings;
    for (const [head, value] of [...facts, ...numbers.map(([key, name]) => [titles[key] ?? name, with_error(key)])]) {
      if (value !== "" && value !== "\u2013") list.append(element("dt", head), element("dd", value));
    }
    if (data.code[i] !== "") place.append(element("pre", "", [element("code", data.code[i])]));
    place.append(list);
  }
}

// The text of an element that has it compressed, in base64.
async function unpacked(id) {
  const bytes = Uint8Array.from(atob(document.getElementById(id).textContent), (letter) => letter.charCodeAt(0));
  return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"))).text();
}

async function start() {
  const [library, models] = await Promise.all([unpacked("explorer-library"), unpacked("explorer-models")]);
  document.head.append(element("script", library));
  await Bokeh.embed.embed_item(JSON.parse(models), "explorer");
  const settings = JSON.parse(document.getElementById("explorer-settings").textContent);
  const view = new ExplorerView((name) => Bokeh.documents[0].get_model_by_name(name), settings);
  view.connect();
  if (view.restore()) document.getElementById("explore").scrollIntoView();
  else view.pick();
}

start();
