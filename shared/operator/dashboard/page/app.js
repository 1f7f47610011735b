"use strict";
// The page of one cluster. The stream ends with the leader and starts again with the next one. The
// page keeps its graphs and events across such a takeover.

const $ = id => document.getElementById(id);
const graphs = {
  requests: new Graph($("graph-requests"), 2),
  latency: new Graph($("graph-latency"), 2),
  lag: new Graph($("graph-lag"), 1),
};
const state = { tree: null, services: null, before: null, cuts: [], events: [], token: "", actions: false };

// cell adds a table cell. The content is set as text and never as HTML.
function cell(row, text, css) {
  const td = row.insertCell();
  td.textContent = text;
  if (css) td.className = css;
  return td;
}

function span(ms) {
  const s = Math.floor(ms / 1000);
  if (s < 60) return `${s}s`;
  if (s < 3600) return `${Math.floor(s / 60)}m${s % 60}s`;
  if (s < 172800) return `${Math.floor(s / 3600)}h${Math.floor(s % 3600 / 60)}m`;
  return `${Math.floor(s / 86400)}d`;
}

// since returns the difference of two counts of the same leader, like package meter.
function since(now, before) {
  if (!before || before.count > now.count) return now;
  const was = new Map(before.buckets.map(b => [b.le, b.n]));
  const buckets = now.buckets.map(b => ({ le: b.le, n: b.n - (was.get(b.le) || 0) }));
  return { count: now.count - before.count, buckets };
}

function quantile(counts, q) {
  if (counts.count === 0) return null;
  const rank = Math.max(1, Math.ceil(q * counts.count));
  let n = 0;
  for (const b of counts.buckets) {
    n += b.n;
    if (n >= rank) return (b.le || 16.8) * 1000;
  }
  return null;
}

// ---- messages of the stream

function onTree(tree) {
  const before = state.before;
  const at = Date.parse(tree.at);
  state.tree = tree;
  state.before = { at, epoch: tree.epoch, load: tree.load };
  if (before && before.epoch !== tree.epoch) {
    state.cuts.push(at);
  } else if (before && at > before.at) {
    const seconds = (at - before.at) / 1000;
    const read = since(tree.load.read, before.load.read), write = since(tree.load.write, before.load.write);
    graphs.requests.add(at, [read.count / seconds, write.count / seconds]);
    graphs.latency.add(at, [quantile(write, 0.5), quantile(write, 0.99)]);
    legend("now-requests", [["read", read.count / seconds], ["write", write.count / seconds]]);
    legend("now-latency", [["p50", quantile(write, 0.5)], ["p99", quantile(write, 0.99)]]);
  }
  const lag = Math.max(0, ...tree.members.filter(m => m.role === "follower").map(m => m.lag));
  graphs.lag.add(at, [lag]);
  legend("now-lag", [["max", lag]]);
  show(tree);
  draw();
}

function legend(id, parts) {
  const at = $(id);
  at.replaceChildren();
  parts.forEach(([name, v], i) => {
    const mark = document.createElement("i");
    mark.className = `s${i}`;
    at.append(mark, `${name} ${v === null ? "–" : short(v)}`);
  });
}

function onEvents(list) {
  state.events.push(...list);
  state.events = state.events.slice(-500);
  showEvents();
  draw();
}

// ---- display

function draw() {
  const now = Math.max(Date.now(), state.before ? state.before.at : 0);
  for (const g of Object.values(graphs)) g.draw(now, state.cuts);
  drawTimeline($("timeline"), marks(), now);
}

const GOOD = new Set(["took_over", "serving", "restored", "started", "disk_freed", "memory_eased", "member_in_sync"]);
const BAD = new Set(["leader_lost", "leader_silent", "member_died", "member_silent", "loss_possible", "spawn_error",
  "succession_blocked", "ended", "disk_full", "memory_tight", "events_lost", "degraded", "differs"]);

// marks returns the takeovers and deaths for the timeline. The list below it has all events.
function marks() {
  return state.events.filter(e => ["serving", "leader_lost", "member_died"].includes(e.kind)).map(e => ({
    at: Date.parse(e.at),
    kind: e.kind === "serving" ? (e.seconds ? "warn" : "good") : "bad",
    label: `${new Date(e.at).toLocaleString()} ${e.kind} ${e.member || ""} ${e.detail || ""}` +
      (e.seconds ? ` (${(e.seconds * 1000).toFixed(1)} ms without a leader)` : ""),
  }));
}

// clock formats a time of day, with the date if that is not today.
function clock(at) {
  const pad = (n, digits) => String(n).padStart(digits, "0");
  const day = at.toDateString() === new Date().toDateString() ? "" : `${at.getFullYear()}-${pad(at.getMonth() + 1, 2)}-${pad(at.getDate(), 2)} `;
  return `${day}${pad(at.getHours(), 2)}:${pad(at.getMinutes(), 2)}:${pad(at.getSeconds(), 2)}.${pad(at.getMilliseconds(), 3)}`;
}

