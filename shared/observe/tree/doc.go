// Package tree describes the processes of a cluster, and encodes the description as one
// JSON object.
//
// The JSON is an interface. As long as Schema stays the same, fields are only added, and
// never changed or removed.
package tree
