// Package ps holds the description of the user's services that a leader gives to operators:
// the answer to `dynast ps --json`, from which the table, the tree, the page and the metrics are
// made.
package ps