function showEvents() {
  const body = $("events").tBodies[0];
  body.replaceChildren();
  for (const e of state.events.slice(-100).reverse()) {
    const row = body.insertRow();
    row.dataset.kind = e.kind;
    cell(row, clock(new Date(e.at)), "dim");
    cell(row, `epoch ${e.epoch}`, "dim");
    cell(row, e.kind, BAD.has(e.kind) ? "bad" : GOOD.has(e.kind) ? "good" : "");
    cell(row, e.member ? `${e.member} pid ${e.pid}` : "");
    cell(row, (e.detail || "") + (e.seconds ? ` (${(e.seconds * 1000).toFixed(1)} ms without a leader)` : ""));
  }
}

// ---- the store

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
  $("store").textContent = [...store.alarms.map(a => `ALARM ${a}`), many(store.keys, "key"), `${bytes(store.used_bytes)} ${quota}`,
    `${bytes(store.file_bytes)} on disk`, `${bytes(store.disk_free_bytes)} disk free`, `revision ${store.revision}`,
    many(store.connections, "client"), many(store.watchers, "watcher")].join(" · ");
}

// ---- the processes

function show(tree) {
  showStore(tree.store);
  $("epoch").textContent = tree.epoch;
  $("leader").textContent = tree.leader || "–";
  $("heir").textContent = tree.heir || "none";
  $("heir").className = tree.heir ? "" : "bad";
  $("client").textContent = tree.client;
  $("takeovers").textContent = tree.takeovers;
  $("restarts").textContent = tree.restarts;
  const synced = tree.members.filter(m => m.state === "in_sync").length;
  $("wanted").textContent = `${synced} of ${tree.followers} followers in sync`;
  $("alarm").hidden = !tree.degraded;
  $("alarm").textContent = tree.degraded ? "Degraded: fewer followers are in sync than replication.min_sync requires." : "";
  document.title = `dynast: epoch ${tree.epoch}${tree.degraded ? ", degraded" : ""}`;
  const body = $("processes").tBodies[0];
  body.replaceChildren();
  const members = [...tree.members].sort((a, b) => (b.address === tree.leader) - (a.address === tree.leader));
  for (const m of members) showMember(body.insertRow(), m, tree);
}

function showMember(row, m, tree) {
  const leads = m.address === tree.leader;
  row.dataset.address = m.address;
  const name = cell(row, (leads ? "" : "└ ") + m.address);
  if (m.address === tree.heir) {
    const mark = document.createElement("span");
    mark.className = "mark";
    mark.textContent = "heir";
    name.append(mark);
  }
  cell(row, m.role);
  cell(row, m.state, ["serving", "in_sync"].includes(m.state) ? "good" : m.state === "lagging" ? "bad" : "warn");
  cell(row, m.pid, "n");
  cell(row, span(m.uptime_ms), "n");
  cell(row, m.index, "n");
  cell(row, m.lag, "n");
  cell(row, leads ? "–" : `${m.heartbeat_age_ms} ms`, "n");
  cell(row, `${m.cpu_percent.toFixed(1)} %`, "n");
  cell(row, `${Math.round(m.rss_bytes / 1048576)} MiB`, "n");
  cell(row, m.restarts, "n");
  const buttons = cell(row, "", "n");
  if (!state.token) return;
  if (!leads && m.state === "in_sync") {
    button(buttons, "promote", "Hand over", `Hand the leadership over to ${m.address}?`, "promote", { address: m.address });
  }
  button(buttons, "kill", "Kill", `Kill ${m.address} (pid ${m.pid}) with SIGKILL?`, "kill", { address: m.address });
}

const STATES = { ready: "good", done: "good", failed: "bad", backoff: "bad", stopped: "dim" };

// showServices shows the instances. The section is hidden when there are no services.
function showServices(report) {
  $("services").hidden = report.services.length === 0;
  const body = $("instances").tBodies[0];
  body.replaceChildren();
  for (const service of report.services) {
    for (const i of service.instances || []) showInstance(body.insertRow(), i, service, Date.parse(report.at));
  }
}

// showHosts shows the hosts of the cluster. A single host gets no such message.
function showHosts(list) {
  $("hosts").hidden = false;
  $("verdict").textContent = list.verdict;
  const body = $("host-rows").tBodies[0];
  body.replaceChildren();
  for (const h of list.hosts) {
    const row = body.insertRow();
    cell(row, h.name === list.self ? `${h.name} (this)` : h.name);
    cell(row, h.address);
    cell(row, h.reachable ? h.role : `${h.role}, no answer`, h.reachable ? "good" : "bad");
    cell(row, h.lag < 0 ? "?" : h.lag, "n");
    cell(row, lastHeard(h, list), "n");
    cell(row, h.status ? h.status.version : "?");
    cell(row, h.if_lost, "note");
  }
}

function lastHeard(h, list) {
  if (h.reachable) return "now";
  const at = Date.parse(h.last_contact);
  return at > 0 ? `${span(Math.max(0, Date.parse(list.at) - at))} ago` : "never";
}

