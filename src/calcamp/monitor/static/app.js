"use strict";
/* The page of calcamp monitor. Whatever comes from data is put in as text (textContent), never as markup. */
(() => {
const $ = (id) => document.getElementById(id);
const make = (tag, text, cls) => { const e = document.createElement(tag); if (text !== undefined && text !== null) e.textContent = text; if (cls) e.className = cls; return e; };
const MARKS = { inside: "✓", near: "≈", out: "✕", muted: "–", stale: "…", none: "·" };
const ARROWS = { "1": "▲", "0": "", "-1": "▼" };
const KINDS = [["Temperatures", /TEMP/], ["CCD biases", /^(CCD\d_|COMM_|FPGA_BIAS)/], ["FPGA voltages", /^FPGA_/], ["RPSU", /^RPSU_/], ["Flags and counters", /./]];
let state = null, page = "board", token = "", rows = [], columns = [], shown = [], generation = -1, sort = null, visible = 200;
let plots = [], detail = null, obsid = null, followLast = true, failures = 0, lastPlotRows = -1, lastDetailRows = -1, imageShown = null;

/* ---- talking to the server ---- */
const fragment = new URLSearchParams(location.hash.slice(1)).get("token");
if (fragment) { try { sessionStorage.setItem("token", fragment); } catch (e) { /* private mode */ } history.replaceState(null, "", location.pathname); }
try { token = sessionStorage.getItem("token") || fragment || ""; } catch (e) { token = fragment || ""; }
let user = ""; try { user = localStorage.getItem("user") || ""; } catch (e) { /* none */ }

async function get(url) { const r = await fetch(url, { credentials: "same-origin" }); if (!r.ok) throw new Error((await r.json().catch(() => ({}))).error || "HTTP " + r.status); return r.json(); }
async function post(url, body) {
  const r = await fetch(url, { method: "POST", credentials: "same-origin", headers: { "Content-Type": "application/json", "X-Calcamp-Token": token }, body: JSON.stringify({ user, ...(body || {}) }) });
  if (!r.ok) throw new Error((await r.json().catch(() => ({}))).error || "HTTP " + r.status);
  return r.json();
}
let troubleTimer = 0;
function trouble(text, keep) { $("trouble").hidden = !text; $("trouble").textContent = text || ""; clearTimeout(troubleTimer); if (text && !keep) troubleTimer = setTimeout(() => { $("trouble").hidden = true; }, 6000); }
function act(url, body) { return post(url, body).then(poll).catch((e) => trouble(e.message)); }
const flag = (key, action, body) => act("/api/flags/" + encodeURIComponent(key) + "/" + action, body);

let polling = false;
async function poll() {
  if (polling) return;
  polling = true;
  try {
    const got = await get("/api/state?since=" + (state ? state.sequence : 0));
    if (failures) trouble("");
    failures = 0;
    if (got.folder !== undefined) { state = got; draw(); }
    await refresh();
  } catch (e) { failures += 1; if (failures > 1) trouble("No answer from the monitor: " + e.message + ". What is shown is old.", true); }
  polling = false;
}
async function loop() { await poll(); setTimeout(loop, document.hidden ? 5000 : 500); }

/* What the page in front needs beyond the state. */
async function refresh() {
  if (!state) return;
  if (page === "log" && !$("log-paused").checked) await loadLog();
  if (page === "plots" && state.hk.rows !== lastPlotRows) await loadPlots();
  if (page === "images" && followLast && state.image.last !== null && state.image.last + ":" + state.image.ccds !== imageShown) await showImage(state.image.last);
  if (detail && state.hk.rows !== lastDetailRows && $("detail").open) await loadDetail();
}

/* ---- words ---- */
const number = (v) => v === null || v === undefined ? "–" : Math.abs(v) >= 1e5 ? v.toExponential(3) : String(+v.toPrecision(5));
const ago = (t) => { if (!t) return "never"; const s = Math.max(0, Date.now() / 1000 - t); return s < 90 ? Math.round(s) + " s ago" : s < 5400 ? Math.round(s / 60) + " min ago" : (s / 3600).toFixed(1) + " h ago"; };
const clock = (t) => t ? new Date(t * 1000).toLocaleTimeString("en-GB") : "";
const UNITS = { degC: "°C", "1": "" };
const unit = (u) => u in UNITS ? UNITS[u] : u || "";
const size = (b) => b > 1e9 ? (b / 1e9).toFixed(2) + " GB" : b > 1e6 ? (b / 1e6).toFixed(1) + " MB" : b + " B";

/* ---- drawing ---- */
function draw() {
  document.title = (state.keys.some((k) => k.raised) || state.sources.some((s) => s.raised) ? "⚑ " : "") + (state.tag || state.folder) + " – calcamp monitor";
  $("folder").textContent = state.folder + (state.tag ? " · " + state.tag : "");
  drawLamps(); drawAlarms(); drawBoard();
  if (page === "session") drawSession();
  if (page === "system") drawSystem();
  if (page === "log") drawCurrent();
  if (detail) drawDetailState();
  fillPlotChoices();
}
function drawLamps() {
  const lamps = [], hk = state.hk;
  lamps.push(!state.there ? ["bad", "no day-folder"] : hk.loading ? ["busy", "HK loading " + hk.rows] : !hk.rows ? ["busy", "no HK yet"] : hk.stale ? ["bad", "HK stale, last " + hk.last] : ["good", "HK " + hk.last]);
  if (hk.bad_lines) lamps.push(["busy", hk.bad_lines + " bad HK lines"]);
  lamps.push([state.log.rows ? "good" : "busy", state.log.exposures + " exposures"]);
  const t = state.session.tests.find((x) => x.current); if (t) lamps.push(["good", t.test + " " + t.frames + "/" + t.declared]);
  if (state.session.expected_end) lamps.push(["", "session ends about " + state.session.expected_end.replace("T", " ")]);
  for (const c of state.copies) lamps.push([c.error || c.differing.length ? "bad" : c.last_success ? "good" : "busy", c.name + (c.error ? " FAILED" : c.last_success ? " ok, lag " + Math.round(c.behind_s) + " s" : " …")]);
  const dead = state.channels.filter((c) => c.failures), held = state.channels.reduce((n, c) => n + c.waiting, 0);
  if (state.channels.length) lamps.push(dead.length ? ["bad", "warnings NOT sent: " + dead.map((c) => c.name).join(", ")] : held ? ["busy", held + " warnings wait"] : ["good", "warnings on"]);
  else lamps.push(["busy", "warnings off"]);
  for (const f of state.faults) lamps.push(["bad", f]);
  $("lamps").replaceChildren(...lamps.map(([c, t]) => make("li", t, c)));
}
function drawAlarms() {
  const box = $("alarms"), out = [];
  const items = state.sources.filter((s) => s.raised).map((s) => ({ key: s.key, text: s.text + (s.out ? ": " + s.cause : ", over now"), since: s.since, latched: s.latched }))
    .concat(state.keys.filter((k) => k.raised).map((k) => ({ key: k.key, latched: k.latched, since: k.since, by: k.by, text: (k.state === "out" ? k.kind + ", now " + number(k.value) : "back inside, now " + number(k.value)) + " " + unit(k.unit) + ", worst " + number(k.worst) + ", limits " + k.limits })));
  items.sort((a, b) => b.latched - a.latched || b.since - a.since);
  for (const i of items.slice(0, 12)) {
    const row = make("div"); row.append(make("b", "⚑ " + i.key), make("span", i.text + " · since " + clock(i.since) + (i.latched ? " · severity " + i.latched : "") + (i.by ? " · seen by " + i.by : "")));
    if (!i.by) { const a = make("button", "Acknowledge"); a.onclick = () => flag(i.key, "acknowledge"); row.append(a); }
    const b = make("button", "Lower"); b.onclick = () => flag(i.key, "lower"); row.append(b); out.push(row);
  }
  if (items.length > 12) out.push(make("div", items.length - 12 + " more on the board"));
  const signature = JSON.stringify(items.slice(0, 12).map((i) => [i.key, i.text, i.by])) + items.length;
  box.hidden = !items.length;
  if (box.dataset.signature !== signature) { box.dataset.signature = signature; box.replaceChildren(...out); }
}
const kindOf = (key) => KINDS.find(([, re]) => re.test(key))[0];
const tiles = new Map();
let boardLayout = "";
function drawBoard() {
  const find = $("board-find").value.trim().toUpperCase(), only = $("board-only").checked, order = $("board-order").value;
  const keys = state.keys.filter((k) => (!find || k.key.toUpperCase().includes(find)) && (!only || k.state !== "inside" || k.raised));
  const layout = order + keys.map((k) => k.key).join();
  if (layout !== boardLayout) {
    boardLayout = layout;
    const groups = new Map();
    for (const k of keys) { const g = order === "kind" ? kindOf(k.key) : ""; if (!groups.has(g)) groups.set(g, []); groups.get(g).push(k); }
    const names = order === "kind" ? KINDS.map(([n]) => n).filter((n) => groups.has(n)) : [...groups.keys()];
    $("board").replaceChildren(...names.map((name) => {
      const div = make("div", null, "group"); if (name) div.append(make("h2", name));
      const grid = make("div", null, "tiles");
      for (const k of order === "kind" ? [...groups.get(name)].sort((a, b) => a.key < b.key ? -1 : 1) : groups.get(name)) grid.append(tile(k.key));
      div.append(grid); return div;
    }));
    if (!keys.length) $("board").replaceChildren(make("p", state.hk.rows ? "No key fits." : "No house-keeping yet.", "hint"));
  }
  for (const k of keys) fillTile(tiles.get(k.key), k);
}
function tile(key) {
  if (tiles.has(key)) return tiles.get(key);
  const b = make("button", null, "tile"); b.dataset.key = key; b.id = "key-" + key;
  const name = make("span", null, "name"); name.append(make("span", key), make("span", "", "mark"));
  b.append(name, make("span", "", "value"), make("br"), make("span", "", "lim"));
  b.onclick = () => openDetail(key); tiles.set(key, b); return b;
}
function fillTile(b, k) {
  const sig = [k.state, k.raised, k.value, k.kind, k.trend, k.limits, k.by, k.until].join("|");
  if (b.dataset.sig === sig) return;
  b.dataset.sig = sig; b.dataset.state = k.state;
  b.className = "tile " + k.state + (k.raised ? " latched" : "");
  b.querySelector(".mark").textContent = (k.raised ? "⚑" : "") + MARKS[k.state] + (k.state === "muted" && k.kind !== "inside" ? "✕" : "");
  b.querySelector(".value").textContent = (k.value === null ? "no value" : number(k.value) + " " + unit(k.unit)) + " " + ARROWS[k.trend];
  b.querySelector(".lim").textContent = k.limits + (k.critical ? " · critical" : "") + (k.state === "muted" ? " · muted " + (k.until === "for ever" ? "until unmuted" : "until " + clock(k.until)) : "");
  b.setAttribute("aria-label", k.key + " " + k.state + (k.raised ? ", raised" : "") + ", " + number(k.value) + " " + unit(k.unit) + ", limits " + k.limits);
}

/* ---- plots ---- */
const utc = (ts) => uPlot.tzDate(new Date(ts * 1e3), "Etc/UTC");
function limitHook(limits) {
  return (u) => {
    const ctx = u.ctx, draws = [["performance", "#c98a00", 1], ["safe", "#c2261c", 2]];
    ctx.save(); ctx.beginPath(); ctx.rect(u.bbox.left, u.bbox.top, u.bbox.width, u.bbox.height); ctx.clip();
    for (const [name, colour, width] of draws) for (const y of limits[name] || []) {
      const at = u.valToPos(y, "y", true), top = u.bbox.top, foot = top + u.bbox.height;
      if (name === "safe" && (at < top || at > foot)) { /* out of view: named at the edge it lies beyond */
        const r = devicePixelRatio, words = (at < top ? "limit ▲ " : "limit ▼ ") + number(y), base = at < top ? top + 12 * r : foot - 4 * r;
        ctx.font = 11 * r + "px sans-serif"; ctx.textAlign = "left"; const wide = ctx.measureText(words).width;
        ctx.fillStyle = "rgba(255,255,255,.85)"; ctx.fillRect(u.bbox.left, base - 11 * r, wide + 8 * r, 15 * r); ctx.fillStyle = colour; ctx.fillText(words, u.bbox.left + 4 * r, base); continue;
      }
      ctx.strokeStyle = colour; ctx.lineWidth = width * devicePixelRatio; ctx.setLineDash([6, 4]);
      ctx.beginPath(); ctx.moveTo(u.bbox.left, at); ctx.lineTo(u.bbox.left + u.bbox.width, at); ctx.stroke();
    }
    ctx.setLineDash([]); ctx.fillStyle = "#c2261c"; /* no value: red marks at the foot */
    const ys = u.data[1]; for (let i = 0; i < ys.length; i += 1) if (ys[i] === null) { const x = u.valToPos(u.data[0][i], "x", true); ctx.fillRect(x - 2, u.bbox.top + u.bbox.height - 8, 4, 8); }
    ctx.restore();
  };
}
function yRange(limits, all) {
  return (u, low, high) => {
    if (low === null || high === null) return [0, 1];
    let span = high - low || Math.abs(high) * 0.02 || 1; let a = low - 0.08 * span, b = high + 0.08 * span;
    if (all) { const ys = [low, high, ...(limits.safe || [])]; a = Math.min(...ys); b = Math.max(...ys); span = b - a || 1; return [a - 0.06 * span, b + 0.06 * span]; }
    for (const y of [...(limits.safe || []), ...(limits.performance || [])]) { /* a limit comes into view when the data are near */
      if (y <= low && low - y < 1.5 * span) a = Math.min(a, y - 0.1 * span); if (y >= high && y - high < 1.5 * span) b = Math.max(b, y + 0.1 * span);
      if (y > low && y < high) continue;
    }
    return [a, b];
  };
}
function plot(target, key, data, width, height, legend, all) {
  const limits = data.limits[key] || {};
  return new uPlot({ width, height, tzDate: utc, legend: { show: legend }, cursor: { drag: { x: true, y: false } }, hooks: { draw: [limitHook(limits)] },
    scales: { y: { range: yRange(limits, all) } },
    axes: [{ size: 28, font: "11px sans-serif", values: [[3600 * 24, "{DD}/{MMM}", null, null, null, null, null, null, 1], [60, "{HH}:{mm}", "\n{DD}/{MMM}", null, null, null, null, null, 1], [1, "{HH}:{mm}:{ss}", "\n{DD}/{MMM}", null, null, null, null, null, 1]] }, { size: 54, font: "11px sans-serif" }],
    series: [{ value: "{YYYY}-{MM}-{DD} {HH}:{mm}:{ss}" }, { label: key, stroke: "#0b5cad", width: 1.5, points: { show: data.t.length < 120, size: 4 }, value: (u, v) => v === null ? "–" : String(+v.toPrecision(7)) }] }, [data.t, data.v[key]], target);
}
function fillPlotChoices() {
  const kinds = ["as in the file", ...KINDS.map(([n]) => n).filter((n) => state.keys.some((k) => kindOf(k.key) === n))];
  const sel = $("plots-kind"); if (sel.options.length !== kinds.length) sel.replaceChildren(...kinds.map((k) => { const o = make("option", k); o.value = k; return o; }));
  const pages = Math.max(1, Math.ceil(plotKeys().length / 9)), p = $("plots-page");
  if (p.options.length !== pages) { p.replaceChildren(...Array.from({ length: pages }, (_, i) => { const o = make("option", i + 1 + " of " + pages); o.value = i; return o; })); }
}
function plotKeys() { const kind = $("plots-kind").value, keys = state.keys.map((k) => k.key); return !kind || kind === "as in the file" ? keys : keys.filter((k) => kindOf(k) === kind).sort(); }
async function loadPlots() {
  const keys = plotKeys().slice(9 * +($("plots-page").value || 0)).slice(0, 9), span = +$("plots-span").value;
  if (!keys.length) return;
  const data = await get("/api/history?points=400&keys=" + keys.map(encodeURIComponent).join(",") + (span ? "&span=" + span : ""));
  lastPlotRows = state.hk.rows;
  const signature = keys.join(), same = plots.length && plots.signature === signature;
  if (same) { plots.forEach((p, i) => p.u.setData([data.t, data.v[keys[i]] || []])); }
  else {
    plots = keys.filter((k) => data.v[k]).map((key) => {
      const div = make("div", null, "plot"); div.dataset.key = key; div.tabIndex = 0; const info = state.keys.find((k) => k.key === key) || {};
      div.append(make("h3", key + (unit(info.unit) ? " [" + unit(info.unit) + "]" : ""))); const inner = make("div"); div.append(inner);
      div.onclick = () => openDetail(key); return { key, div, inner };
    });
    plots.signature = signature; $("plots").replaceChildren(...plots.map((p) => p.div));
    for (const p of plots) p.u = plot(p.inner, p.key, data, Math.max(200, p.inner.clientWidth), 190, false);
  }
  for (const p of plots) { const k = state.keys.find((x) => x.key === p.key); p.div.classList.toggle("out", Boolean(k && k.state === "out")); }
}
async function openDetail(key) {
  detail = { key, u: null }; $("detail-title").textContent = key; drawDetailState(); $("detail-plot").replaceChildren(); if (!$("detail").open) $("detail").showModal(); lastDetailRows = -1;
  await loadDetail().catch((e) => trouble(e.message));
}
async function loadDetail() {
  const key = detail.key, span = +$("detail-span").value, data = await get("/api/history?points=1600&keys=" + encodeURIComponent(key) + (span ? "&span=" + span : ""));
  if (!detail || detail.key !== key || !data.v[key]) return;
  lastDetailRows = state.hk.rows;
  if (detail.u && detail.span === span) { const zoomed = detail.u.scales.x; const full = detail.u.data[0]; const isZoomed = full.length && (zoomed.min > full[0] || zoomed.max < full[full.length - 1]); detail.u.setData([data.t, data.v[key]], !isZoomed); }
  else { $("detail-plot").replaceChildren(); detail.u = plot($("detail-plot"), key, data, $("detail-plot").clientWidth, Math.min(420, Math.max(240, innerHeight * 0.5)), true, $("detail-limits").checked); detail.span = span; }
}
function drawDetailState() {
  const k = state.keys.find((x) => x.key === detail.key); if (!k) return;
  $("detail-state").textContent = MARKS[k.state] + " " + k.state + (k.raised ? ", raised since " + clock(k.since) + " (worst " + number(k.worst) + ")" : "") + (k.by ? ", seen by " + k.by : "") + " · value " + number(k.value) + " " + unit(k.unit) + " " + ARROWS[k.trend] + " · safe " + k.limits + (k.critical ? " · critical: warnings go out" : " · not critical: board and log only");
  $("detail-lower").disabled = !k.raised; $("detail-ack").disabled = !k.raised || Boolean(k.by); $("detail-unmute").disabled = k.state !== "muted";
}

/* ---- EXP-LOG ---- */
async function loadLog() {
  const restart = generation !== state.log.generation; if (!restart && rows.length >= state.log.rows) { return; }
  const got = await get("/api/explog?after=" + (restart ? 0 : rows.length));
  if (restart || got.generation !== generation) { rows = []; generation = got.generation; if (got.from) return; }
  columns = got.columns; shown = got.shown; rows.push(...got.rows); drawLog(true);
}
function drawCurrent() {
  const t = state.session.tests.find((x) => x.current);
  $("log-test").textContent = t ? "Now: " + t.test + ", " + t.frames + " of " + t.declared + " frames, about " + t.minutes_left + " min left" + (state.session.expected_end ? "; session ends about " + state.session.expected_end.replace("T", " ") + " (acquisition clock)" : "") : state.session.given ? "No test of the session is being taken." : "No session given: progress is not known.";
}
/* Words of the search box: each must be in some column; column=text, column>number and column<number look at one column. */
function searchOf(text) {
  return text.trim().split(/\s+/).filter(Boolean).map((word) => {
    const m = /^([A-Za-z_0-9]+)([=<>])(.+)$/.exec(word), i = m ? columns.findIndex((c) => c.toLowerCase() === m[1].toLowerCase()) : -1;
    if (i < 0) { const w = word.toLowerCase(); return (r) => r.some((v) => v !== null && String(v).toLowerCase().includes(w)); }
    if (m[2] === "=") { const w = m[3].toLowerCase(); return (r) => r[i] !== null && (String(r[i]).toLowerCase() === w || (typeof r[i] === "number" && r[i] === Number(m[3]))); }
    return (r) => typeof r[i] === "number" && (m[2] === "<" ? r[i] < Number(m[3]) : r[i] > Number(m[3]));
  });
}
function drawLog(jump) {
  const names = $("log-all").checked ? columns : shown, at = names.map((n) => columns.indexOf(n)), find = searchOf($("log-find").value), only = $("log-wrong").checked, iObs = columns.indexOf("ObsID");
  let list = rows; const wrong = state.session.wrong;
  if (only) list = list.filter((r) => String(r[iObs]) in wrong);
  if (find.length) list = list.filter((r) => find.every((fits) => fits(r)));
  if (sort) { const i = columns.indexOf(sort.name), s = sort.down ? -1 : 1; list = [...list].sort((a, b) => { const x = a[i], y = b[i]; if (x === y) return 0; if (x === null) return 1; if (y === null) return -1; return s * (typeof x === "number" && typeof y === "number" ? x - y : String(x) < String(y) ? -1 : 1); }); }
  const part = sort ? list.slice(0, visible) : list.slice(-visible);
  const box = $("log-scroll"), atEnd = box.scrollTop + box.clientHeight > box.scrollHeight - 60, focused = document.activeElement && document.activeElement.dataset.row, before = box.scrollTop;
  const head = make("tr"); names.forEach((n) => { const th = make("th"), b = make("button", n + (sort && sort.name === n ? sort.down ? " ▼" : " ▲" : "")); b.onclick = () => { sort = sort && sort.name === n ? sort.down ? null : { name: n, down: true } : { name: n, down: false }; drawLog(); }; th.append(b); head.append(th); });
  $("log-table").tHead.replaceChildren(head);
  $("log-table").tBodies[0].replaceChildren(...part.map((r) => { const id = r[iObs], tr = make("tr"); tr.tabIndex = 0; tr.dataset.obsid = id; tr.dataset.row = id + " " + r[columns.indexOf("CCD")]; at.forEach((i) => tr.append(make("td", r[i] === null ? "" : r[i]))); if (String(id) in wrong) { tr.className = "wrong"; tr.title = wrong[String(id)]; } return tr; }));
  $("log-count").textContent = rows.length + " rows, " + new Set(rows.map((r) => r[iObs])).size + " OBSIDs" + (list.length !== rows.length ? ", " + list.length + " fit" : "") + (part.length < list.length ? ", " + part.length + " shown" : "");
  $("log-more").hidden = part.length >= list.length; drawCurrent();
  const again = focused && [...$("log-table").tBodies[0].rows].find((tr) => tr.dataset.row === focused);
  if (again) again.focus({ preventScroll: true });
  box.scrollTop = jump && !sort && !again && atEnd ? box.scrollHeight : before; /* who reads older rows is left in peace */
}

/* ---- images ---- */
async function showImage(id) {
  obsid = id; imageShown = id === state.image.last ? id + ":" + state.image.ccds : null; $("image-obsid").value = id;
  const got = await get("/api/quicklook/" + id), stretch = $("image-stretch").value;
  if (obsid !== id) return;
  $("image-note").textContent = Object.keys(got.ccds).length ? "OBSID " + id + (followLast ? ", the last image" : "") + (got.info ? ": " + [got.info.test, got.info.exptime === null ? "" : number(got.info.exptime) + " s", got.info.wave === null ? "" : "filter " + got.info.wave, got.info.source].filter(Boolean).join(", ") : "") : "No image of OBSID " + id + " in the day-folder.";
  $("images").replaceChildren(...["1", "2", "3"].map((c) => {
    const fig = make("figure"), item = got.ccds[c]; fig.tabIndex = 0; const caption = make("figcaption", "CCD" + c + " "); if (item && item.name) caption.append(make("small", item.name)); fig.append(caption); fig.dataset.ccd = c;
    if (!item) { fig.append(make("p", "no image yet", "hint")); return fig; }
    if (item.error) fig.append(make("p", item.error, "hint"));
    if (item.picture) { const img = make("img"); img.alt = "CCD" + c + " of OBSID " + id; img.src = "/ql/" + id + "/" + c + ".png?stretch=" + stretch; img.ondblclick = () => act("/api/ds9/" + id); const frame = make("div", null, "frame"); frame.append(img, ...["E", "F", "G", "H"].map((q) => make("b", q, "quadrant q" + q))); fig.append(frame); }
    if (item.quadrants.length) { const t = make("table"), h = make("tr"); ["", "offset", "noise", "level", "saturated", "lost"].forEach((x) => h.append(make("th", x))); t.append(h);
      for (const q of item.quadrants) { const tr = make("tr"); [q.quadrant, q.offset, q.noise, q.level, q.saturated, q.lost].forEach((v) => tr.append(make("td", v === null ? "–" : v))); t.append(tr); } const s = make("div", null, "scroll"); s.append(t); fig.append(s, make("p", "ADU; level above the offset", "hint")); }
    return fig;
  }));
}

/* ---- session, copies, warnings ---- */
let sessionDrawn = "";
function drawSession() {
  const s = state.session, signature = JSON.stringify([s.tests, s.verdicts, s.fault, s.expected_end, s.given]);
  if (signature === sessionDrawn) return;
  sessionDrawn = signature; const held = document.activeElement && document.activeElement.href; /* a link keeps the focus of the keyboard */
  const done = s.tests.reduce((n, t) => n + t.frames, 0), all = s.tests.reduce((n, t) => n + t.declared, 0), now = s.tests.find((t) => t.current), ended = s.verdicts.filter((v) => v.verdict || v.status === "complete").length;
  const total = all ? done + " of " + all + " frames (" + Math.round(100 * done / all) + " %); " + ended + " of " + s.tests.length + " tests judged. " + (now ? "Now " + now.test + ", " + now.minutes_left + " min left. " : "") : "";
  const verdicts = new Map(s.verdicts.map((v) => [v.test, v])), names = [...new Set([...s.tests.map((t) => t.test), ...verdicts.keys()])];
  $("session-note").textContent = s.fault ? "The session cannot be read: " + s.fault : !s.given && !names.length ? "No session given (--session) and no results." : total + (s.expected_end ? "Expected end " + s.expected_end.replace("T", " ") + " by the acquisition's clock." : "");
  $("session-table").tBodies[0].replaceChildren(...names.map((name) => {
    const t = s.tests.find((x) => x.test === name), v = verdicts.get(name), tr = make("tr"); if (t && t.current) tr.className = "current";
    tr.append(make("td", name), make("td", t ? t.frames + " / " + t.declared : ""));
    const bar = make("td"); if (t) { const b = make("div", null, "bar"), i = make("i"); i.style.width = 100 * Math.min(1, t.frames / Math.max(1, t.declared)) + "%"; b.append(i); bar.append(b); } tr.append(bar);
    tr.append(make("td", t ? t.minutes_left : ""), make("td", v ? v.verdict || v.status : "", v ? ["pass", "go"].includes(v.verdict) ? "pass" : ["fail", "no_go"].includes(v.verdict) ? "fail" : "" : ""));
    const links = make("td"); if (v) for (const kind of v.reports) { const a = make("a", kind.toUpperCase()); a.href = "/report/" + encodeURIComponent(name) + "/" + encodeURIComponent(name) + "_report." + kind; a.target = "_blank"; a.rel = "noopener"; links.append(a, " "); } tr.append(links);
    const flags = make("td", v ? [...new Set(v.flags.map((f) => f.name))].join(" ") : "", "flags"); if (v) flags.title = v.flags.map((f) => f.name + ": " + f.cause).join("\n");
    const wrong = make("td", t ? t.wrong : ""); if (t && t.wrong) wrong.className = "bad";
    tr.append(flags, make("td", t && t.obsids ? t.obsids[0] + "–" + t.obsids[1] : ""), wrong); return tr;
  }));
  const link = held && [...document.querySelectorAll("#session-table a")].find((a) => a.href === held); if (link) link.focus({ preventScroll: true });
}
function drawSystem() {
  $("copies").replaceChildren(...(state.copies.length ? state.copies.map((c) => {
    const d = make("div", null, "card" + (c.error || c.differing.length ? " bad" : "")); d.append(make("b", c.name), c.target, make("br"), (c.running ? "running; " : "") + "last success " + ago(c.last_success) + "; last pass " + c.files + " files, " + size(c.bytes) + (c.seconds === null ? "" : " in " + c.seconds.toFixed(1) + " s") + "; lag " + Math.round(c.behind_s) + " s; " + c.total_files + " files in the day-folder");
    d.append(make("br"), c.verified + " files verified by checksum on both sides, " + c.unverified + " not yet" + (c.oldest_check ? "; oldest check " + ago(c.oldest_check) : "") + (c.left_out ? "; " + c.left_out + " links in the folder (those leading out are not copied)" : ""));
    if (c.differing.length) d.append(make("br"), make("b", "DIFFER: " + c.differing.slice(0, 5).join(", "))); if (c.error) d.append(make("br"), make("b", c.error)); return d;
  }) : [make("p", "No back-up: start the monitor with --backup or --broadcast.", "hint")]));
  $("copy-now").hidden = !state.copies.length; $("test-warning").hidden = !state.channels.length;
  $("channels").replaceChildren(...(state.channels.length ? state.channels.map((c) => {
    const d = make("div", null, "card" + (c.failures ? " bad" : "")); d.append(make("b", c.name), c.kind + ", from severity " + c.from_severity + "; last sent " + ago(c.last_success) + (c.waiting ? "; " + c.waiting + " waiting" : "")); if (c.failures) d.append(make("br"), make("b", "NOT sent: " + c.error + " (" + c.failures + " tries)")); return d;
  }) : [make("p", "Warnings are off: start the monitor with --warn.", "hint")]));
  $("events").replaceChildren(...[...state.events].reverse().map((e) => { const li = make("li"); li.append(clock(e.time) + " ", make("span", e.text, e.level)); return li; }));
}

/* ---- pages and keys ---- */
function open(name) {
  page = name; for (const b of document.querySelectorAll("nav button")) { b.setAttribute("aria-selected", String(b.dataset.page === name)); if (b.dataset.page === name) b.scrollIntoView({ block: "nearest", inline: "nearest" }); }
  for (const s of document.querySelectorAll(".page")) s.hidden = s.id !== "page-" + name;
  if (!state) return; if (name === "plots") lastPlotRows = -1; if (name === "session") drawSession(); if (name === "system") drawSystem(); if (name === "log") drawLog(true); refresh().catch((e) => trouble(e.message));
}
for (const b of document.querySelectorAll("nav button")) b.onclick = () => open(b.dataset.page);
for (const id of ["board-order", "board-only", "board-find"]) $(id).addEventListener("input", () => state && drawBoard());
for (const id of ["plots-kind", "plots-page", "plots-span"]) $(id).addEventListener("input", () => { if (id === "plots-kind") $("plots-page").value = 0; plots = []; lastPlotRows = -1; fillPlotChoices(); refresh(); });
for (const id of ["log-find", "log-all", "log-wrong"]) $(id).addEventListener("input", () => { visible = 200; if (state) drawLog(); });
$("log-paused").oninput = () => refresh(); $("log-more").onclick = () => { visible += 400; drawLog(); };
$("log-table").addEventListener("click", (e) => { const tr = e.target.closest("tbody tr"); if (tr) tr.focus(); });
$("log-table").addEventListener("dblclick", (e) => { const tr = e.target.closest("tbody tr"); if (tr) { look(+tr.dataset.obsid); act("/api/ds9/" + tr.dataset.obsid); } });
const neighbour = (step) => { if (obsid !== null && obsid + step >= 0) look(obsid + step); };
$("image-previous").onclick = () => neighbour(-1); $("image-next").onclick = () => neighbour(1);
const turn = (step) => { const p = $("plots-page"), n = Math.min(p.options.length - 1, Math.max(0, +p.value + step)); if (n !== +p.value) { p.value = n; plots = []; lastPlotRows = -1; refresh(); } };
function look(id) { followLast = state && id === state.image.last; open("images"); showImage(id).catch((e) => trouble(e.message)); }
$("image-show").onclick = () => { const id = $("image-obsid").value.trim(); if (/^\d{1,9}$/.test(id)) look(+id); else trouble("An OBSID is a number."); };
$("image-obsid").onkeydown = (e) => { if (e.key === "Enter") $("image-show").click(); };
$("image-last").onclick = () => { followLast = true; if (state.image.last !== null) look(state.image.last); else trouble("No image yet."); };
$("image-stretch").oninput = () => obsid !== null && showImage(obsid); $("image-ds9").onclick = () => obsid !== null && act("/api/ds9/" + obsid);
$("lower-all").onclick = () => act("/api/flags/lower-all"); $("unmute-all").onclick = () => act("/api/flags/lower-all", { unmute: true }); $("help-button").onclick = () => $("help").showModal();
$("copy-now").onclick = () => act("/api/copy-now"); $("test-warning").onclick = () => act("/api/test-warning");
const muteHours = () => { const h = $("detail-hours").value; return h ? { hours: +h } : {}; };
$("detail-lower").onclick = () => flag(detail.key, "lower"); $("detail-ack").onclick = () => flag(detail.key, "acknowledge"); $("detail-mute").onclick = () => flag(detail.key, "mute", muteHours()); $("detail-unmute").onclick = () => flag(detail.key, "unmute");
$("detail-span").oninput = () => loadDetail(); $("detail-limits").oninput = () => { detail.u = null; loadDetail(); }; $("detail").addEventListener("close", () => { const t = detail && tiles.get(detail.key); detail = null; if (t && page === "board") t.focus(); });
$("user").value = user; $("user").oninput = () => { user = $("user").value.trim(); try { localStorage.setItem("user", user); } catch (e) { /* none */ } };
$("access").textContent = token ? "" : "Look only: open the address that calcamp monitor printed to lower or mute flags.";
function step(e, items, forward) { const i = items.indexOf(document.activeElement), n = items[Math.min(items.length - 1, Math.max(0, i + forward))]; if (i >= 0 && n) { n.focus(); e.preventDefault(); } }
document.addEventListener("keydown", (e) => {
  const typing = /^(INPUT|SELECT|TEXTAREA)$/.test(e.target.tagName); if (e.ctrlKey || e.metaKey || e.altKey || typing) { if (typing && e.key === "Escape") e.target.blur(); return; }
  const pages = ["board", "plots", "log", "images", "session", "system"], on = e.target.closest && e.target.closest("[data-key]"), key = $("detail").open ? detail && detail.key : on && on.dataset.key, row = e.target.closest && e.target.closest("tr[data-obsid]"), k = e.key.toLowerCase();
  if (!$("detail").open && k >= "1" && k <= "6") { open(pages[+k - 1]); return; }
  if (k === "/") { const f = page === "log" ? "log-find" : "board-find"; if (page !== "log") open("board"); $(f).focus(); e.preventDefault(); return; }
  if (k === "?") { $("help").showModal(); return; }
  if (key && "lamu".includes(k) && k.length === 1) { flag(key, { l: "lower", a: "acknowledge", m: "mute", u: "unmute" }[k], k === "m" ? $("detail").open ? muteHours() : { hours: 8 } : {}); return; }
  if (k === "d" && (row || (page === "images" && obsid !== null))) { act("/api/ds9/" + (row ? row.dataset.obsid : obsid)); return; }
  if ((k === "n" || k === "p") && page === "images") { neighbour(k === "n" ? 1 : -1); return; }
  if ((k === "n" || k === "p") && page === "plots") { turn(k === "n" ? 1 : -1); return; }
  if (k === "enter" && row) { look(+row.dataset.obsid); return; }
  if (k === "enter" && on && on.classList.contains("plot")) { e.preventDefault(); openDetail(on.dataset.key); return; } /* or the same Enter presses Close */
  if (row && k === "arrowdown") step(e, [...document.querySelectorAll("#log-table tbody tr")], 1);
  if (row && k === "arrowup") step(e, [...document.querySelectorAll("#log-table tbody tr")], -1);
  if (on && on.classList.contains("tile") && ["arrowright", "arrowleft"].includes(k)) step(e, [...document.querySelectorAll("#board .tile")], k === "arrowright" ? 1 : -1);
  const tab = e.target.closest && e.target.closest("nav button"); if (tab && ["arrowright", "arrowleft"].includes(k)) step(e, [...document.querySelectorAll("nav button")], k === "arrowright" ? 1 : -1);
});
addEventListener("resize", () => { plots = []; lastPlotRows = -1; });
(async () => { if (token) await post("/api/login").catch((e) => { $("access").textContent = "Look only: " + e.message; }); loop(); })();
})();
