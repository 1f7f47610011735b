"use strict";
// The page of one cluster. The stream ends with the leader and starts again with the next one. The
// page keeps its graphs and events across such a takeover.

// LOST_AFTER and REOPEN_AFTER are numbers of intervals without a message: until the page says that
// there is no answer, and until it opens a new stream. A takeover takes less.
const LOST_AFTER = 2.5, REOPEN_AFTER = 4;

const state = {
  stream: null, opened: 0, interval: 1000, heartbeat: 0, actions: false, token: "",
  // heard is when the last description of the processes arrived, and skew is how much later that is
  // by this clock than by the leader's. lost says that none has arrived for too long, and refused
  // that the last attempt to open the stream failed.
  heard: Date.now(), skew: 0, lost: false, refused: false,
  tree: null, services: null, servicesAt: 0, hosts: null, hostsAt: 0, samples: [], events: [],
};

// ---- messages of the stream

function onTree(tree) {
  state.tree = tree;
  state.heard = Date.now();
  state.skew = state.heard - Date.parse(tree.at);
  state.lost = state.refused = false;
  showTree();
  showProblems();
  draw();
}

// onSamples adds points of the graphs. The first message of a leader has its whole history, which
// replaces what the page has of the same time.
function onSamples(list) {
  const samples = list.map(s => ({ ...s, at: Date.parse(s.at) }));
  const now = samples.at(-1).at;
  state.samples = state.samples.filter(s => s.at < samples[0].at && s.at > now - SPAN_MS).concat(samples);
}

function onEvents(list) {
  state.events = [...state.events, ...list].slice(-500);
  showEvents();
}

function onServices(report) {
  state.services = report;
  state.servicesAt = Date.now();
  showServices();
}

function onHosts(list) {
  state.hosts = list;
  state.hostsAt = Date.now();
  showHosts();
}

function onHello(hello) {
  state.interval = hello.interval_ms;
  state.heartbeat = hello.heartbeat_ms;
  state.actions = hello.actions;
  state.hosts = null; // this may be a single host by now
  unlock(state.token);
}

// ---- the stream

// connect opens the stream. EventSource reconnects by itself after most failures.
function connect() {
  if (state.stream) state.stream.close();
  const stream = state.stream = new EventSource("api/stream");
  state.opened = Date.now();
  const on = (kind, take) => stream.addEventListener(kind, e => take(JSON.parse(e.data)));
  on("hello", onHello);
  on("past", list => { state.events = []; onEvents(list); });
  on("events", onEvents);
  on("samples", onSamples);
  on("tree", onTree);
  on("services", onServices);
  on("hosts", onHosts);
  stream.addEventListener("error", () => {
    state.refused = true;
    if (stream.readyState === EventSource.CLOSED) setTimeout(() => { if (state.stream === stream) connect(); }, state.interval);
  });
  stream.addEventListener("open", () => { state.refused = false; });
}

// judge notices that no messages arrive: the cluster is down, the leader is stopped, or the
// connection is broken. A stopped leader leaves the connection open.
function judge() {
  const now = Date.now();
  const lost = now - state.heard > LOST_AFTER * state.interval;
  if (lost || lost !== state.lost) {
    state.lost = lost;
    showProblems();
    $("yes").disabled = lost;
  }
  if (!state.hosts && now - state.opened > LOST_AFTER * state.interval) $("hosts").hidden = true;
  showAge("services", state.servicesAt);
  showAge("hosts", state.hostsAt);
  if (now - Math.max(state.heard, state.opened) > REOPEN_AFTER * state.interval) connect();
}

// ---- changes

function ask(question, action, order) {
  setText($("question"), question);
  $("yes").disabled = state.lost;
  $("yes").onclick = () => { $("ask").close(); act(action, order); };
  $("no").onclick = () => $("ask").close();
  $("ask").showModal();
}

// change formats a change of the follower count for a question.
function change(by) {
  return state.tree ? ` (${state.tree.followers} → ${state.tree.followers + by})` : "";
}

function say(text, css) {
  setText($("said"), text);
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
  for (const table of ["processes", "instances"]) $(table).classList.toggle("unlocked", Boolean(token));
  if (state.tree) showTree();
  if (state.services) showServices();
}

$("login").addEventListener("submit", async e => {
  e.preventDefault();
  const token = $("token").value.trim();
  $("token").value = "";
  if (await act("check", {}, token)) unlock(token); // the token is stored only in this page
});
$("add").addEventListener("click", () => ask(`Add a follower${change(1)}?`, "scale", { by: 1 }));
$("drop").addEventListener("click", () => ask(`Remove a follower${change(-1)}?`, "scale", { by: -1 }));
$("handover").addEventListener("click", () => ask("Hand the leadership over to the heir?", "promote", {}));

addEventListener("resize", draw);
addEventListener("offline", judge);
addEventListener("online", connect);
setInterval(judge, 250);
connect();
