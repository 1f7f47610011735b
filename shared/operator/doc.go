// Package operator holds the user interfaces: the commands, the terminal dashboard and the
// dashboard in the browser. All of them show the true state also while the cluster is down.
// The package has no code of its own. Its packages are
//
//   - cli: the commands;
//   - top: the terminal dashboard;
//   - dashboard: the dashboard in the browser;
//   - treeview: the processes as text;
//   - upview: what happens in a cluster, on the terminal of 'dynast up';
//   - imports: service blocks from the configuration of other supervisors;
//   - term: colours, tables, and the removal of control characters from text of others.
//
// They may import every other package tree of shared.
package operator
