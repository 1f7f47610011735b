"use strict";
// What the page shows of the messages of the stream.

const graphs = [
  new Graph("requests", "Requests per second", [{ name: "read", of: p => p.read }, { name: "write", of: p => p.write }]),
  new Graph("latency", "Write latency in milliseconds", [{ name: "p50", of: p => p.p50 }, { name: "p99", of: p => p.p99 }]),
  new Graph("lag", "Replication lag in entries", [{ name: "max", of: p => p.lag }]),
];

// clock formats a time as local time of day, with the date if that is not today.
function clock(at, digits) {
  at = new Date(at);
  const pad = (n, width) => String(n).padStart(width, "0");
  const today = at.toDateString() === new Date().toDateString();
  return (today ? "" : `${at.getFullYear()}-${pad(at.getMonth() + 1, 2)}-${pad(at.getDate(), 2)} `) +
    `${pad(at.getHours(), 2)}:${pad(at.getMinutes(), 2)}:${pad(at.getSeconds(), 2)}` +
    (digits ? `.${pad(at.getMilliseconds(), 3)}` : "");
}

function span(ms) {
  const s = Math.floor(ms / 1000);
  if (s < 60) return `${s}s`;
  if (s < 3600) return `${Math.floor(s / 60)}m${s % 60}s`;
  if (s < 172800) return `${Math.floor(s / 3600)}h${Math.floor(s % 3600 / 60)}m`;
  return `${Math.floor(s / 86400)}d`;
}

const percent = v => `${v.toFixed(1)} %`;
const mebibytes = v => `${Math.round(v / 1048576)} MiB`;

// serverNow is the current time by the clock of the leader, which stamps samples and events.
const serverNow = () => Date.now() - state.skew;

function draw() {
  const now = serverNow(), marked = marks();
  const cuts = marked.filter(m => m.kind === "takeover").map(m => m.at);
  for (const g of graphs) g.draw(state.samples, cuts, now);
  drawTimeline($("timeline"), marked, now);
}

// ---- what is wrong

// problems returns what an operator should know first, the worst first.
function problems() {
  const found = [];
  const hosts = state.hosts;
  if (hosts && !hosts.writable) found.push({ level: "error", short: "no majority", text: `This host cannot serve requests. ${hosts.verdict}` });
  if (state.tree && state.tree.degraded) {
    found.push({ level: "warning", short: "degraded", text: "Degraded: fewer followers are in sync than replication.min_sync requires." });
  }
  return found;
}

function showProblems() {
  const found = problems(), alarm = $("alarm");
  alarm.hidden = found.length === 0 || state.lost;
  setText(alarm, found.map(p => p.text).join(" "));
  alarm.dataset.level = found.length > 0 ? found[0].level : "";
  showOutage();
  const parts = state.lost ? [`no answer since ${clock(state.heard)}`] : [...found.map(p => p.short), state.tree ? `epoch ${state.tree.epoch}` : ""];
  const title = `${parts.filter(Boolean).join(", ")} – dynast`;
  if (document.title !== title) document.title = title;
}

function showOutage() {
  document.body.dataset.link = state.lost ? "lost" : "live";
  $("outage").hidden = !state.lost;
  setText($("outage"), state.lost ? `No answer since ${clock(state.heard)}: ${outageReason()} ` +
    (state.tree ? "The values below are from that time." : "") : "");
  setText($("link"), state.lost ? "no answer" : state.tree ? "live" : "connecting");
  for (const b of document.querySelectorAll("button.act")) b.disabled = state.lost;
}

function outageReason() {
  if (!navigator.onLine) return "this browser is offline.";
  if (state.refused) return "nothing answers at this address. Run dynast tree on the host.";
  return "the connection is open, but nothing arrives. The leader may be stopped or hang. Run dynast tree on the host.";
}

// showAge marks a section whose data is older than that of the rest of the page.
function showAge(id, at) {
  const old = !state.lost && at > 0 && Date.now() - at > LOST_AFTER * state.interval;
  $(id).dataset.stale = old;
  const note = $(id).querySelector(".age");
  note.hidden = !old;
  setText(note, old ? `as of ${clock(at)}, no newer answer` : "");
}

// ---- the processes

const MEMBER_CSS = { serving: "good", in_sync: "good", lagging: "warn" };

// isSilent reports whether a follower that was in sync has missed several heartbeats.
function isSilent(m, tree) {
  const up = m.address !== tree.leader && (m.state === "in_sync" || m.state === "lagging");
  return up && state.heartbeat > 0 && m.heartbeat_age_ms > 3 * state.heartbeat;
}