function showInstance(row, i, service, now) {
  row.dataset.instance = i.id;
  const runs = i.pid !== 0;
  cell(row, i.id);
  cell(row, i.state, STATES[i.state] || "warn");
  cell(row, runs ? i.pid : "–", "n");
  cell(row, runs ? span(i.uptime_ms) : "–", "n");
  cell(row, i.restarts, "n");
  cell(row, runs ? `${i.cpu_percent.toFixed(1)} %` : "–", "n");
  cell(row, runs ? `${Math.round(i.rss_bytes / 1048576)} MiB` : "–", "n");
  const text = note(i, service, now);
  cell(row, text, "note").title = text;
  const buttons = cell(row, "", "n");
  if (!state.token) return;
  const name = i.id + (runs ? ` (pid ${i.pid})` : "");
  if (["stopped", "failed", "done"].includes(i.state)) {
    button(buttons, "start", "Start", `Start ${name}?`, "services/start", { name: i.id });
  } else {
    button(buttons, "stop", "Stop", `Stop ${name}?`, "services/stop", { name: i.id });
  }
  button(buttons, "restart", "Restart", `Restart ${name}?`, "services/restart", { name: i.id });
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

function button(parent, css, text, question, action, order) {
  const b = document.createElement("button");
  b.type = "button";
  b.className = css;
  b.textContent = text;
  b.addEventListener("click", () => ask(question, () => act(action, order)));
  parent.append(b);
}

// ---- changes

function ask(question, then) {
  $("question").textContent = question;
  $("yes").onclick = () => { $("ask").close(); then(); };
  $("no").onclick = () => $("ask").close();
  $("ask").showModal();
}

// change formats a change of the follower count for a question.
function change(by) {
  return state.tree ? ` (${state.tree.followers} → ${state.tree.followers + by})` : "";
}

function say(text, css) {
  $("said").textContent = text;
  $("said").className = css || "";
}

async function act(action, order, token) {
  try {
    const answer = await fetch(`api/${action}`, {
      method: "POST",
      headers: { "Authorization": `Bearer ${token || state.token}`, "Content-Type": "application/json" },
      // The epoch that the page shows. A leader of another epoch refuses the request, so that a
      // repeated request has no effect.
      body: JSON.stringify({ ...order, epoch: state.tree ? state.tree.epoch : 0 }),
    });
    const text = (await answer.text()).trim();
    say(text, answer.ok ? "good" : "bad");
    return answer.ok;
  } catch {
    // The leader that got the request is gone, perhaps because of the request.
    say("the connection was lost before the answer: check the processes and events below", "warn");
    return false;
  }
}

function unlock(token) {
  state.token = token;
  $("controls").hidden = !token;
  $("login").hidden = !state.actions || Boolean(token);
  $("readonly").hidden = state.actions;
  if (state.tree) show(state.tree);
  if (state.services) showServices(state.services);
}

$("login").addEventListener("submit", async e => {
  e.preventDefault();
  const token = $("token").value.trim();
  $("token").value = "";
  if (await act("check", {}, token)) unlock(token); // the token is stored only in this page
});
$("add").addEventListener("click", () => ask(`Add a follower${change(1)}?`, () => act("scale", { by: 1 })));
$("drop").addEventListener("click", () => ask(`Remove a follower${change(-1)}?`, () => act("scale", { by: -1 })));
$("handover").addEventListener("click", () => ask("Hand the leadership over to the heir?", () => act("promote", {})));

// ---- the stream

function link(name, text) {
  $("link").dataset.state = name;
  $("link").textContent = text;
}

let watchdog = 0;

// connect opens the stream. EventSource reconnects by itself after most failures. The page opens a
// new one after other failures, and when no message arrives in time.
function connect() {
  const stream = new EventSource("api/stream");
  let interval = 1000;
  const alive = () => {
    link("live", "live");
    clearTimeout(watchdog);
    watchdog = setTimeout(() => { stream.close(); link("lost", "reconnecting"); connect(); }, 4 * interval);
  };
  stream.addEventListener("hello", e => {
    const hello = JSON.parse(e.data);
    interval = hello.interval_ms;
    state.actions = hello.actions;
    unlock(state.token);
    alive();
  });
  stream.addEventListener("past", e => { state.events = []; onEvents(JSON.parse(e.data)); });
  stream.addEventListener("events", e => onEvents(JSON.parse(e.data)));
  stream.addEventListener("tree", e => { alive(); onTree(JSON.parse(e.data)); });
  stream.addEventListener("services", e => { state.services = JSON.parse(e.data); showServices(state.services); });
  stream.addEventListener("hosts", e => showHosts(JSON.parse(e.data)));
  stream.addEventListener("error", () => {
    link("lost", "reconnecting");
    if (stream.readyState === EventSource.CLOSED) {
      clearTimeout(watchdog);
      setTimeout(connect, 250);
    }
  });
}

addEventListener("resize", draw);
connect();
