// Package dashboard serves the web page for operators. It shows the processes, the services,
// live graphs of requests, latency and lag, and the events.
//
// The page is one HTML document with scripts and a style sheet, which are all embedded in the
// binary. It loads nothing from other hosts, and its Content-Security-Policy forbids that.
// The page reads one stream of server-sent events and reconnects by itself. The listening socket
// outlives the leader, so an open page continues with the next leader when the leader dies.
//
// Guarantees
//
//   - Without a token the page is read-only. Requests that change something carry the token in a
//     header. The token is compared in constant time and appears in no log, URL or answer.
//   - A page of another site can neither read nor change anything. Requests that name another
//     host are refused (DNS rebinding), and there are no cookies.
//   - Without an open page the dashboard only takes a sample of the load once a second, for the
//     graphs of the next page. It keeps those of five minutes in memory. They end with the leader:
//     an open page keeps what it has shown, and a page that is opened after a takeover begins with
//     what the new leader has seen. Each open page reads the tree and the services once a second, and
//     the number of open pages is bounded.
//   - The page says when it shows old values: when no message arrives, when one part of the page or
//     one follower gives none, and when the hosts have no majority.
package dashboard
