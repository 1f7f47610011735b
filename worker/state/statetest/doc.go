// Package statetest creates the state.Shared that a part of a member needs, for tests of one
// part without the others.
package statetest
