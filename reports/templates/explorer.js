// What the explorer does. It meets Bokeh's models by their names: the page's policy forbids code made of text while the
// page is open, which is how Bokeh would run a CustomJS.
"use strict";

// Words of catalogues that a spreadsheet would take for a formula.
const FORMULA = /^[=+\-@\t\r]/;
const NEEDS_QUOTES = /[",\r\n]/;

function words_of(text) {
  return text.toLowerCase().split(/[\s,]+/).filter((word) => word.length > 0);
}

function cell_of(value) {
  if (value === null || Number.isNaN(value)) return "";
  const is_formula = typeof value === "string" && FORMULA.test(value);
  const text = is_formula ? "'" + value : String(value);
  return NEEDS_QUOTES.test(text) ? '"' + text.replaceAll('"', '""') + '"' : text;
}

function csv_of(source) {
  const columns = source.tags.map(([key, _]) => source.data[key]);
  const lines = [source.tags.map(([_, head]) => cell_of(head))];
  for (let i = 0; i < source.data.model.length; i++) lines.push(columns.map((column) => cell_of(column[i])));
  return lines.map((cells) => cells.join(",") + "\n").join("");
}

function download(text, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], {type: "text/csv"}));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

function attach(model) {
  const table = model("models");
  const source = table.source;
  const [text, only] = [model("filter"), model("only")];

  const choose = (select, axis, name) => {
    const [_, title] = select.options.find(([key, _]) => key === select.value);
    source.data[name] = source.data[select.value].slice();
    axis.axis_label = new Bokeh.Models.PlainText({text: title});
    source.change.emit();
  };
  const filter = () => {
    const words = words_of(text.value_input);
    const selected = new Set(source.selected.indices);
    const {model, family, kind, group} = source.data;
    const kept = [];
    for (let i = 0; i < model.length; i++) {
      const about = [model[i], family[i], kind[i], group[i]].join(" ").toLowerCase();
      const is_meant = words.length === 0 || words.some((word) => about.includes(word));
      if (is_meant && (only.active.length === 0 || selected.has(i))) kept.push(i);
    }
    table.view.filter.indices = kept;
  };
  const filter_selected = () => {
    if (only.active.length > 0) filter();
  };

  const [score, accuracy] = [model("score"), model("accuracy")];
  score.connect(score.properties.value.change, () => choose(score, model("x axis"), "x"));
  accuracy.connect(accuracy.properties.value.change, () => choose(accuracy, model("y axis"), "y"));
  text.connect(text.properties.value_input.change, filter);
  only.connect(only.properties.active.change, filter);
  source.selected.connect(source.selected.properties.indices.change, filter_selected);
  model("save").on_event("button_click", () => download(csv_of(source), "models.csv"));
}

async function start() {
  const drawn = JSON.parse(document.getElementById("explorer-models").textContent);
  await Bokeh.embed.embed_item(drawn, "explorer");
  attach((name) => Bokeh.documents[0].get_model_by_name(name));
}

start();
