// Package tree describes the processes of a cluster, for programs (Encode,
// one JSON object) and for people (Render).
//
// The JSON is an interface: fields are added, never changed or removed, while
// Schema stays the same.
package tree
