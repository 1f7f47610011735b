// Package shared holds what both the supervisor and the worker use, in wings. A wing
// is a directory; its doc.go says what it promises and what it may import. They stand
// on each other in this order, and an import never points upwards (a test holds it):
//
//	operator
//	client    prove
//	member    replica    observe
//	rules     host       config
//
// This package has no code of its own.
package shared
