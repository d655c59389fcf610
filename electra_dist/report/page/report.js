"use strict";
// Draws the charts of a report from the numbers that stand in the page, and again when a switch is
// turned. Texts of users reach the plotting library escaped, and the page only as text.
(() => {
  const page = JSON.parse(document.getElementById("report-data").textContent);
  const form = document.getElementById("controls");
  const COLOURS = 7;
  const DASHES = ["solid", "dash", "dot", "dashdot"];
  const DASH_ARRAYS = ["", "8 5", "2 4", "8 4 2 4"];
  const SYMBOLS = ["circle", "square", "diamond", "triangle-up", "x"];
  const PATTERNS = ["", "/", "x", "-", "|", "+", ".", "\\"];
  const PRINT_WIDTH = 330;
  const PRINT_WIDE = 680;

  const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const colourOf = (run) => css(`--run-${run % COLOURS}`);
  const escaped = (text) =>
    text.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;").replace(/%/g, "&#37;");
  const plotOf = (key) => document.getElementById(`plot-${key}`);

  function chosen() {
    const data = new FormData(form);
    const hidden = new Set();
    for (const box of document.querySelectorAll(".show-run")) {
      if (!box.checked) hidden.add(Number(box.value));
    }
    return {
      axis: page.axes.find((axis) => axis.key === data.get("axis")),
      height: data.get("height"),
      raw: data.has("raw"),
      smoothed: data.has("smoothed"),
      heldOut: data.has("held-out"),
      marks: data.has("marks"),
      hidden,
    };
  }

  // --- traces ---------------------------------------------------------------------------------

  function tracesOf(curve, wanted) {
    const run = page.runs[curve.run];
    const colour = colourOf(curve.run);
    const dash = DASHES[curve.run % DASHES.length];
    const name = escaped(run.label);
    const x = curve.rows.map((row) => run.places[wanted.axis.key][row]);
    const shared = { x, mode: "lines", showlegend: false, name };
    const traces = [];
    if (wanted.raw && x.length) {
      const faint = wanted.smoothed ? 0.4 : 1;
      traces.push({
        ...shared,
        y: curve.values,
        opacity: faint,
        line: { color: colour, width: wanted.smoothed ? 1 : 1.75, dash },
        hovertemplate: "%{fullData.name}<br>raw %{y} at %{x}<extra></extra>",
      });
    }
    if (wanted.smoothed && x.length) {
      traces.push({
        ...shared,
        y: curve.smoothed,
        line: { color: colour, width: 2.25, dash },
        hovertemplate: "%{fullData.name}<br>smoothed %{y} at %{x}<extra></extra>",
      });
    }
    if (wanted.heldOut && curve.held_out.length) {
      traces.push({
        x: curve.held_out_rows.map((row) => run.held_out_places[wanted.axis.key][row]),
        y: curve.held_out,
        mode: "markers",
        showlegend: false,
        name,
        marker: {
          color: colour,
          size: 8,
          symbol: SYMBOLS[curve.run % SYMBOLS.length],
          line: { color: css("--back"), width: 1 },
        },
        hovertemplate: "%{fullData.name}<br>held out %{y} at %{x}<extra></extra>",
      });
    }
    return traces;
  }

  function markTrace(number, wanted) {
    const run = page.runs[number];
    return {
      x: run.marks.places[wanted.axis.key],
      y: run.marks.texts.map(() => 1),
      yaxis: "y2",
      mode: "markers",
      showlegend: false,
      marker: { symbol: "triangle-down", size: 9, color: colourOf(number) },
      text: run.marks.texts.map((text) => `${escaped(run.label)}<br>${escaped(text)}`),
      hovertemplate: "%{text}<extra></extra>",
    };
  }

  function markLines(number, wanted) {
    const places = page.runs[number].marks.places[wanted.axis.key];
    return places
      .filter((place) => place !== null)
      .map((place) => ({
        type: "line",
        x0: place,
        x1: place,
        yref: "paper",
        y0: 0,
        y1: 1,
        line: { color: colourOf(number), width: 1, dash: "dot" },
      }));
  }

  function bandTraces(band) {
    const colour = css("--quiet");
    const shared = { x: band.steps, mode: "lines", showlegend: false, line: { width: 0 } };
    const told = `${escaped(band.name)}<br>%{y} at %{x}<extra>reference</extra>`;
    return [
      { ...shared, y: band.low, hoverinfo: "skip" },
      { ...shared, y: band.high, fill: "tonexty", fillcolor: css("--band"), hoverinfo: "skip" },
      {
        ...shared,
        y: band.middle,
        line: { color: colour, width: 1, dash: "longdash" },
        hovertemplate: told,
      },
    ];
  }

  // --- layout ---------------------------------------------------------------------------------

  function baseLayout() {
    return {
      autosize: true,
      margin: { l: 54, r: 12, t: 12, b: 42 },
      paper_bgcolor: css("--back"),
      plot_bgcolor: css("--back"),
      font: { color: css("--text"), size: 12, family: "system-ui, sans-serif" },
      hovermode: "closest",
      hoverlabel: { bgcolor: css("--raised"), font: { color: css("--text") } },
    };
  }

  // Small numbers as powers of ten, large ones with a prefix, all others as they are.
  function tickStyle(chart) {
    const largest = Math.max(...(chart.range || [1]).map(Math.abs));
    if (largest >= 1e4) return { tickformat: ".5~s" };
    if (largest < 1e-2) return { exponentformat: "power", showexponent: "all" };
    return { exponentformat: "none" };
  }

  function layoutOf(chart, wanted, drawn) {
    const lines = { gridcolor: css("--line"), zerolinecolor: css("--line"), linecolor: css("--line") };
    const y = { ...lines, type: wanted.height === "log" ? "log" : "linear", nticks: 6 };
    Object.assign(y, tickStyle(chart));
    if (wanted.height === "close" && chart.range) y.range = chart.range;
    else y.autorange = true;
    const shapes = [];
    const annotations = [];
    for (const level of chart.levels) {
      const shown = wanted.height === "log" ? Math.log10(level.value) : level.value;
      const away = wanted.height === "close" && chart.range;
      if (away && (level.value < chart.range[0] || level.value > chart.range[1])) continue;
      shapes.push({
        type: "line",
        xref: "paper",
        x0: 0,
        x1: 1,
        y0: level.value,
        y1: level.value,
        line: { color: css("--quiet"), width: 1, dash: "dash" },
      });
      annotations.push({
        xref: "paper",
        x: 1,
        xanchor: "right",
        y: shown,
        yanchor: "bottom",
        text: level.text,
        showarrow: false,
        font: { color: css("--quiet"), size: 11 },
        bgcolor: css("--back"),
        borderpad: 1,
      });
    }
    if (wanted.marks) drawn.forEach((run) => shapes.push(...markLines(run, wanted)));
    return {
      ...baseLayout(),
      uirevision: `${wanted.axis.key} ${wanted.height}`,
      xaxis: {
        ...lines,
        title: { text: wanted.axis.label, standoff: 6 },
        rangemode: "tozero",
        tickformat: wanted.axis.key === "hours" ? "" : "~s",
        exponentformat: "SI",
        nticks: 6,
      },
      yaxis: y,
      yaxis2: { overlaying: "y", range: [0, 1.02], visible: false, fixedrange: true },
      shapes,
      annotations,
    };
  }

  const CONFIG = {
    displaylogo: false,
    responsive: true,
    displayModeBar: "hover",
    modeBarButtonsToRemove: ["select2d", "lasso2d", "zoomIn2d", "zoomOut2d"],
  };

  // --- drawing --------------------------------------------------------------------------------

  function draw(chart, wanted) {
    const curves = chart.curves.filter((curve) => !wanted.hidden.has(curve.run));
    const drawn = [...new Set(curves.map((curve) => curve.run))];
    const traces = [];
    if (chart.band && wanted.axis.key === "steps") traces.push(...bandTraces(chart.band));
    for (const curve of curves) traces.push(...tracesOf(curve, wanted));
    if (wanted.marks) drawn.forEach((run) => traces.push(markTrace(run, wanted)));
    Plotly.react(plotOf(chart.key), traces, layoutOf(chart, wanted, drawn), CONFIG);
  }

  function drawParts() {
    const parts = page.parts;
    if (!parts.runs.length) return;
    const labels = parts.runs.map((run) => escaped(page.runs[run].label));
    const traces = parts.names.map((name, part) => ({
      type: "bar",
      orientation: "h",
      name,
      y: parts.runs.map((_, place) => place),
      x: parts.seconds[part],
      marker: {
        color: colourOf(part),
        pattern: {
          shape: PATTERNS[part % PATTERNS.length],
          fillmode: "overlay",
          fgcolor: css("--back"),
          size: 7,
          solidity: 0.2,
        },
      },
      hovertemplate: `${name}: %{x:.4f} s<extra></extra>`,
    }));
    const layout = {
      ...baseLayout(),
      barmode: "stack",
      height: 150 + 34 * labels.length,
      xaxis: { title: { text: "seconds of a step" }, gridcolor: css("--line") },
      yaxis: {
        automargin: true,
        autorange: "reversed",
        tickvals: labels.map((_, place) => place),
        ticktext: labels,
      },
      legend: { orientation: "h", y: 1.02, yanchor: "bottom", x: 0, traceorder: "normal" },
    };
    const place = plotOf("parts");
    place.classList.add("bars");
    Plotly.react(place, traces, layout, CONFIG);
  }

  // Curves in the unit square: `pick` gives the points of an evaluation, `titles` name the axes.
  function drawSquare(key, pick, titles, wanted) {
    const place = plotOf(key);
    if (!place) return;
    const diagonal = {
      x: [0, 1],
      y: [0, 1],
      mode: "lines",
      showlegend: false,
      hoverinfo: "skip",
      line: { color: css("--quiet"), width: 1, dash: "dash" },
    };
    const traces = [diagonal];
    for (const evaluation of page.evaluations) {
      if (wanted.hidden.has(evaluation.run)) continue;
      const points = pick(evaluation);
      traces.push({
        x: points.map((point) => point[0]),
        y: points.map((point) => point[1]),
        mode: points.length > 30 ? "lines" : "lines+markers",
        showlegend: false,
        name: escaped(`${page.runs[evaluation.run].label}, step ${evaluation.step}`),
        line: { color: colourOf(evaluation.run), width: 2, dash: DASHES[evaluation.run % DASHES.length] },
        marker: { symbol: SYMBOLS[evaluation.run % SYMBOLS.length], size: 7 },
        hovertemplate: "%{fullData.name}<br>%{y:.3f} at %{x:.3f}<extra></extra>",
      });
    }
    const axis = { range: [0, 1], gridcolor: css("--line"), zerolinecolor: css("--line"), nticks: 6 };
    const layout = {
      ...baseLayout(),
      xaxis: { ...axis, title: { text: titles[0], standoff: 6 } },
      yaxis: { ...axis, title: { text: titles[1], standoff: 6 } },
    };
    Plotly.react(place, traces, layout, CONFIG);
  }

  function drawEvaluations(wanted) {
    drawSquare("roc", (one) => one.roc, ["originals called replaced", "replaced found"], wanted);
    drawSquare("calibration", (one) => one.calibration, ["probability", "are replaced"], wanted);
  }

  function paintSwatches() {
    for (const swatch of document.querySelectorAll(".swatch")) {
      const run = Number(swatch.dataset.run);
      swatch.style.stroke = `var(--run-${run % COLOURS})`;
      swatch.style.strokeDasharray = DASH_ARRAYS[run % DASH_ARRAYS.length];
    }
  }

  function drawAll() {
    const wanted = chosen();
    drawParts();
    drawEvaluations(wanted);
    for (const chart of page.charts) draw(chart, wanted);
    document.documentElement.dataset.drawn = wanted.axis.key;
  }

  function say() {
    const wanted = chosen();
    document.getElementById("said").textContent = `Charts drawn over ${wanted.axis.label}.`;
  }

  // --- sorting --------------------------------------------------------------------------------

  function sort(button) {
    const heading = button.closest("th");
    const column = heading.cellIndex;
    const ascending = heading.getAttribute("aria-sort") !== "ascending";
    for (const other of heading.parentElement.cells) other.setAttribute("aria-sort", "none");
    heading.setAttribute("aria-sort", ascending ? "ascending" : "descending");
    const body = heading.closest("table").tBodies[0];
    const orderOf = (row) => row.cells[column].dataset.order;
    const rows = [...body.rows].sort((one, other) => {
      const [a, b] = [orderOf(one), orderOf(other)];
      if (a === "" || b === "") return (a === "") - (b === ""); // what is not known stays last
      const numbers = [Number(a), Number(b)];
      const order = numbers.some(Number.isNaN) ? a.localeCompare(b) : numbers[0] - numbers[1];
      return ascending ? order : -order;
    });
    body.append(...rows);
  }

  // --- printing -------------------------------------------------------------------------------

  function eachPlot(work) {
    for (const place of document.querySelectorAll(".plot.js-plotly-plot")) {
      if (place.offsetParent !== null) work(place);
    }
  }

  function beforePrint() {
    document.documentElement.classList.add("printing");
    drawAll();
    eachPlot((place) => {
      const width = place.classList.contains("bars") ? PRINT_WIDE : PRINT_WIDTH;
      Plotly.relayout(place, { width, autosize: false });
    });
  }

  function afterPrint() {
    document.documentElement.classList.remove("printing");
    drawAll();
    eachPlot((place) => Plotly.relayout(place, { width: null, autosize: true }));
  }

  paintSwatches();
  drawAll();
  form.addEventListener("change", () => {
    drawAll();
    say();
  });
  form.addEventListener("submit", (event) => event.preventDefault());
  for (const box of document.querySelectorAll(".show-run")) box.addEventListener("change", drawAll);
  for (const button of document.querySelectorAll(".sortable button")) {
    button.addEventListener("click", () => sort(button));
  }
  for (const folded of document.querySelectorAll("details.charts-folded")) {
    folded.addEventListener("toggle", () => {
      for (const place of folded.querySelectorAll(".js-plotly-plot")) Plotly.Plots.resize(place);
    });
  }
  window.addEventListener("beforeprint", beforePrint);
  window.addEventListener("afterprint", afterPrint);
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);
})();
