// Package dashboard is the page for operators: the processes, live graphs of
// requests, latency and lag, and what happened.
//
// The page is one document with a script and a style, all in this binary; it
// asks no other host for anything, and its Content-Security-Policy forbids it to.
// It listens to one stream of server-sent events and connects again by itself: the
// listening socket outlives the leader, so a page that is open while the leader dies
// goes on with the next one.
//
// Guarantees
//
//   - Without a token nothing can be changed, only seen. With one, requests that
//     change something carry it in a header; it is compared in constant time and
//     appears in no log, address or answer.
//   - A page of another site can neither read nor change anything: requests that
//     name another host are refused (DNS rebinding), and there are no cookies.
//   - Nobody looks, nothing is done. Each open page costs one look at the tree a
//     second; their number is bounded.
package dashboard