const memberColumns = [
  { label: "Process", css: "name", show: (m, t) => (m.address === t.leader ? "" : "└ ") + m.address },
  { label: "Role", show: m => m.role },
  { label: "State", show: (m, t) => isSilent(m, t) ? { text: `${m.state}, silent`, css: "warn" } : { text: m.state, css: MEMBER_CSS[m.state] } },
  { label: "PID", css: "n", show: m => m.pid },
  { label: "Up", css: "n", show: m => span(m.uptime_ms) },
  { label: "Index", css: "n", show: m => m.index },
  { label: "Lag", css: "n", show: m => m.state === "starting" ? "syncing" : m.lag },
  { label: "Heartbeat", css: "n", show: (m, t) => m.address === t.leader ? "–" : `${m.heartbeat_age_ms} ms` },
  { label: "CPU", css: "n", show: m => percent(m.cpu_percent) },
  { label: "Memory", css: "n", show: m => mebibytes(m.rss_bytes) },
  { label: "Restarts", css: "n", show: m => m.restarts },
];

function bytes(n) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let u = 0;
  for (; n >= 1023.5 && u < units.length - 1; u++) n /= 1024;
  return `${u >= 3 && n < 9.95 && n % 1 ? n.toFixed(1) : Math.round(n)} ${units[u]}`;
}

// showStore shows the facts of the store. A leader that is older than them sends none.
function showStore(store) {
  $("store").hidden = !store;
  if (!store) return;
  const many = (n, what) => `${n} ${what}${n === 1 ? "" : "s"}`;
  const quota = store.quota_bytes < 0 ? "in use, no quota" : `of ${bytes(store.quota_bytes)} in use`;
  $("store").className = store.alarms.length > 0 ? "bad" : "";
  setText($("store"), [...store.alarms.map(a => `ALARM ${a}`), many(store.keys, "key"), `${bytes(store.used_bytes)} ${quota}`,
    `${bytes(store.file_bytes)} on disk`, `${bytes(store.disk_free_bytes)} disk free`, `revision ${store.revision}`,
    many(store.connections, "client"), many(store.watchers, "watcher")].join(" · "));
}

function showTree() {
  const tree = state.tree;
  showStore(tree.store);
  setText($("epoch"), tree.epoch);
  setText($("leader"), tree.leader || "–");
  setText($("heir"), tree.heir || "none");
  $("heir").className = tree.heir || tree.followers === 0 ? "" : "warn";
  setText($("client"), tree.client);
  setText($("takeovers"), tree.takeovers);
  setText($("deaths"), tree.restarts);
  const synced = tree.members.filter(m => m.state === "in_sync").length;
  setText($("wanted"), `${synced} of ${tree.followers} followers in sync`);
  const members = [...tree.members].sort((a, b) => (b.address === tree.leader) - (a.address === tree.leader));
  reconcile($("processes").tBodies[0], members, m => `${m.address} ${m.pid}`, () => document.createElement("tr"),
    (row, m) => showMember(row, m, tree));
}

function showMember(row, m, tree) {
  row.dataset.address = m.address;
  row.dataset.stale = isSilent(m, tree);
  fillRow(row, memberColumns, m, tree);
  showHeir(row.cells[0], m.address === tree.heir);
  fillButtons(row, memberColumns, state.token ? memberButtons(m, tree) : []);
}

function showHeir(td, heir) {
  const shown = td.querySelector(".mark");
  if (shown && !heir) shown.remove();
  if (shown || !heir) return;
  const mark = document.createElement("span");
  mark.className = "mark";
  mark.textContent = "heir";
  td.append(mark);
}

function memberButtons(m, tree) {
  const kill = { css: "kill", text: "Kill", target: m.address,
    press: () => ask(`Kill ${m.address} (pid ${m.pid}) with SIGKILL?`, "kill", { address: m.address }) };
  if (m.address === tree.leader || m.state !== "in_sync") return [kill];
  return [{ css: "promote", text: "Hand over", label: "Hand over to", target: m.address,
    press: () => ask(`Hand the leadership over to ${m.address}?`, "promote", { address: m.address }) }, kill];
}

// ---- the hosts

const hostColumns = [
  { label: "Host", css: "name", show: (h, list) => h.name === list.self ? `${h.name} (this)` : h.name },
  { label: "Address", show: h => h.address },
  { label: "Role", show: h => h.reachable ? { text: h.role, css: "good" } : { text: `${h.role}, no answer`, css: "warn" } },
  { label: "Lag", css: "n", show: h => h.lag < 0 ? "?" : h.lag },
  { label: "Last heard", css: "n", show: lastHeard },
  { label: "Version", show: h => h.status ? h.status.version : "?" },
  { label: "If it is lost now", css: "note", show: h => h.if_lost },
];

function lastHeard(h, list) {
  if (h.reachable) return "now";
  const at = Date.parse(h.last_contact);
  return at > 0 ? `${span(Math.max(0, Date.parse(list.at) - at))} ago` : "never";
}

