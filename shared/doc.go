// Package shared holds, a package per idea, what both the supervisor and the
// worker use. It has no code of its own.
package shared