// showHosts shows the hosts of the cluster. A single host gets no such message.
function showHosts() {
  $("hosts").hidden = false;
  setText($("verdict"), state.hosts.verdict);
  reconcile($("host-rows").tBodies[0], state.hosts.hosts, h => h.name, () => document.createElement("tr"),
    (row, h) => { row.dataset.stale = !h.reachable; fillRow(row, hostColumns, h, state.hosts); });
}

// ---- the services

const INSTANCE_CSS = { ready: "good", done: "good", failed: "bad", backoff: "warn", stopped: "dim" };

const instanceColumns = [
  { label: "Instance", css: "name", show: i => i.id },
  { label: "State", show: i => ({ text: i.state, css: INSTANCE_CSS[i.state] }) },
  { label: "PID", css: "n", show: i => i.pid || "–" },
  { label: "Up", css: "n", show: i => i.pid ? span(i.uptime_ms) : "–" },
  { label: "Restarts", css: "n", show: i => i.restarts },
  { label: "CPU", css: "n", show: i => i.pid ? percent(i.cpu_percent) : "–" },
  { label: "Memory", css: "n", show: i => i.pid ? mebibytes(i.rss_bytes) : "–" },
  { label: "Note", css: "note", show: (i, service, now) => { const text = note(i, service, now); return { text, title: text }; } },
];

// showServices shows the instances. The section is hidden when there are no services.
function showServices() {
  const report = state.services, now = Date.parse(report.at);
  $("services").hidden = report.services.length === 0;
  const instances = report.services.flatMap(service => (service.instances || []).map(i => ({ i, service })));
  reconcile($("instances").tBodies[0], instances, x => x.i.id, () => document.createElement("tr"), (row, { i, service }) => {
    row.dataset.instance = i.id;
    fillRow(row, instanceColumns, i, service, now);
    fillButtons(row, instanceColumns, state.token ? instanceButtons(i) : []);
  });
}

function instanceButtons(i) {
  const name = i.id + (i.pid ? ` (pid ${i.pid})` : "");
  const make = (css, text) => ({ css, text, target: i.id, press: () => ask(`${text} ${name}?`, `services/${css}`, { name: i.id }) });
  const ended = ["stopped", "failed", "done"].includes(i.state);
  return [ended ? make("start", "Start") : make("stop", "Stop"), make("restart", "Restart")];
}

// note says what the other columns do not say, like the last column of dynast ps.
function note(i, service, now) {
  const parts = [];
  const exit = i.last_exit;
  if (i.reason) parts.push(i.reason);
  if (i.status) parts.push(i.status);
  if (exit && exit.reason !== i.reason) parts.push(`${exit.reason} ${span(Math.max(0, now - Date.parse(exit.at)))} ago`);
  if (service.next_run) parts.push(`next run in ${span(Math.max(0, Date.parse(service.next_run) - now))}`);
  if (i.skipped) parts.push(`${i.skipped} runs skipped`);
  for (const limit of i.limits_not_applied || []) parts.push(`limit not applied: ${limit}`);
  return parts.join("; ");
}

// ---- the events

const EVENT_CSS = { error: "bad", warning: "warn" };

const detail = e => (e.detail || "") + (e.seconds ? ` (${(e.seconds * 1000).toFixed(1)} ms without a leader)` : "");
const eventKey = e => [e.at, e.by, e.kind, e.pid, e.detail].join(" ");

const eventColumns = [
  { label: "Time", css: "dim", show: e => clock(e.at, true) },
  { label: "Epoch", css: "dim", show: e => `epoch ${e.epoch}` },
  { label: "Event", show: e => ({ text: e.kind, css: EVENT_CSS[e.level] || (e.recovery ? "good" : "") }) },
  { label: "Process", show: e => e.member ? `${e.member} pid ${e.pid}` : "" },
  { label: "Detail", css: "detail", show: detail },
];

function showEvents() {
  reconcile($("events").tBodies[0], state.events.slice(-100).reverse(), eventKey, () => document.createElement("tr"), (row, e) => {
    row.dataset.kind = e.kind;
    fillRow(row, eventColumns, e);
  });
}

// markOf returns the kind of an event's mark in the timeline, or undefined if it has none.
function markOf(e) {
  if (e.kind === "serving") return e.seconds ? "takeover" : "start";
  if (e.kind === "leader_lost" || e.kind === "member_died") return "death";
  return e.level === "error" ? "error" : undefined;
}

// marks returns the marks of the timeline. The list below it has all events.
function marks() {
  return state.events.filter(markOf).map(e => ({
    key: eventKey(e), at: Date.parse(e.at), kind: markOf(e), label: `${clock(e.at, true)} ${e.kind} ${e.member || ""} ${detail(e)}`,
  }));
}
